"""Pictures of an evaluation: the best, the median and the worst case, before, after and the truth."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.evaluate import Shown

PLACES = ("worst", "median", "best")


@dataclass
class Album:
    """Collects what an evaluation shows at its middle level, and writes three of it as PNG."""

    shown: list[Shown] = field(default_factory=list)

    def add(self, one: Shown) -> None:
        """Keep a slice."""
        self.shown.append(one)

    def write(self, folder: Path) -> list[Path]:
        """worst.png, median.png and best.png by gain of PSNR; none where nothing was shown."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only pictures need it
        from matplotlib.figure import Figure  # noqa: PLC0415

        if not self.shown:
            return []
        levels = sorted({one.level for one in self.shown})
        ranked = sorted(
            (one for one in self.shown if one.level == levels[len(levels) // 2]), key=lambda one: one.gain_db
        )
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, one in zip(PLACES, (ranked[0], ranked[len(ranked) // 2], ranked[-1]), strict=True):
            figure = Figure(figsize=(16, 4.4), layout="constrained")
            FigureCanvasAgg(figure)
            low, high = one.window
            change = one.denoised - one.noisy
            most = max(float(np.percentile(np.abs(change), 99.5)), 1e-6)
            panels = (
                ("noisy", one.noisy, low, high, "gray"),
                (f"denoised, {one.gain_db:+.2f} dB", one.denoised, low, high, "gray"),
                ("truth", one.truth, low, high, "gray"),
                (f"change, ±{most:.3g}", change, -most, most, "coolwarm"),
            )
            for place, (title, image, least, largest, colours) in enumerate(panels, 1):
                axes = figure.add_subplot(1, len(panels), place)
                axes.imshow(image, cmap=colours, vmin=least, vmax=largest, interpolation="nearest")
                axes.set_title(f"{name}: {title}" if place == 1 else title)
                axes.axis("off")
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=100)
            written.append(path)
        return written

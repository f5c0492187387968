"""Pictures of an evaluation: best, median and worst case, what the model made of it, and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluate import Shown
from models.evaluate_anomaly import ShownCase

PLACES = ("worst", "median", "best")
_SIDE, _TITLE, _GAP = 4.0, 0.4, 0.04  # inches of a panel, of the line above it, and between

Panel = tuple[str, NDArray[Any], float, float, str]  # title, image (Y, X), least and largest value, colours


@dataclass
class Album:
    """Collects what an evaluation shows, and writes three of it as PNG."""

    shown: list[Shown] = field(default_factory=list)  # by a denoiser
    cases: list[ShownCase] = field(default_factory=list)  # by an anomaly model

    def add(self, one: Shown | ShownCase) -> None:
        """Keep a slice."""
        if isinstance(one, Shown):
            self.shown.append(one)
        else:
            self.cases.append(one)

    def write(self, folder: Path) -> list[Path]:
        """worst.png, median.png and best.png; none where nothing was shown.

        A denoiser's are ranked by the gain of PSNR at its middle level. An anomaly model's have a row for
        each kind of case, ranked by ShownCase.worth.
        """
        rows: list[list[list[Panel]]] = []  # by kind, then by place
        if self.shown:
            levels = sorted({one.level for one in self.shown})
            ranked = [one for one in self.shown if one.level == levels[len(levels) // 2]]
            rows.append([_denoised(ranked[n]) for n in _three([one.gain_db for one in ranked])])
        for kind in dict.fromkeys(one.kind for one in self.cases):
            alike = [one for one in self.cases if one.kind == kind]
            rows.append([_judged(alike[n]) for n in _three([one.worth for one in alike])])
        if not rows:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.png" for name in PLACES]
        for place, path in enumerate(paths):
            _draw(path, [row[place] for row in rows])
        return paths


def _three(worths: Sequence[float]) -> tuple[int, int, int]:
    """Which is the worst, the median and the best."""
    ranked = [int(n) for n in np.argsort(worths, kind="stable")]
    return ranked[0], ranked[len(ranked) // 2], ranked[-1]


def _denoised(one: Shown) -> list[Panel]:
    low, high = one.window
    change = one.denoised - one.noisy
    most = max(float(np.percentile(np.abs(change), 99.5)), 1e-6)
    return [
        ("noisy", one.noisy, low, high, "gray"),
        (f"denoised, {one.gain_db:+.2f} dB", one.denoised, low, high, "gray"),
        ("truth", one.truth, low, high, "gray"),
        (f"change, ±{most:.3g}", change, -most, most, "coolwarm"),
    ]


def _judged(one: ShownCase) -> list[Panel]:
    low, high = one.window
    marked = one.score > one.threshold
    panels: list[Panel] = [
        (f"{one.kind}, {one.told}", one.image, low, high, "gray"),
        (f"score, white at twice {one.threshold:.2g} SD", one.score, 0.0, 2 * one.threshold, "inferno"),
        ("above the threshold", marked, 0.0, 1.0, "gray"),
    ]
    if one.truth is not None:
        panels.append(("truth", one.truth, 0.0, 1.0, "gray"))
    return panels


def _draw(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only pictures need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    width, height = _SIDE * max(len(row) for row in rows), (_SIDE + _TITLE) * len(rows)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # One pair of axes in inches for all panels: axes are what takes time.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for number, row in enumerate(rows):
        top = height - number * (_SIDE + _TITLE) - _TITLE
        for place, (title, image, least, largest, colours) in enumerate(row):
            left, scale = place * _SIDE + _GAP, (_SIDE - 2 * _GAP) / max(image.shape)
            extent = (left, left + scale * image.shape[1], top - scale * image.shape[0], top)
            axes.imshow(
                image,
                extent=extent,
                cmap=colours,
                vmin=least,
                vmax=largest,
                interpolation="nearest",
                aspect="auto",
            )
            axes.text(left, top + _GAP, title if place else f"{path.stem}: {title}", fontsize=9)
    axes.set(xlim=(0, width), ylim=(0, height))
    figure.savefig(path, dpi=100)

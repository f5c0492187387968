"""The curves of a training: a row of numbers at each validation, as curves.csv and as a picture."""

import csv
from pathlib import Path

CURVES, PLOT = "curves.csv", "curves.png"


def append_curves(folder: Path, row: dict[str, float]) -> None:
    """Add a row; the first one brings the names."""
    path = folder / CURVES
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)


def cut_curves(folder: Path, step: int) -> None:
    """Take away the rows after `step`. Raises ValueError where an earlier row is damaged."""
    path = folder / CURVES
    kept = [row for row in read_curves(folder) if row["step"] <= step] if step else []
    if not kept:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, kept[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    temporary.replace(path)


def read_curves(folder: Path) -> list[dict[str, float]]:
    """The rows; none without the file. Raises ValueError that names the damaged row."""
    path = folder / CURVES
    if not path.exists():
        return []
    text = path.read_text()
    rows: list[dict[str, float]] = []
    try:
        for line in csv.DictReader(text.splitlines()):
            row = {name: float(value) for name, value in line.items()}
            row["step"]
            rows.append(row)
        if not text.endswith("\n"):
            del rows[-1]
            raise ValueError("cut short")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged after {len(rows)} whole rows; delete what follows to go on without it"
        ) from error
    return rows


def plot_curves(folder: Path) -> None:
    """Draw curves.csv as curves.png, a panel for each measure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only plots need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    rows = read_curves(folder)
    names = [name for name in rows[0] if name != "step"] if rows else []
    figure = Figure(figsize=(4 * max(1, len(names)), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        axes.plot([row["step"] for row in rows], [row[name] for row in rows])
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    figure.savefig(folder / PLOT, dpi=100)

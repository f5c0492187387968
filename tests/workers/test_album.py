"""Pictures of what an anomaly model made of its worst, median and best case."""

from pathlib import Path

import numpy as np
from PIL import Image

from models.evaluate_anomaly import ShownCase
from workers.album import Album


def shown(kind: str, worth: float, grey: float, *, truth: bool) -> ShownCase:
    """A case of one grey value whose left half is above the threshold and whose right half is the truth."""
    half = np.zeros((40, 60), bool)
    half[:, :30] = True
    return ShownCase(
        kind=kind,
        worth=worth,
        told="made",
        image=np.full((40, 60), grey, np.float32),
        score=np.where(half, 9, 0).astype(np.float32),
        threshold=4.0,
        truth=half[:, ::-1] if truth else None,
        window=(0.0, 1.0),
    )


def test_each_kind_of_case_has_a_row_by_its_worth(tmp_path: Path) -> None:
    """Image, score, what is marked and the truth stand side by side; a normal person has no truth."""
    album = Album()
    for worth, grey in ((0.9, 1.0), (0.1, 0.2), (0.5, 0.6)):
        album.add(shown("spot", worth, grey, truth=True))
        album.add(shown("normal people", -worth, grey, truth=False))
    paths = album.write(tmp_path / "seen")
    assert [path.name for path in paths] == ["worst.png", "median.png", "best.png"]
    for path, first, second in zip(paths, (0.2, 0.6, 1.0), (1.0, 0.6, 0.2), strict=True):
        with Image.open(path) as picture:
            assert picture.size == (1600, 880)
            grey = np.asarray(picture.convert("L")) / 255
        assert abs(grey[150, 200] - first) < 0.02
        assert abs(grey[590, 200] - second) < 0.02
        assert grey[150, 900] > 0.98 and grey[150, 1100] < 0.02  # marked
        assert grey[150, 1300] < 0.02 and grey[150, 1500] > 0.98  # truth
        assert (grey[500:, 1210:] == 1).all()

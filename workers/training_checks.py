"""What every reader of training data refuses, in the same words."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.errors import AenodeError


class DataRefused(AenodeError):
    """Training data cannot be read, or not rightly; the sentence is for a person."""


def require_finite(
    volume: NDArray[Any], file: object, what: str = "slice", numbers: Sequence[int] | None = None
) -> None:
    """Raise DataRefused with the file and the first of its slices (Z, Y, X) that holds NaN or infinity.

    `numbers` are those of the slices in the file, from 0, where they are not all that it has.
    """
    wrong = np.flatnonzero(~np.isfinite(volume).all((1, 2)))
    if wrong.size:
        first = int(wrong[0]) if numbers is None else numbers[wrong[0]]
        raise DataRefused(f"{file}: {what} {first}, counted from 0, holds NaN or infinity")


def require_size(sizes: tuple[float, float], file: object) -> tuple[float, float]:
    """The pixel size (y, x) in mm; raises DataRefused where it is not positive and finite."""
    if not all(0 < size < np.inf for size in sizes):
        raise DataRefused(f"{file}: a pixel of {sizes[0]:g} × {sizes[1]:g} mm is none: both must be above 0")
    return sizes


def table_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a head line; what a row lacks is "". Raises DataRefused."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, restval="", restkey=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataRefused(f"{path} cannot be read as a table: {error}") from error
    return [{key: value for key, value in row.items() if key} for row in rows]

"""The values of a derived image against what the model was allowed to change."""

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from workers.write.derived import padding_limits


def examine_values(
    ds: Dataset,
    source: Dataset,
    stored: NDArray[np.int32],
    padding: NDArray[np.bool_],
    bound: float,
    frame: int = 0,
) -> list[str]:
    """The values of a derived image against its source's stored values (Y, X).

    No change beyond `bound` in modality units and the rounding to a stored value; padding verbatim,
    and none where there was none. `frame` counts from 0.
    """
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{int(ds.BitsAllocated) // 8}"
    count = int(ds.Rows) * int(ds.Columns)
    start = frame * count * np.dtype(kind).itemsize
    end = start + count * np.dtype(kind).itemsize
    if stored.shape != (ds.Rows, ds.Columns) or len(ds.PixelData) < end:
        return ["the matrix is not the source's"]
    new = np.frombuffer(ds.PixelData[start:end], kind).reshape(stored.shape).astype(np.int64)
    slope = abs(float(source.get("RescaleSlope") or 1))
    found = []
    change = np.abs(new - stored)[~padding].max(initial=0) * slope
    if not change <= bound * (1 + 1e-6) + slope / 2:
        found.append(f"a value changed by {change:.4g}, allowed are {bound:.4g} and rounding")
    if (new != stored)[padding].any():
        found.append("padding pixels were changed")
    if (limits := padding_limits(source)) is not None:
        made = (new >= limits[0]) & (new <= limits[1]) & ~((stored >= limits[0]) & (stored <= limits[1]))
        if made.any():
            found.append(f"{int(made.sum())} pixels became padding")
    return found


def examine_colour(ds: Dataset, rgb: NDArray[np.uint8], bound: float, frame: int = 0) -> list[str]:
    """The samples of a derived colour image against its source's RGB (Y, X, 3).

    No change beyond `bound`, and of all three samples alike unless one of them is at an end of its range.
    """
    size = rgb.size
    data = bytes(ds.PixelData)[frame * size : (frame + 1) * size]
    if rgb.shape[:2] != (ds.Rows, ds.Columns) or len(data) != size:
        return ["the matrix is not the source's"]
    change = np.frombuffer(data, np.uint8).reshape(rgb.shape).astype(np.int32) - rgb
    found = []
    if np.abs(change).max(initial=0) > bound * (1 + 1e-6) + 0.5:
        found.append(f"a value changed by {np.abs(change).max()}, allowed are {bound:.4g} and rounding")
    inside = (np.minimum(rgb, rgb + change).min(axis=-1) > 0) & (
        np.maximum(rgb, rgb + change).max(axis=-1) < 255
    )
    if (np.ptp(change, axis=-1) > 0)[inside].any():
        found.append("a hue changed")
    return found

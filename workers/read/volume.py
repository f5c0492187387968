"""What a series is once it is read: voxels in modality units, and where each slice lies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A stack of parallel slices, sorted along its normal; index k means the same slice everywhere.

    The normal is rows × columns of ImageOrientationPatient (PS3.3 C.7.6.2.1.1), in the patient's
    coordinates (LPS, mm). Positions ascend along it, whatever the files' or instances' order was.
    """

    voxels: NDArray[np.float32]  # (Z, Y, X) modality units: HU for CT
    padding: NDArray[np.bool_]  # (Z, Y, X) True where a pixel shows nothing: padding value or out of field
    stored: NDArray[np.int32]  # (Z, Y, X) stored values as the file holds them, sign applied
    headers: tuple[Dataset, ...]  # one a slice, with file_meta, without pixel data
    paths: tuple[Path, ...]  # one a slice
    spacing: tuple[float, float, float]  # (z, y, x) mm; z is the most common gap, see geometry.py
    positions: NDArray[np.float64]  # (Z,) mm along the normal
    neighbours: NDArray[np.int64]  # (Z, 3) indices [below, self, above]; an end or a gap repeats self
    notes: tuple[str, ...]  # what was left out or noticed, for the timeline
    modality: str  # as the series says: "CT", "MR", "PT", "US", "CR", "DX"
    frames: NDArray[np.int64] | None = None  # (Z,) frame numbers from 1 in the one multi-frame source
    whole: Dataset | None = None  # the multi-frame source as it stands; headers are its frames, flattened
    label: str = ""  # what tells this volume from others of its series, such as "EchoTime 10"
    colour: NDArray[np.uint8] | None = None  # (Z, Y, X, 3) RGB, where voxels are its luminance
    flat: bool = False  # True where images have no place in the patient (CR, DX, US): geometry is nominal

    def frame_numbers(self, index: int) -> list[int] | None:
        """What a reference to slice `index` must add to its SOP instance; None for a single-frame image."""
        return None if self.frames is None else [int(self.frames[index])]

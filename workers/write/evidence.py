"""The source images as highdicom wants them: lawful, decoded, complete, without pixels.

highdicom refuses several character sets and copies what it finds; so it is given copies in UTF-8 that
hold the attributes of their IOD only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from workers.read import Volume
from workers.write.header import fill_type_2, taken_over
from workers.write.repair import IDENTITY


def evidence_of(volume: Volume, indices: Sequence[int]) -> list[Dataset]:
    """Copies of the sources of some slices; where they are frames, their object with the volume's frames."""
    if volume.whole is None:
        copies = [_copy(volume.headers[index]) for index in indices]
        if np.isfinite(volume.spacing[0]):
            for ds in copies:
                if not ds.get("SliceThickness"):
                    ds.SliceThickness = DSfloat(volume.spacing[0], auto_format=True)
        return copies
    ds = _copy(volume.whole)
    if not volume.flat:
        _share_places(ds, volume)
        own = _own_frames(volume)
        groups = ds.PerFrameFunctionalGroupsSequence
        ds.PerFrameFunctionalGroupsSequence = [groups[number - 1] for number in own]
        ds.NumberOfFrames = len(own)
    return [ds]


def put_frame_numbers(ds: Dataset, volume: Volume) -> None:
    """Name the frames of the source where the object counted those that `evidence_of` gave."""
    own = _own_frames(volume)
    for group in ds.PerFrameFunctionalGroupsSequence if own else ():
        for derivation in group.get("DerivationImageSequence", []):
            for image in derivation.get("SourceImageSequence", []):
                if image.get("ReferencedFrameNumber") is not None:
                    image.ReferencedFrameNumber = own[int(image.ReferencedFrameNumber) - 1]


def _own_frames(volume: Volume) -> list[int]:
    """The numbers of the frames of one volume of a multi-frame source, ascending."""
    return [] if volume.frames is None else sorted(int(number) for number in volume.frames)


def _share_places(ds: Dataset, volume: Volume) -> None:
    """Spacing and orientation in the shared groups, where highdicom looks, and some makers have none."""
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    first = volume.headers[0]
    if "PixelMeasuresSequence" not in shared:
        row, column = (float(value) for value in first.PixelSpacing)
        thickness = float(first.get("SliceThickness") or 0) or volume.spacing[0]
        shared.PixelMeasuresSequence = PixelMeasuresSequence(
            pixel_spacing=(row, column), slice_thickness=thickness, spacing_between_slices=volume.spacing[0]
        )
    if "PlaneOrientationSequence" not in shared:
        shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", first.ImageOrientationPatient)
    ds.SharedFunctionalGroupsSequence = [shared]


def in_frame_order(volume: Volume, planes: NDArray[Any]) -> NDArray[Any]:
    """Planes (Z, Y, X) of a volume in the order of the source's frames."""
    return planes if volume.frames is None else planes[np.argsort(volume.frames)]


def _copy(source: Dataset) -> Dataset:
    ds, _ = taken_over(source)
    fill_type_2(ds)
    # Put on afterwards, by dressing.py: highdicom refuses unlawful values, and quotes names in warnings.
    for keyword in IDENTITY - {"StudyInstanceUID"}:
        setattr(ds, keyword, None)
    if "SeriesNumber" not in ds:
        ds.SeriesNumber = None
    return ds

"""Two images in one place: a series that holds several stacks, or one image twice."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.errors import SeriesRefused
from workers.read.header import UNREADABLE
from workers.read.image import Image
from workers.read.stack import place

SAME_PLACE = 0.01  # mm; closer than any two slices, wider than the error of a projection

# What tells stacks of one series apart, the most telling first. Private: Siemens and GE b-values.
TELLING: tuple[str | tuple[int, int], ...] = (
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "StackID",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    (0x0019, 0x100C),
    (0x0043, 0x1039),
    "DiffusionGradientOrientation",
    (0x0019, 0x100E),
    "InversionTime",
    "FlipAngle",
    "RepetitionTime",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
    "ReconstructionDiameter",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "FrameAcquisitionNumber",
    "FrameAcquisitionDateTime",
    "ContentTime",
)
_PRIVATE = {
    (0x0019, 0x100C): "the b-value (0019,100C)",
    (0x0043, 0x1039): "the b-value (0043,1039)",
    (0x0019, 0x100E): "the diffusion direction (0019,100E)",
}
_NUMBERS = ("EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber")


def require_one_per_place(
    images: Sequence[Image], positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    """Raise SeriesRefused where two of the sorted images lie in one plane, naming what tells them apart."""
    same = [k for k, gap in enumerate(np.diff(positions)) if gap < SAME_PLACE]
    if not same:
        return
    first, second = images[same[0]], images[same[0] + 1]
    raise SeriesRefused(
        f"Two images lie at {place(normal, first)} ({first.uid} and {second.uid}), "
        f"{_difference([(images[k], images[k + 1]) for k in same])}; "
        f"the series has {len(images)} images at {len(images) - len(same)} positions."
    )


def _difference(pairs: Sequence[tuple[Image, Image]]) -> str:
    for tag in TELLING:
        values = [(value_of(a.header, tag), value_of(b.header, tag)) for a, b in pairs]
        if all(one != other for one, other in values):
            return f"they differ in {called(tag)}{_shown(tag, values[0])}"
    first, second = pairs[0]
    if np.abs(first.position - second.position).max() >= SAME_PLACE:
        return "shifted against each other in their plane"
    return "and no attribute that sorts images tells them apart"


def value_of(ds: Dataset, tag: str | tuple[int, int]) -> str:
    """A value as text for comparing images; empty where it is absent or cannot be read."""
    try:
        if isinstance(tag, str):
            return str(ds.get(tag, ""))
        return str(ds[tag].value) if tag in ds else ""
    except UNREADABLE:
        return ""


def called(tag: str | tuple[int, int]) -> str:
    """What a sentence calls an attribute."""
    return tag if isinstance(tag, str) else _PRIVATE[tag]


def _shown(tag: str | tuple[int, int], values: tuple[str, str]) -> str:
    if tag not in _NUMBERS:
        return ""
    try:
        one, other = (f"{float(value):g}" for value in values)
    except ValueError:
        return ""
    return f" ({one} and {other})"

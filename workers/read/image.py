"""One image of a series: what its header must say before a pixel is decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.errors import SeriesRefused
from workers.read.header import number_of, numbers_of, shown, syntax_of, text_of, uid_of, words_of
from workers.read.kinds import KINDS, READ, REFUSED

_UNIT_TOLERANCE = 0.01  # direction cosines are written with few decimals by old scanners
_HU = ("", "HU", "HU_MOD", "US")  # US is "unspecified", which old CT scanners wrote for HU


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """A checked image or frame; the pixels of a classic image are still in the file."""

    header: Dataset
    path: Path
    uid: str
    rows: int
    columns: int
    orientation: NDArray[np.float64]  # (6,) row and column direction cosines
    position: NDArray[np.float64]  # (3,) mm, centre of the first pixel, LPS
    spacing: tuple[float, float]  # mm between rows, between columns
    thickness: float | None  # mm; None where the header has none
    frame: int = 0  # number of the frame in a multi-frame object, from 1; 0 for an object of one image
    words: NDArray[np.integer] | None = None  # (Y, X) of a frame, decoded with its object


def named(ds: Dataset) -> str:
    """How a sentence calls this image: by its SOP Instance UID."""
    return f"Image {uid_of(ds, 'SOPInstanceUID') or '(malformed SOPInstanceUID)'}"


def is_localizer(ds: Dataset) -> bool:
    """True where ImageType says so (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1)."""
    return "LOCALIZER" in (word.strip().upper() for word in words_of(ds, "ImageType"))


def require_identity(ds: Dataset, path: Path) -> None:
    """Refuse what is of no class that is read, or does not say which instance it is."""
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID"):
        if uid_of(ds, keyword) is None:
            raise SeriesRefused(f"File {shown(path.name)} has no valid {keyword}.")
    sop_class = UID(uid_of(ds, "SOPClassUID") or "")
    if sop_class in REFUSED:
        raise SeriesRefused(f"{named(ds)}: {sop_class.name} is not read: {REFUSED[sop_class]}.")
    if sop_class not in KINDS:
        raise SeriesRefused(f"{named(ds)}: {sop_class.name} is not read; {READ}.")
    if (modality := text_of(ds, "Modality")) != KINDS[sop_class].modality:
        raise SeriesRefused(
            f"{named(ds)}: Modality is {shown(modality) or 'empty'}, but its SOP class is {sop_class.name}."
        )
    if not syntax_of(ds):
        raise SeriesRefused(f"{named(ds)}: TransferSyntaxUID is missing from the file meta information.")


def image_of(ds: Dataset, path: Path, frame: int = 0) -> Image:
    """The image behind a header. Raises SeriesRefused naming the first attribute that is wrong.

    `frame` is the number of a frame whose header was flattened, 0 for a classic image.
    """
    whose = f"{named(ds)}, frame {frame}" if frame else named(ds)
    if "MOSAIC" in words_of(ds, "ImageType"):
        raise SeriesRefused(
            f"{whose} is a Siemens mosaic, many slices tiled in one image; that is not read yet."
        )
    require_pixel_module(ds, whose, frames=bool(frame))
    require_modality_units(ds, whose)
    rows, columns = whole_number(ds, "Rows", whose), whole_number(ds, "Columns", whose)
    if min(rows, columns) < 1:
        raise SeriesRefused(f"{whose}: Rows×Columns is {rows}×{columns}, there is no pixel in it.")
    spacing = _required(ds, "PixelSpacing", 2, whose)
    if min(spacing) <= 0:
        raise SeriesRefused(
            f"{whose}: PixelSpacing is {spacing[0]:g}\\{spacing[1]:g}, it must be above zero."
        )
    thickness = number_of(ds, "SliceThickness", whose)
    return Image(
        header=ds,
        path=path,
        uid=whose.removeprefix("Image "),
        rows=rows,
        columns=columns,
        orientation=_orientation(ds, whose),
        position=np.array(_required(ds, "ImagePositionPatient", 3, whose)),
        spacing=(spacing[0], spacing[1]),
        thickness=thickness if thickness and thickness > 0 else None,
        frame=frame,
    )


def _required(ds: Dataset, keyword: str, count: int, whose: str) -> tuple[float, ...]:
    numbers = numbers_of(ds, keyword, count, whose)
    if numbers is None:
        raise SeriesRefused(f"{whose}: {keyword} is missing.")
    return numbers


def whole_number(ds: Dataset, keyword: str, whose: str) -> int:
    """The number under `keyword`. Raises SeriesRefused where it is missing or no number."""
    return int(_required(ds, keyword, 1, whose)[0])


def _orientation(ds: Dataset, whose: str) -> NDArray[np.float64]:
    cosines = np.array(_required(ds, "ImageOrientationPatient", 6, whose))
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _UNIT_TOLERANCE or abs(row @ column) > _UNIT_TOLERANCE:
        raise SeriesRefused(f"{whose}: ImageOrientationPatient is not two unit vectors at a right angle.")
    return cosines


def require_pixel_module(ds: Dataset, whose: str, *, frames: bool = False, inverted: bool = False) -> None:
    """Image Pixel attributes (PS3.3 C.7.6.3) that the decoding and the derived image rely on.

    `frames` allows several, `inverted` MONOCHROME1.
    """
    if not frames and (count := number_of(ds, "NumberOfFrames", whose)) not in (None, 1):
        raise SeriesRefused(f"{whose}: NumberOfFrames is {count:g}; a classic image has one frame.")
    if (samples := whole_number(ds, "SamplesPerPixel", whose)) != 1:
        raise SeriesRefused(f"{whose}: SamplesPerPixel is {samples}; colour is no image in modality units.")
    photometric = text_of(ds, "PhotometricInterpretation")
    if photometric != "MONOCHROME2" and not (inverted and photometric == "MONOCHROME1"):
        found = shown(photometric) or "missing"
        raise SeriesRefused(f"{whose}: PhotometricInterpretation is {found}; only MONOCHROME2 is read.")
    allocated, stored = whole_number(ds, "BitsAllocated", whose), whole_number(ds, "BitsStored", whose)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise SeriesRefused(
            f"{whose}: {stored} bits stored in {allocated} allocated; 8, 16 or 32 bits are read."
        )
    if (high := whole_number(ds, "HighBit", whose)) != stored - 1:
        raise SeriesRefused(f"{whose}: HighBit is {high}; with BitsStored {stored} it must be {stored - 1}.")
    if (sign := whole_number(ds, "PixelRepresentation", whose)) not in (0, 1):
        raise SeriesRefused(f"{whose}: PixelRepresentation is {sign}, it must be 0 or 1.")


def require_modality_units(ds: Dataset, whose: str) -> None:
    """CT must lead to HU (PS3.3 C.8.2.1); elsewhere values without a rescale stand for themselves."""
    slope = number_of(ds, "RescaleSlope", whose)
    intercept = number_of(ds, "RescaleIntercept", whose)
    if slope == 0:
        raise SeriesRefused(f"{whose}: RescaleSlope is 0, every pixel would be the same.")
    if (slope is None) != (intercept is None):
        raise SeriesRefused(f"{whose}: only one of RescaleSlope and RescaleIntercept is there.")
    if text_of(ds, "Modality") == "PT" and slope is None:
        raise SeriesRefused(f"{whose}: RescaleSlope is missing, so activity is unknown.")
    if text_of(ds, "Modality") != "CT":
        return
    if slope is None and not text_of(ds, "ModalityLUTSequence"):
        raise SeriesRefused(f"{whose}: RescaleSlope and RescaleIntercept are missing, so HU are unknown.")
    if (units := text_of(ds, "RescaleType")) not in _HU:
        raise SeriesRefused(f"{whose}: RescaleType is {shown(units)}; only HU is read for CT.")

"""Stored words → stored values, padding and modality units (PS3.3 C.7.6.3, C.7.5.1.1.2, C.11.1)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from node.errors import SeriesRefused
from workers.read.header import number_of, refusing
from workers.read.image import Image

# No air is as dark as this in HU, so a corner that is lies outside the field: GE fills it with
# -2000 stored or -2000 HU, others with the lowest word they have, often without saying so.
OUT_OF_FIELD_HU = -1500.0
# The extended CT scale ends at 30710 HU and streaks of metal reach a few thousand below air. What
# is beyond was decoded with the wrong sign or from a damaged codestream.
PLAUSIBLE_HU = (-16384.0, 32767.0)


class Values(NamedTuple):
    """The pixels of one image, each (Y, X)."""

    stored: NDArray[np.int32]
    padding: NDArray[np.bool_]
    modality: NDArray[np.float32]
    note: str


def values_of(image: Image, words: NDArray[np.integer], *, lossy: bool = False) -> Values:
    """Stored values, padding and modality units of one image's words.

    Padding pixels keep their whole word as stored value, also where it needs more than BitsStored.
    Raises SeriesRefused where words do not fit BitsStored, or HU are none that a scanner gives.
    """
    ds = image.header
    container = int(ds.BitsAllocated)
    signed = ds.PixelRepresentation == 1
    if words.dtype.itemsize == 4 and words.size and int(words.max()) > np.iinfo(np.int32).max:
        raise SeriesRefused(f"Image {image.uid}: stored values above {np.iinfo(np.int32).max} are not read.")
    whole = words.astype(np.int32)
    limits = _padding_limits(image, container, signed)
    declared = _between(whole, limits)
    stored = np.where(declared, whole, _within_bits(image, whole, declared, container, signed))
    padding = declared | _between(stored, limits)
    modality = _modality(image, stored)
    note = ""
    if ds.Modality == "CT":
        outside = _out_of_field(stored, modality, lossy) & ~padding
        if outside.any():
            padding |= outside
            note = "pixels out of the field, not declared as padding, are taken as padding"
        _require_plausible(image, modality, padding)
    return Values(stored, padding, modality, note)


def _padding_limits(image: Image, container: int, signed: bool) -> tuple[int, int] | None:
    first = number_of(image.header, "PixelPaddingValue", f"Image {image.uid}")
    last = number_of(image.header, "PixelPaddingRangeLimit", f"Image {image.uid}")
    if first is None:
        return None
    # its VR depends on PixelRepresentation and is often wrong: -2000 is found as 63536 (US)
    ends = [_wrapped(int(end), container, signed) for end in (first, first if last is None else last)]
    return min(ends), max(ends)


def _wrapped(value: int, bits: int, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _between(values: NDArray[np.int32], limits: tuple[int, int] | None) -> NDArray[np.bool_]:
    if limits is None:
        return np.zeros(values.shape, np.bool_)
    return (values >= limits[0]) & (values <= limits[1])


def _within_bits(
    image: Image, whole: NDArray[np.int32], declared: NDArray[np.bool_], container: int, signed: bool
) -> NDArray[np.int32]:
    """Values of BitsStored bits; the bits above must be void, unless an overlay lies in them (PS3.5 8.1.1).

    Negative values are found sign-extended and not; both in one image mean that BitsStored is too small.
    """
    bits = int(image.header.BitsStored)
    if bits == container:
        return whole
    shift = 32 - bits
    masked = (whole << shift) >> shift if signed else whole & ((1 << bits) - 1)
    if _has_embedded_overlay(image.header):
        return masked
    odd = (masked != whole) & ~declared
    if not odd.any():
        return masked
    not_extended = (whole >> bits == 0) & ~declared
    negative_as_is = (masked < 0) & ~odd & ~declared
    if signed and (not_extended[odd]).all() and not negative_as_is.any():
        return masked
    raise SeriesRefused(
        f"Image {image.uid}: {int(odd.sum())} pixel values need more than BitsStored {bits} bits."
    )


def _has_embedded_overlay(ds: Dataset) -> bool:
    # PS3.3 C.9.2 of 2004: an overlay without OverlayData lies in the bit that OverlayBitPosition names
    groups = range(0x6000, 0x6020, 2)
    return any((g, 0x0102) in ds and (g, 0x3000) not in ds and ds[g, 0x0102].value for g in groups)


def _modality(image: Image, stored: NDArray[np.int32]) -> NDArray[np.float32]:
    quiet = np.errstate(over="ignore", invalid="ignore")  # what comes of it is looked at below
    with refusing(f"Image {image.uid}: its modality LUT cannot be applied."), quiet:
        modality = np.asarray(apply_modality_lut(stored, image.header), np.float32)
    if not np.isfinite(modality).all():
        raise SeriesRefused(
            f"Image {image.uid}: RescaleSlope and RescaleIntercept lead to values beyond float32."
        )
    return modality


def _out_of_field(stored: NDArray[np.int32], hu: NDArray[np.float32], lossy: bool) -> NDArray[np.bool_]:
    corners = {int(stored[y, x]) for y in (0, -1) for x in (0, -1) if hu[y, x] < OUT_OF_FIELD_HU}
    if lossy and corners:  # the one value of the fill was spread by the compression
        return hu < OUT_OF_FIELD_HU
    return np.isin(stored, sorted(corners))


def _require_plausible(image: Image, hu: NDArray[np.float32], padding: NDArray[np.bool_]) -> None:
    seen = hu[~padding]
    if seen.size and not (seen.min() >= PLAUSIBLE_HU[0] and seen.max() <= PLAUSIBLE_HU[1]):
        raise SeriesRefused(
            f"Image {image.uid}: values from {seen.min():.0f} to {seen.max():.0f} HU are no CT; "
            "PixelRepresentation or the codestream is wrong."
        )

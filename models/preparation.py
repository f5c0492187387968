"""From modality units to what the anomaly network sees, and back.

A series is brought to the training pixel size, reduced to its foreground (the body, or a brain
that was extracted before), mapped to about 0…1 and laid onto a canvas around its foreground.
The way back is kept, so that a score returns to the pixels that it was computed from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

T = TypeVar("T", bound=np.generic)

_AIR = -1000.0  # HU
_OPENING_MM = 4.0  # takes tables, sheets and tubes off the body
_PART = 0.2  # a component this large beside the largest one belongs to the person, such as an arm


class OutsideDomain(Exception):
    """A series is not what the model was made for. The message is one sentence for a person."""


@dataclass(frozen=True)
class Contract:
    """What a model takes, from the "input" of its card."""

    modality: str
    pixel_mm: float
    canvas: tuple[int, int]  # smallest (height, width) the network is run on
    foreground: str  # "body", "brain", or "film": all of a radiograph, whatever its size in mm
    erode: int  # pixels of the training grid at the rim that are not judged
    median: int  # pixels of the training grid of the median of the error
    shading_mm: (
        float  # SD of a Gaussian; change that is smoother is the scanner's shading. 0: none is removed
    )
    tissues: bool  # whether the calibration tells tissues apart, or depths only
    sign: int  # +1 marks what is brighter than expected, -1 what is darker
    normalisation: Mapping[str, Any]  # {"knots" in units | "percentiles" of the foreground, "values"}
    quantile: float = 99.5  # percentile of a slice's judged scores that is the slice's score

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Contract":
        """The contract of a card. Raises KeyError where it lacks one."""
        words = card["input"]
        return cls(
            modality=words["modality"],
            pixel_mm=words["pixel_mm"],
            canvas=(words["canvas"][0], words["canvas"][1]),
            foreground=words["foreground"],
            erode=words["erode"],
            median=words["median"],
            shading_mm=words.get("shading_mm", 0),
            tissues=words.get("tissues", True),
            sign=words["sign"],
            normalisation=words["normalisation"],
            quantile=words.get("quantile", 99.5),
        )


@dataclass(frozen=True)
class Prepared:
    """A series on the network's canvas, and the way back."""

    image: NDArray[np.float32]  # (Z, H, W), 0 outside the foreground
    foreground: NDArray[np.bool_]  # (Z, H, W)
    depth: NDArray[np.float32]  # (Z, H, W), pixels to the foreground's rim, 0 outside
    grid: tuple[int, int]  # (h, w) of the whole slice at the training pixel size
    corner: tuple[int, int]  # where the canvas begins in it; may be negative
    native: tuple[int, int]  # (Y, X)


def prepare(
    volume: NDArray[np.float32],
    padding: NDArray[np.bool_],
    spacing: tuple[float, float],
    contract: Contract,
) -> Prepared:
    """Lay a series (Z, Y, X) in modality units, spacing (y, x) in mm, onto the network's canvas.

    Raises OutsideDomain where no foreground is found, or where it is not of the contract's kind.
    """
    native = (volume.shape[1], volume.shape[2])
    whole = contract.foreground == "film"
    grid = (
        contract.canvas
        if whole
        else (
            max(8, round(native[0] * spacing[0] / contract.pixel_mm)),
            max(8, round(native[1] * spacing[1] / contract.pixel_mm)),
        )
    )
    floor = _AIR if contract.foreground == "body" else float(volume[~padding].min(initial=0.0))
    units = resample(np.where(padding, np.float32(floor), volume), grid)
    blocked = resample(padding.astype(np.float32), grid) > 0
    foreground = _FIND[contract.foreground](units, contract.pixel_mm) & ~blocked
    if foreground.sum() * contract.pixel_mm**2 < 1000 * max(1, len(volume)) * 0.1:
        raise OutsideDomain(f"no {contract.foreground} is found in the series")
    if contract.foreground == "brain":
        _require_extracted_brain(units, foreground, contract.pixel_mm)
    image = normalise(units, foreground, contract.normalisation)
    corner, size = ((0, 0), contract.canvas) if whole else _canvas(foreground, contract)
    foreground = _crop(foreground, corner, size)
    depth = np.stack([ndimage.distance_transform_edt(plane) for plane in foreground]).astype(np.float32)
    return Prepared(_crop(image, corner, size), foreground, depth, grid, corner, native)


def restore(maps: NDArray[np.float32], prepared: Prepared, *, nearest: bool = False) -> NDArray[np.float32]:
    """Bring maps (Z, H, W) on the canvas back to the native pixels (Z, Y, X); 0 beyond the canvas."""
    back = (-prepared.corner[0], -prepared.corner[1])
    whole = _crop(maps, back, prepared.grid)
    return resample(whole, prepared.native, nearest=nearest)


def resample(
    volume: NDArray[np.float32], size: tuple[int, int], *, nearest: bool = False
) -> NDArray[np.float32]:
    """Bring every slice to `size` (h, w): area-weighted where it shrinks, linear where it grows."""
    if volume.shape[1:] == size:
        return volume.astype(np.float32)
    out = np.empty((len(volume), *size), np.float32)
    for k, plane in enumerate(volume):
        tensor = torch.from_numpy(np.ascontiguousarray(plane, np.float32))[None, None]
        if nearest:
            moved = functional.interpolate(tensor, size=size, mode="nearest-exact")
        else:
            moved = functional.interpolate(tensor, size=size, mode="bilinear", antialias=True)
        out[k] = moved[0, 0].numpy()
    return out


def body(units: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """The body with its lungs, slice by slice, in HU (Z, h, w): no table, no air around it."""
    disk = _disk(round(_OPENING_MM / pixel_mm))
    out = np.zeros(units.shape, np.bool_)
    for k, plane in enumerate(units):
        solid = ndimage.binary_opening(plane > -400, disk)
        out[k] = ndimage.binary_fill_holes(_largest(solid))
    return out


def brain(units: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """An extracted brain, slice by slice, in any unit (Z, h, w): what is not the empty background."""
    floor = float(units.min())
    level = floor + 0.05 * (float(np.percentile(units[::2, ::2, ::2], 99.5)) - floor)
    disk = _disk(round(2.0 / pixel_mm))
    return np.stack(
        [ndimage.binary_fill_holes(ndimage.binary_opening(plane > level, disk)) for plane in units]
    )


def film(units: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_]:
    """All of a radiograph (Z, h, w) but its outermost pixels, so that depth counts from its edge."""
    out = np.zeros(units.shape, np.bool_)
    out[:, 1:-1, 1:-1] = True
    return out


def normalise(
    units: NDArray[np.float32], foreground: NDArray[np.bool_], rule: Mapping[str, Any]
) -> NDArray[np.float32]:
    """Map units to about 0…1 by straight lines between landmarks; 0 outside the foreground.

    The landmarks are fixed units ("knots", such as HU) or percentiles of the foreground of the
    whole series ("percentiles"; Nyúl and Udupa 1999), and go to "values".
    """
    if "knots" in rule:
        knots = np.asarray(rule["knots"], np.float64)
    else:
        knots = np.percentile(units[foreground], rule["percentiles"])
        knots = np.maximum.accumulate(knots) + np.arange(len(knots)) * 1e-6
    mapped = np.interp(units, knots, np.asarray(rule["values"], np.float64))
    return np.where(foreground, mapped, 0).astype(np.float32)


def _require_extracted_brain(units: NDArray[np.float32], foreground: NDArray[np.bool_], mm: float) -> None:
    depth = np.stack([ndimage.distance_transform_edt(plane) for plane in foreground]) * mm
    rim, core = units[(depth > 2) & (depth < 6)], units[depth > 15]
    empty = float(np.mean(units[~foreground] <= np.float32(units.min() + 1e-3))) if rim.size else 0.0
    if not core.size:
        raise OutsideDomain("no slice shows enough of a brain")
    # Scalp fat is the brightest tissue of a T1-weighted head; the rim of a brain is cortex and fluid.
    if empty < 0.5 or float(np.median(rim)) > 1.2 * float(np.median(core)):
        raise OutsideDomain("the brain was not extracted: the model needs skull and scalp removed")


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = sizes >= max(1.0, _PART * sizes.max())
    return np.asarray(kept[labels], np.bool_)


def _disk(radius: int) -> NDArray[np.bool_]:
    radius = max(1, radius)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius, np.bool_)


def _canvas(foreground: NDArray[np.bool_], contract: Contract) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corner and size of a canvas around all of the foreground, sides divisible by 8."""
    corner, size = [], []
    for axis, least in zip((1, 2), contract.canvas, strict=True):
        used = np.flatnonzero(foreground.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = int(used[0]), int(used[-1]) + 1
        side = max(least, -(-(last - first + 8) // 8) * 8)
        corner.append((first + last - side) // 2)
        size.append(side)
    return (corner[0], corner[1]), (size[0], size[1])


def _crop(maps: NDArray[T], corner: tuple[int, int], size: tuple[int, int]) -> NDArray[T]:
    out = np.zeros((len(maps), *size), maps.dtype)
    y0, x0 = max(corner[0], 0), max(corner[1], 0)
    y1 = min(corner[0] + size[0], maps.shape[1])
    x1 = min(corner[1] + size[1], maps.shape[2])
    out[:, y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]] = maps[:, y0:y1, x0:x1]
    return out


_FIND = {"body": body, "brain": brain, "film": film}

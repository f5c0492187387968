"""Where the slices of a stack lie: their order, their gaps, and which of them are neighbours.

All lengths are mm. A position is the projection of ImagePositionPatient on the common normal.

Gaps, and why (deploy/decisions/0002-missing-slices.md): slices are expected as far apart as is most
common among slices of their thickness. A gap that is a whole multiple of it, in a stack that is
otherwise regular, means missing slices. A constant wide gap is a protocol, and any other irregular
spacing is read as it lies, with a note: each slice keeps its own place in the result. What is
missing at an end of the stack cannot be seen from here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.read.header import mm
from workers.read.image import Image

_NEAR_AXIS = 0.9998  # a normal within about 1 degree of a patient axis is called by that axis
_ALWAYS_NEAR = 3.0  # mm; slices so near are neighbours however thin they are
_LISTED = 4  # gaps that a sentence lists


class Gaps(NamedTuple):
    """The distances between consecutive slices, each (Z - 1,)."""

    width: NDArray[np.float64]  # as found
    expected: NDArray[np.float64]  # as is common between slices of this thickness
    missing: NDArray[np.int64]  # slices that are missing in each

    @property
    def is_even(self) -> bool:
        """Whether every gap is as wide as expected, within the rounding of positions."""
        return bool((np.abs(self.width - self.expected) <= _tolerance(self.expected)).all())


def normal_of(images: Sequence[Image]) -> NDArray[np.float64]:
    """The unit normal (3,) that the images share: row × column of their mean orientation."""
    mean = np.mean([image.orientation for image in images], axis=0)
    normal = np.cross(mean[:3], mean[3:])
    return np.asarray(normal / np.linalg.norm(normal))


def place(normal: NDArray[np.float64], *images: Image) -> str:
    """Where images lie, for a sentence: "z = 12.5 mm and 25.0 mm", or along an oblique stack's normal."""
    axis = int(np.argmax(np.abs(normal)))
    if abs(normal[axis]) > _NEAR_AXIS:
        return f"{'xyz'[axis]} = " + " and ".join(mm(image.position[axis]) for image in images)
    return " and ".join(mm(float(normal @ image.position)) for image in images) + " along the slice normal"


def gaps_of(positions: NDArray[np.float64], thicknesses: Sequence[float | None]) -> Gaps:
    """Judge the gaps between ascending `positions` (Z,)."""
    width = np.diff(positions)
    thick = np.round([thickness or 0.0 for thickness in thicknesses], 2)
    expected, missing = width.copy(), np.zeros(width.shape, np.int64)
    common: dict[float, float] = {}
    within = thick[:-1] == thick[1:]
    for value in np.unique(thick[:-1][within]):
        own = within & (thick[:-1] == value)
        common[float(value)] = expected[own] = most_common(width[own])
    for k in np.flatnonzero(~within):  # a protocol may change thickness and gap on its way
        expected[k] = max((common[t] for t in thick[k : k + 2] if t in common), default=width[k])
    if width.size:
        times = np.rint(width / expected).astype(np.int64)
        multiple = np.abs(width - times * expected) <= _tolerance(expected)
        regular = multiple & (times == 1)
        if multiple.all() or 2 * regular.sum() >= width.size:
            missing = np.where(multiple, np.maximum(times - 1, 0), 0)
    return Gaps(width, expected, missing)


def most_common(widths: NDArray[np.float64]) -> float:
    """The width that most of `widths` share within the rounding of positions; the smallest on a tie."""
    ordered = np.sort(widths)
    near = np.abs(ordered[:, None] - ordered[None, :]) <= _tolerance(ordered)[:, None]
    return float(np.median(ordered[near[int(np.argmax(near.sum(axis=1)))]]))


def _tolerance(width: NDArray[np.float64]) -> NDArray[np.float64]:
    # positions are rounded to 0.1 mm by some scanners, and table positions jitter
    return np.minimum(np.maximum(0.1 * width, 0.1), 0.4 * width)


def missing_sentence(images: Sequence[Image], gaps: Gaps, normal: NDArray[np.float64]) -> str:
    """How many slices are missing and between which places; empty where none is."""
    holes = [k for k, count in enumerate(gaps.missing) if count]
    if not holes:
        return ""
    total = int(gaps.missing.sum())
    where = [f"between {place(normal, images[k], images[k + 1])}" for k in holes]
    if len(where) > 1:
        where = [f"{gaps.missing[k]} {text}" for k, text in zip(holes, where, strict=True)]
    if len(where) > _LISTED:
        where = [*where[:_LISTED], f"the others in {len(where) - _LISTED} more gaps"]
    return (
        f"{total} {'slice is' if total == 1 else 'slices are'} missing{':' if len(where) > 1 else ''} "
        f"{', '.join(where)}; slices there should be {mm(float(gaps.expected[holes[0]]))} apart."
    )


def shifts_of(images: Sequence[Image], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each slice lies down and right of the one before, in its own plane: (Z - 1, 2) mm."""
    steps = np.diff([image.position for image in images], axis=0).reshape(-1, 3)
    in_plane = steps - np.outer(steps @ normal, normal)
    row, column = images[0].orientation[:3], images[0].orientation[3:]
    return np.stack([in_plane @ column, in_plane @ row], axis=1)


def neighbours_of(images: Sequence[Image], gaps: Gaps, shifts: NDArray[np.float64]) -> NDArray[np.int64]:
    """(Z, 3) indices [below, self, above]; self again where no neighbour shows the next anatomy.

    Neighbours are at most max(2 × SliceThickness, 3 mm) apart, not across a hole, and shifted by
    no more than a pixel against each other.
    """
    index = np.arange(len(images))
    thick = np.array([image.thickness or 0.0 for image in images])
    reach = np.maximum(2 * np.maximum(thick[:-1], thick[1:]), _ALWAYS_NEAR)
    near = gaps.width <= np.minimum(reach * 1.01, 1.5 * gaps.expected)
    near &= (np.abs(shifts) <= np.array(images[0].spacing)).all(axis=1)
    below, above = index.copy(), index.copy()
    below[1:][near] -= 1
    above[:-1][near] += 1
    return np.stack([below, index, above], axis=1)


def spacing_notes(gaps: Gaps, shifts: NDArray[np.float64], neighbours: NDArray[np.int64]) -> list[str]:
    """What the timeline should say of the spacing."""
    if not gaps.width.size:
        return []
    notes = []
    odd = (np.abs(gaps.width - gaps.expected) > _tolerance(gaps.expected)) & (gaps.missing == 0)
    regimes = np.unique(np.round(gaps.expected, 1))
    if odd.any():
        notes.append(f"slice spacing is irregular, {mm(gaps.width.min())} to {mm(gaps.width.max())}")
    elif len(regimes) > 1:
        notes.append(f"slice spacing changes with SliceThickness, {mm(regimes[0])} to {mm(regimes[-1])}")
    shift = np.hypot(shifts[:, 0], shifts[:, 1])
    slant = np.degrees(np.arctan(shift / gaps.width))
    if slant.max() > 1 and np.ptp(slant) < 1:
        notes.append(f"the stack is sheared by {np.median(slant):.1f} degrees, as with a tilted gantry")
    elif slant.max() > 1:
        notes.append(f"slices are shifted in their plane by up to {mm(shift.max())} against the next")
    if alone := int((neighbours[1:, 0] == neighbours[1:, 1]).sum()):
        notes.append(f"across {alone} of {gaps.width.size} gaps slices are too far apart to be read together")
    return notes

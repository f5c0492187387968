"""Nuclear medicine: which frames of an object belong together (PS3.3 C.8.4.8).

Vectors tell of each frame its energy window, detector, phase, rotation, interval, slice, view and time. An
object is read as one volume for each energy window, detector, phase and so on, for their counts and so
their noise differ; within it the frames run over slices, views or time. Only reconstructed slices
show the next anatomy beside them; views and times are judged one by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.errors import SeriesRefused
from workers.read.header import number_of, numbers_of, words_of

_ALWAYS_NEAR = 3.0  # mm, as in stack.py
# What keeps frames apart, and what a label calls it.
_APART = {
    "EnergyWindowVector": "energy window",
    "DetectorVector": "detector",
    "PhaseVector": "phase",
    "RotationVector": "rotation",
    "RRIntervalVector": "R-R interval",
    "TimeSlotVector": "time slot",
}
# Over what frames run; the first that is there.
_RUNNING = ("SliceVector", "AngularViewVector", "TimeSliceVector")


class Frames(NamedTuple):
    """The frames of one volume."""

    label: str  # what tells it from the object's other volumes
    indices: list[int]  # from 0, in their order
    neighbours: NDArray[np.int64]  # (F, 3) as Volume.neighbours
    note: str


def frames_together(ds: Dataset, count: int, whose: str) -> list[Frames]:
    """The frames of an NM object of `count` frames, one group a volume.

    Raises SeriesRefused where a vector has not one value a frame.
    """
    vectors = {word: _vector(ds, word, count, whose) for word in (*_APART, *_RUNNING) if word in ds}
    apart = [word for word in _APART if word in vectors and len(set(vectors[word])) > 1]
    running = next((word for word in _RUNNING if word in vectors), "")
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in range(count):
        groups.setdefault(tuple(vectors[word][index] for word in apart), []).append(index)
    found = []
    for key in sorted(groups):
        label = ", ".join(f"{_APART[word]} {value}" for word, value in zip(apart, key, strict=True))
        found.append(_run(ds, label, groups[key], vectors.get(running, []), running, whose))
    return found


def _vector(ds: Dataset, keyword: str, count: int, whose: str) -> list[int]:
    values = numbers_of(ds, keyword, count, whose)
    if values is None:
        raise SeriesRefused(f"{whose}: {keyword} is empty; it must have a value for each of {count} frames.")
    return [int(value) for value in values]


def _run(
    ds: Dataset, label: str, indices: Sequence[int], vector: Sequence[int], running: str, whose: str
) -> Frames:
    """The frames of one group in the order of the vector over which they run."""
    alone = np.repeat(np.arange(len(indices))[:, None], 3, axis=1)
    numbers = [vector[index] for index in indices] if running else []
    if len(set(numbers)) < len(indices):
        note = f"frames are not told apart by {running}; each is judged by itself" if running else ""
        return Frames(label, list(indices), alone, note)
    order = np.argsort(numbers, kind="stable")
    ordered = [indices[k] for k in order]
    if running != "SliceVector" or not _beside_each_other(ds, whose):
        return Frames(label, ordered, alone, "")
    places = np.array(numbers)[order]
    near = np.diff(places) == 1
    alone[1:, 0] -= near
    alone[:-1, 2] += near
    return Frames(label, ordered, alone, "")


def _beside_each_other(ds: Dataset, whose: str) -> bool:
    """Whether slices are reconstructed, and near enough to be read together."""
    if not {"RECON TOMO", "RECON GATED TOMO"} & set(words_of(ds, "ImageType")):
        return False
    thickness = number_of(ds, "SliceThickness", whose)
    gap = number_of(ds, "SpacingBetweenSlices", whose)
    return bool(thickness and gap and abs(gap) <= max(2 * thickness, _ALWAYS_NEAR))

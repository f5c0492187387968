"""Regions of an anomaly map as findings: numbered, outlined on a key slice, measured, tracked.

A finding is what `regions` marks, connected in three dimensions over slices that are neighbours. Its
tracking UID is the same in every object of the result, so that a viewer shows one thing as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import contourpy
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID
from scipy import ndimage

from models.anomaly import AnomalyScores
from node.entities import CONTRIBUTING_MANUFACTURER
from workers.read import Volume
from workers.write.provenance import Provenance, result_uid, sources_key

SMALLEST_MM2 = 10.0  # a smaller region on a slice is not marked
MOST_FINDINGS = 20  # described one by one; what is left is one segment and a number in words
_AROUND = np.ones((3, 3))


@dataclass(frozen=True, slots=True)
class Finding:
    """One region: where it is shown best, and how much of it there is."""

    number: int  # from 1, the highest score first; its segment's number
    key: int  # index of the slice where it scores highest, the larger area on a tie
    slices: tuple[int, ...]
    outline: NDArray[np.float64]  # (N, 2) column, row in image coordinates of the key slice, closed
    peak: float  # highest score, SD of normal people
    area_mm2: float  # on the key slice
    volume_mm3: float | None  # None where slices have no thickness in the patient
    tracking_uid: UID

    @property
    def tracking_id(self) -> str:
        """The name a person may call it by."""
        return f"{CONTRIBUTING_MANUFACTURER} region {self.number}"


@dataclass(frozen=True, slots=True)
class Marked:
    """An anomaly result with its regions: what every object of the bundle is written from."""

    volume: Volume
    scores: AnomalyScores
    provenance: Provenance
    marked: NDArray[np.float32]  # (Z, Y, X) the score inside the regions, 0 elsewhere
    area: NDArray[np.float64]  # (Z,) mm² inside the regions
    labels: NDArray[np.uint8]  # (Z, Y, X) number of the finding, MOST_FINDINGS + 1 for all others, 0 outside
    findings: tuple[Finding, ...]
    further: int  # regions that are not described one by one
    settings: str  # what decided it, for the UIDs
    sources: str  # sources_key of the volume

    def uid(self, role: str, part: str) -> UID:
        """The UID of one object of this result."""
        return result_uid(role, self.provenance, self.settings, self.sources, part)


def marked_of(volume: Volume, scores: AnomalyScores, provenance: Provenance) -> Marked:
    """Find, number and measure the regions of a score."""
    marked, area = regions(scores, volume.spacing)
    settings = (
        f"threshold={scores.threshold!r} smallest={SMALLEST_MM2} most={MOST_FINDINGS} "
        f"normals={scores.normals}"
    )
    key = sources_key(instance_names(volume))
    parts, count = _connected(marked > 0, volume.neighbours)
    peaks = ndimage.maximum(marked, parts, np.arange(1, count + 1)) if count else np.zeros(0)
    order = np.argsort(-np.asarray(peaks), kind="stable")
    numbers = np.zeros(count + 1, np.uint8)
    for place, part in enumerate(order):
        numbers[part + 1] = min(place, MOST_FINDINGS) + 1
    labels = numbers[parts]
    places = ndimage.find_objects(parts)
    findings = tuple(
        _finding(
            volume,
            marked,
            parts == part + 1 if count == 1 else _inside(parts, part + 1, places[part]),
            place + 1,
            result_uid("finding", provenance, settings, key, str(place + 1)),
        )
        for place, part in enumerate(order[:MOST_FINDINGS])
    )
    return Marked(
        volume,
        scores,
        provenance,
        marked,
        area,
        labels,
        findings,
        max(0, count - MOST_FINDINGS),
        settings,
        key,
    )


def instance_names(volume: Volume) -> list[str]:
    """One name a slice: its SOP Instance UID, with the frame number where it is a frame."""
    names = [str(header.SOPInstanceUID) for header in volume.headers]
    if volume.frames is None:
        return names
    return [f"{name}#{frame}" for name, frame in zip(names, volume.frames, strict=True)]


def regions(
    scores: AnomalyScores, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Scores inside the regions worth marking (Z, Y, X), 0 elsewhere, and their area a slice in mm².

    A region is evaluated, at or above the threshold, connected on its slice, SMALLEST_MM2 or larger.
    """
    above = scores.evaluated & (scores.score >= scores.threshold)
    marked = np.zeros_like(scores.score)
    area = np.zeros(len(above))
    pixel = spacing[1] * spacing[2]
    for index, plane in enumerate(above):
        labels, count = ndimage.label(plane, structure=_AROUND)
        sizes = np.bincount(labels.ravel(), minlength=count + 1) * pixel
        sizes[0] = 0
        kept = (sizes >= SMALLEST_MM2)[labels]
        marked[index][kept] = scores.score[index][kept]
        area[index] = kept.sum() * pixel
    return marked, area


def _connected(inside: NDArray[np.bool_], neighbours: NDArray[np.int64]) -> tuple[NDArray[np.int32], int]:
    """Regions connected over slices that are neighbours; a gap ends a region."""
    gaps = [index for index in range(1, len(inside)) if neighbours[index, 0] == index]
    apart = np.insert(inside, gaps, False, axis=0) if gaps else inside
    labels, count = ndimage.label(apart, structure=np.ones((3, 3, 3)))
    return np.asarray(np.delete(labels, [g + n for n, g in enumerate(gaps)], axis=0)), int(count)


def _inside(parts: NDArray[np.int32], part: int, place: tuple[slice, ...]) -> NDArray[np.bool_]:
    inside = np.zeros(parts.shape, np.bool_)
    inside[place] = parts[place] == part
    return inside


def _finding(
    volume: Volume, marked: NDArray[np.float32], inside: NDArray[np.bool_], number: int, tracking: UID
) -> Finding:
    slices = np.flatnonzero(inside.any(axis=(1, 2)))
    pixel = volume.spacing[1] * volume.spacing[2]
    areas = inside.sum(axis=(1, 2)) * pixel
    peaks = [float(marked[index][inside[index]].max()) for index in slices]
    best = max(range(len(slices)), key=lambda k: (round(peaks[k], 3), areas[slices[k]]))
    key = int(slices[best])
    return Finding(
        number=number,
        key=key,
        slices=tuple(map(int, slices)),
        outline=outline(inside[key]),
        peak=max(peaks),
        area_mm2=float(areas[key]),
        volume_mm3=_volume_mm3(volume, areas, slices),
        tracking_uid=tracking,
    )


def _volume_mm3(
    volume: Volume, areas: NDArray[np.float64], slices: NDArray[np.int64] | Sequence[int]
) -> float | None:
    """Each slice stands for half of the way to its neighbours, at an end for the usual distance."""
    if volume.flat or not np.isfinite(volume.spacing[0]) or volume.spacing[0] <= 0:
        return None
    total = 0.0
    for index in slices:
        below, _, above = volume.neighbours[index]
        halves = [
            abs(volume.positions[index] - volume.positions[other]) / 2
            if other != index
            else volume.spacing[0] / 2
            for other in (below, above)
        ]
        total += float(areas[index]) * sum(halves)
    return total


def outline(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The closed outer line of the largest part of a region (Y, X) → (N, 2) column, row.

    Image coordinates of PS3.3 C.18.6: 0\\0 is the outer corner of the first pixel, 0.5\\0.5 its middle.
    The line runs half a pixel outside of the middles, through the region's border.
    """
    labels, count = ndimage.label(inside, structure=_AROUND)
    if count > 1:
        inside = labels == int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    height, width = inside.shape
    padded = np.pad(inside, 1).astype(np.float64)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    longest = lines[int(np.argmax([_enclosed(np.asarray(line)) for line in lines]))]
    # contourpy counts from the middle of the first padded pixel
    points = np.asarray(longest) - 1 + 0.5
    return np.asarray(points.clip(0, (width, height)), np.float64)


def _enclosed(line: NDArray[np.float64]) -> float:
    x, y = line[:, 0], line[:, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2

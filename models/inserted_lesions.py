"""Lesions of known place, put into slices that have none: what a figure needs where no expert drew any."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cases import Case

_DIAMETERS_MM = (8.0, 12.0, 16.0, 20.0)
_PER_SLICE = 3


def insert(case: Case, allowed: NDArray[np.bool_], kind: str, rng: np.random.Generator) -> Case:
    """A copy of `case` with up to three soft-edged discs a slice of a known place and kind."""
    volume = case.volume.copy()
    lesion = np.zeros(volume.shape, np.bool_)
    fits, change = INSERTED[case.modality][kind]
    mm = np.array(case.spacing)
    for k, plane in enumerate(case.volume):
        for _ in range(_PER_SLICE):
            diameter = float(rng.choice(_DIAMETERS_MM))
            tissue = (fits(plane, plane[allowed[k]]) & allowed[k]).astype(np.float32)
            size = np.maximum(1, np.round(diameter / mm)).astype(int)
            room = ndimage.uniform_filter(tissue, size=tuple(size), mode="constant") > 0.9
            places = np.argwhere(room & ~lesion[k])
            if not len(places):
                continue
            centre = places[rng.integers(len(places))]
            y, x = np.ogrid[: plane.shape[0], : plane.shape[1]]
            distance = np.hypot((y - centre[0]) * mm[0], (x - centre[1]) * mm[1])
            weight = np.clip((diameter / 2 - distance) / 1.5 + 0.5, 0, 1).astype(np.float32)
            volume[k] = change(volume[k], weight)
            lesion[k] |= weight > 0.5
    return replace(case, volume=volume, lesion=lesion & allowed)


def _plausible(plane: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not inside.size:
        return np.zeros(plane.shape, np.bool_)
    low, high = np.percentile(inside, [60, 99])
    return np.asarray((plane > low) & (plane < high), np.bool_)


def _darker(plane: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(plane < (np.median(inside) if inside.size else -np.inf), np.bool_)


Fits = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]]
Change = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

# Where an inserted lesion may lie, and what it does to the pixels (weight 0…1).
INSERTED: Mapping[str, Mapping[str, tuple[Fits, Change]]] = {
    "CT": {
        "solid nodule in lung, 30 HU": (
            lambda plane, _: np.asarray((plane > -980) & (plane < -700), np.bool_),
            lambda plane, weight: plane + weight * (30 - plane),
        ),
        "dense spot in soft tissue, +80 HU": (
            lambda plane, _: np.asarray((plane > -20) & (plane < 120), np.bool_),
            lambda plane, weight: plane + 80 * weight,
        ),
    },
    "MR": {
        "dark spot in white matter, -35 %": (
            _plausible,
            lambda plane, weight: plane * (1 - np.float32(0.35) * weight),
        ),
    },
    "DX": {
        "opacity in a lung, +40 of 255": (
            _darker,
            lambda plane, weight: plane + 40 * weight,
        ),
    },
}

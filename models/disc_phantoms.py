"""Round phantoms with discs in them, whose truth is known: for low contrast, for HU, for MR.

A phantom is one slice; what runs along the body looks the same in all. Places are (y, x) in mm from the
middle of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

# Diameter in mm and contrast: in HU those of the MITA low-contrast phantom; in % of the unit for MR.
MITA = ((3.0, 14.0), (5.0, 7.0), (7.0, 5.0), (10.0, 3.0))
MR_DISCS = ((3.0, 6.0), (5.0, 3.0), (7.0, 2.0), (10.0, 1.4))
# HU of the rods of the sensitometry module CTP404, each 12 mm wide, 58.4 mm from the middle.
MATERIALS = {
    "air": -1000.0,
    "PMP": -200.0,
    "LDPE": -100.0,
    "polystyrene": -35.0,
    "acrylic": 120.0,
    "Delrin": 340.0,
    "Teflon": 990.0,
}
ROD_RADIUS, ROD_RING = 6.0, 58.4  # mm

_RESOLUTION = 0.6  # pixels: SD of the Gaussian that the scanner's resolution is


@dataclass(frozen=True)
class Disc:
    """One disc and its place."""

    y: float  # mm
    x: float  # mm
    diameter: float  # mm
    contrast: float  # against what is around it, in the phantom's unit


@dataclass(frozen=True)
class Phantom:
    """A slice of size² pixels: a plain body, and discs to put into it."""

    size: int
    spacing: float  # mm
    plain: Image  # (size, size), without discs
    discs: tuple[Disc, ...]

    @cached_property
    def filled(self) -> Image:
        """The body with its discs (size, size)."""
        return sum((disc_image(self.size, self.spacing, disc) for disc in self.discs), start=self.plain)

    def with_disc(self, disc: Disc) -> Image:
        """The plain body with another disc."""
        return self.plain + disc_image(self.size, self.spacing, disc)

    def pixel(self, disc: Disc) -> tuple[int, int]:
        """The row and column of a disc's middle."""
        row, column = (round(place / self.spacing + (self.size - 1) / 2) for place in (disc.y, disc.x))
        return row, column

    def inside(self, disc: Disc, radius: float) -> NDArray[np.bool_]:
        """True (size, size) within `radius` mm of a disc's middle."""
        row, column = self.pixel(disc)
        y, x = np.ogrid[: self.size, : self.size]
        return np.asarray(np.hypot(y - row, x - column) * self.spacing <= radius)


def disc_image(size: int, spacing: float, disc: Disc) -> Image:
    """A disc alone, as a scanner's resolution shows it (size, size)."""
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    away = np.hypot(axis[:, None] - disc.y, axis[None, :] - disc.x)
    sharp = np.clip((disc.diameter / 2 - away) / spacing + 0.5, 0, 1)
    return np.asarray(disc.contrast * ndimage.gaussian_filter(sharp, _RESOLUTION), np.float32)


def mita_phantom() -> Phantom:
    """200 mm of soft tissue (50 HU) with each of the MITA discs twice; HU."""
    return _round(320, 0.7, [(200.0, 1050.0)], _ring(MITA * 2, 45.0), least=-1000.0)


def sensitometry_phantom() -> Phantom:
    """200 mm of water with the rods of MATERIALS; HU."""
    rods = [(2 * ROD_RADIUS, hu) for hu in MATERIALS.values()]
    return _round(320, 0.7, [(200.0, 1000.0)], _ring(rods, ROD_RING), least=-1000.0)


def mr_phantom() -> Phantom:
    """190 mm of tissue (0.6) in a bright rim (1) with each of MR_DISCS twice; of a series' unit."""
    faint = [(diameter, contrast / 100) for diameter, contrast in MR_DISCS]
    return _round(256, 0.9, [(190.0, 1.0), (182.0, -0.4)], _ring(faint * 2, 45.0))


def _ring(discs: Sequence[tuple[float, float]], radius: float) -> tuple[Disc, ...]:
    angles = 2 * np.pi * (np.arange(len(discs)) + 0.5) / len(discs)
    return tuple(
        Disc(float(radius * np.sin(angle)), float(radius * np.cos(angle)), diameter, contrast)
        for angle, (diameter, contrast) in zip(angles, discs, strict=True)
    )


def _round(
    size: int,
    spacing: float,
    layers: Sequence[tuple[float, float]],
    discs: tuple[Disc, ...],
    least: float = 0.0,
) -> Phantom:
    plain = np.full((size, size), least, np.float32)
    for diameter, step in layers:
        plain += disc_image(size, spacing, Disc(0, 0, diameter, step))
    return Phantom(size, spacing, plain, discs)

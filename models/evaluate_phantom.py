"""What a denoiser does to phantoms whose truth is known: noise, texture, sharpness, faint lesions, HU.

A round phantom is scanned many times with and without its discs, with the same noise. CT: a cylinder with
the discs of the MITA low-contrast phantom, one with the rods of CTP404 (models.evaluate_rods), and once
the made body of models.phantom. MR: faint discs within a bright rim, and Rician noise that is correlated
as that of a k-space filled with zeros.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.denoiser import Model
from models.disc_phantoms import Disc, Phantom, disc_image, mita_phantom, mr_phantom
from models.evaluate_rods import evaluate_rods
from models.image_quality import detectability, mean_frequency, sharpness
from models.noise_mr import complex_noise, rician
from models.phantom import ct_series
from models.scans import Scans, grain, joined, scanned

Figures = dict[str, Any]
Image = NDArray[np.float32]
Progress = Callable[[int, int], None]

STRENGTHS = (0.3, 0.5, 0.65, 0.8, 1.0)
CT_NOISE, MR_NOISE = 17.0, 5.0  # HU; SD in each channel, in % of the series' unit
MR_ACQUIRED = 0.7  # share of k-space along both sides

_SIDE = 32  # pixels of a region of interest
_BATCH = 24  # scans
_EDGE_REACH = 7.0  # mm
_RODS_SCANS = 24


@dataclass(frozen=True)
class _Kind:
    """How a modality's phantom is scanned and told of."""

    phantom: Phantom
    edge: Disc  # whose sharpness is measured
    noise: float
    unit: str  # in the figures' names
    per_unit: float  # of the figures, in the phantom's unit
    draw: Callable[[int, int], NDArray[Any]]  # count, seed → noise (N, Y, X)
    show: Callable[[Image, NDArray[Any]], Image]  # truth (Y, X), noise → scans (N, Y, X)


def evaluate_on_phantom(
    model: Model,
    *,
    scans: int = 100,
    noise: float | None = None,
    strengths: Sequence[float] = STRENGTHS,
    limit_sigma: float = 3.0,
    seed: int = 1,
    progress: Progress | None = None,
) -> Figures:
    """Figures on phantoms, as JSON: "rows", one a strength (0 is the noisy image); for CT also "inserts"
    (models.evaluate_rods), "organs" and "ghost".

    A row has the part of the SD that is taken out, the mean frequency of the noise power spectrum and
    the half-value of the modulation transfer at a clear edge in 1/mm, the mean shift, the largest change,
    and for each disc the part of its contrast that is kept and its detectability. CT's figures are in HU,
    MR's in % of the series' unit, as is `noise` (17 HU or 5 %). The model's default strength is always
    told, and strengths above its ceiling too, for comparison.
    """
    strengths = sorted({*strengths, float(model.card["strength"])})
    ct = str(model.card.get("input", {}).get("modality", "CT")) == "CT"
    kind = _ct(noise or CT_NOISE) if ct else _mr((noise or MR_NOISE) / 100)
    without, discs, edge = _scan_all(model, kind, scans, limit_sigma, seed, progress)
    figures: Figures = {
        "scans": scans,
        f"noise_{kind.unit}": round(kind.noise / kind.per_unit, 3),
        "limit_sigma": limit_sigma,
        "rows": [_row(kind, strength, without, discs, edge) for strength in (0.0, *strengths)],
    }
    if ct:
        figures["inserts"] = evaluate_rods(
            model,
            scans=min(scans, _RODS_SCANS),
            noise_hu=kind.noise,
            strengths=strengths,
            limit_sigma=limit_sigma,
            seed=seed,
        )
        figures["organs"] = _organs(model, limit_sigma, seed)
        figures["ghost"] = _ghost(model, kind.phantom, without.images[:9], limit_sigma)
    if progress is not None:
        progress(scans + 1, scans + 1)
    return figures


def _ct(noise: float) -> _Kind:
    phantom = mita_phantom()
    return _Kind(
        phantom=phantom,
        edge=Disc(0, 0, 30.0, 120.0),
        noise=noise,
        unit="hu",
        per_unit=1.0,
        draw=lambda count, seed: grain(phantom.plain, phantom.spacing, count, noise, seed),
        show=lambda truth, noise: truth + noise,
    )


def _mr(noise: float) -> _Kind:
    phantom = mr_phantom()
    shape = phantom.plain.shape
    return _Kind(
        phantom=phantom,
        edge=Disc(0, 0, 30.0, 0.35),
        noise=noise,
        unit="percent",
        per_unit=0.01,
        draw=lambda count, seed: complex_noise((count, *shape), MR_ACQUIRED, np.random.default_rng(seed)),
        show=lambda truth, drawn: rician(truth, noise, drawn),
    )


def _scan_all(
    model: Model, kind: _Kind, scans: int, limit_sigma: float, seed: int, progress: Progress | None
) -> tuple[Scans, Scans, Scans]:
    """The same scans of the plain body, of its discs, and of a disc with a clear edge."""
    rng = np.random.default_rng(seed)
    truths = (kind.phantom.plain, kind.phantom.filled, kind.phantom.with_disc(kind.edge))
    found: tuple[list[Scans], ...] = ([], [], [])
    for start in range(0, scans, _BATCH):
        noise = kind.draw(min(_BATCH, scans - start), int(rng.integers(2**31)))
        for parts, truth in zip(found, truths, strict=True):
            parts.append(scanned(model, kind.show(truth, noise), limit_sigma))
        if progress is not None:
            progress(start + len(noise), scans + 1)
    plain, discs, edge = (joined(parts) for parts in found)
    return plain, discs, edge


def _row(kind: _Kind, strength: float, without: Scans, discs: Scans, edge: Scans) -> Figures:
    phantom, unit, per_unit = kind.phantom, kind.unit, kind.per_unit
    empty, full = without.at(strength), discs.at(strength)
    half = phantom.size // 2
    middle = (slice(None), slice(half - _SIDE, half + _SIDE), slice(half - _SIDE, half + _SIDE))
    before, after = (images[middle] - phantom.plain[middle[1:]] for images in (without.images, empty))
    largest = strength * np.concatenate([np.abs(one.taken).max((1, 2)) for one in (without, discs)])
    answer = edge.at(strength).mean(0) - empty.mean(0)
    row: Figures = {
        "strength": strength,
        "sd_removed": round(1 - float(after.std() / before.std()), 3),
        "nps_mean_per_mm": round(mean_frequency(after, phantom.spacing), 4),
        "mtf50_per_mm": sharpness(answer, (0, 0), kind.edge.diameter / 2, phantom.spacing, _EDGE_REACH),
        f"shift_{unit}": round(float(after.mean() - before.mean()) / per_unit, 3),
        f"largest_change_{unit}": round(float(largest.max()) / per_unit, 2),
        "largest_change_sigma": round(float((largest / np.append(without.sigma, discs.sigma)).max()), 3),
    }
    response, wanted = (full - empty).mean(0), phantom.filled - phantom.plain
    for size in sorted({disc.diameter for disc in phantom.discs}):
        of_size = [disc for disc in phantom.discs if disc.diameter == size]
        cores = [phantom.inside(disc, max(size / 2, 1.0)) for disc in of_size]
        kept = [response[core].mean() / wanted[core].mean() for core in cores]
        contrast = round(of_size[0].contrast / per_unit, 3)
        row[f"kept_{size:g}mm_{contrast:g}{unit}"] = round(float(np.mean(kept)), 3)
        present, absent = (
            np.concatenate([region(images, *phantom.pixel(disc)) for disc in of_size])
            for images in (full, empty)
        )
        row[f"auc_{size:g}mm"] = round(detectability(present, absent, phantom.spacing), 3)
    return row


def region(images: Image, row: int, column: int, side: int = _SIDE) -> Image:
    """The square of side + 1 pixels around a pixel, of images (N, Y, X)."""
    half = side // 2
    return images[:, row - half : row + half + 1, column - half : column + half + 1]


def _ghost(model: Model, phantom: Phantom, scans: Image, limit_sigma: float) -> float:
    """How much of a 10 mm, 60 HU disc that only the neighbouring slices have full strength copies."""
    disc = disc_image(phantom.size, phantom.spacing, Disc(0, 0, 10.0, 60.0))
    core = disc > 50
    order = np.array([[0, 0, 1], [0, 1, 2], [1, 2, 2]])
    shares = []
    for start in range(0, len(scans) - 2, 3):
        slices = scans[start : start + 3]
        beside = slices + np.stack((disc, np.zeros_like(disc), disc))
        without, copied = (scanned(model, three, limit_sigma, order).taken[1] for three in (slices, beside))
        shares.append(float((without - copied)[core].mean() / disc[core].mean()))
    return round(float(np.mean(shares)), 4)


def _organs(model: Model, limit_sigma: float, seed: int) -> list[Figures]:
    """What full strength does to the organs of the made body at a quarter of the dose."""
    phantom = ct_series(slices=5, size=512, seed=seed, dose=0.25)
    changes = scanned(model, phantom.noisy, limit_sigma).taken
    rows = []
    for name, organ in phantom.regions.items():
        if organ.sum() < 1000:
            continue
        noise = (phantom.noisy - phantom.clean)[organ]
        rows.append(
            {
                "organ": name,
                "noise_hu": round(float(noise.std()), 2),
                "sd_removed": round(1 - float((noise - changes[organ]).std() / noise.std()), 3),
                "shift_hu": round(-float(changes[organ].mean()), 3),
            }
        )
    lesion = phantom.lesion
    if lesion.any():
        rows.append({"organ": "lung nodule", "shift_hu": round(-float(changes[lesion].mean()), 3)})
    return rows

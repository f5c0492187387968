"""What a denoiser does to a phantom whose truth is known: noise, texture, HU, small low-contrast lesions.

A 200 mm water cylinder with the four discs of the MITA low-contrast phantom is scanned many times with
and without them, with the same noise; and once the made body of models.phantom. Detectability is the
area under the ROC curve of a channelized Hotelling observer (dense difference of Gaussians: Abbey &
Barrett, JOSA A 2001), trained on one half of the scans and tested on the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from models.denoiser import Model, body_mask, bounded_change, channels_last, removable
from models.noise import ct_noise, estimate_noise
from models.phantom import ct_series

Figures = dict[str, Any]
Image = NDArray[np.float32]

MITA = ((3.0, 14.0), (5.0, 7.0), (7.0, 5.0), (10.0, 3.0))  # diameter in mm, contrast in HU
STRENGTHS = (0.3, 0.5, 0.6, 0.8, 1.0)

_SIZE, _SPACING = 320, 0.7
_RADIUS, _RING = 100.0, 45.0  # mm: of the cylinder, and of the circle that the discs lie on
_BODY_HU = 50.0
_SIDE = 32  # pixels of a region of interest
_EDGE_RADIUS, _EDGE_HU = 15.0, 120.0  # of the disc whose edge is measured, mm and HU


def evaluate_on_phantom(
    model: Model,
    *,
    scans: int = 100,
    noise_hu: float = 17.0,
    strengths: Sequence[float] = STRENGTHS,
    limit_sigma: float = 3.0,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Figures on phantoms, as JSON: "rows", one a strength (0 is the noisy image), "organs" and "ghost".

    A row has the part of the SD that is taken out, the mean frequency of the noise power spectrum and
    the half-value of the modulation transfer at an edge of 120 HU in 1/mm, the mean shift of HU, and
    for each disc the part of its contrast that is kept and its detectability. Strengths above the
    model's ceiling are told too, for comparison.
    """
    rng = np.random.default_rng(seed)
    plain, discs, places = _cylinder()
    without: list[tuple[Image, Image]] = []
    with_discs: list[tuple[Image, Image]] = []
    with_edge: list[tuple[Image, Image]] = []
    edge = plain + _EDGE_HU * _disc(0, 0, _EDGE_RADIUS)
    noise: Image = np.empty(0, np.float32)
    for scan in range(scans):
        if scan % 24 == 0:
            count = min(24, scans - scan)
            cylinders = np.repeat(plain[None], count, 0)
            noise = ct_noise(cylinders, _SPACING, dose=1.0, seed=int(rng.integers(2**31)), cutoffs=(0.8,))[0]
            noise *= np.float32(noise_hu) / noise[:, plain > 0].std()
        grain = noise[scan % 24]
        for images, truth in ((without, plain), (with_discs, discs), (with_edge, edge)):
            images.append((truth + grain, _change(model, truth + grain, limit_sigma)))
        if progress is not None:
            progress(scan + 1, scans + 1)
    rows = [
        _row(strength, plain, discs, places, without, with_discs)
        | {"mtf50_per_mm": _sharpness(strength, without, with_edge)}
        for strength in (0.0, *sorted(strengths))
    ]
    organs = _organs(model, limit_sigma, seed)
    ghost = _ghost(model, [image for image, _ in without[:9]], limit_sigma)
    if progress is not None:
        progress(scans + 1, scans + 1)
    return {
        "scans": scans,
        "noise_hu": noise_hu,
        "limit_sigma": limit_sigma,
        "rows": rows,
        "organs": organs,
        "ghost": ghost,
    }


def _cylinder() -> tuple[Image, Image, list[tuple[int, int, float, float]]]:
    """The cylinder without and with discs, and each disc's row, column, diameter and contrast."""
    plain = -1000 + _disc(0, 0, _RADIUS) * np.float32(1000 + _BODY_HU)
    discs, places = plain.copy(), []
    for n, (diameter, contrast) in enumerate(MITA * 2):
        angle = 2 * np.pi * (n + 0.5) / (2 * len(MITA))
        centre_y, centre_x = _RING * np.sin(angle), _RING * np.cos(angle)
        discs += np.float32(contrast) * _disc(centre_y, centre_x, diameter / 2)
        row, column = (round(place / _SPACING + (_SIZE - 1) / 2) for place in (centre_y, centre_x))
        places.append((row, column, diameter, contrast))
    return plain, discs, places


def _disc(y: float, x: float, radius: float) -> Image:
    """A disc of 1 around (y, x) in mm from the middle, as a scanner's resolution shows it."""
    axis = (np.arange(_SIZE) - (_SIZE - 1) / 2) * _SPACING
    away = np.hypot(axis[:, None] - y, axis[None, :] - x)
    sharp = np.clip((radius - away) / _SPACING + 0.5, 0, 1)
    return np.asarray(ndimage.gaussian_filter(sharp, 0.6), np.float32)


def _change(
    model: Model, image: Image, limit_sigma: float, around: tuple[Image, Image] | None = None
) -> Image:
    """What full strength takes out of a slice; other strengths take their share of it.

    `around` are the slices below and above it, by default itself.
    """
    body = body_mask(image[None], np.zeros((1, *image.shape), bool))
    sigma = float(estimate_noise(image[None], body)[0])
    below, above = around or (image, image)
    slices = np.stack((below, image, above))
    residual = removable(channels_last(model.network), slices, sigma, model.device)
    return bounded_change(residual, body[0], sigma, 1.0, limit_sigma)


def _row(
    strength: float,
    plain: Image,
    discs: Image,
    places: list[tuple[int, int, float, float]],
    without: list[tuple[Image, Image]],
    with_discs: list[tuple[Image, Image]],
) -> Figures:
    empty = np.stack([image - np.float32(strength) * change for image, change in without])
    full = np.stack([image - np.float32(strength) * change for image, change in with_discs])
    middle = slice(_SIZE // 2 - _SIDE, _SIZE // 2 + _SIDE)
    before = np.stack([image for image, _ in without])[:, middle, middle] - plain[middle, middle]
    after = empty[:, middle, middle] - plain[middle, middle]
    row: Figures = {
        "strength": strength,
        "sd_removed": round(1 - float(after.std() / before.std()), 3),
        "nps_mean_per_mm": round(_mean_frequency(after), 4),
        "shift_hu": round(float(after.mean() - before.mean()), 3),
        "largest_change_hu": round(
            strength * max(float(np.abs(change).max()) for _, change in without + with_discs), 2
        ),
    }
    response, wanted = (full - empty).mean(0), discs - plain
    for diameter, contrast in MITA:
        of_size = [place for place in places if place[2] == diameter]
        kept = [_inside(response, place) / _inside(wanted, place) for place in of_size]
        row[f"kept_{diameter:g}mm_{contrast:g}hu"] = round(float(np.mean(kept)), 3)
        present = np.concatenate([_regions(full, place) for place in of_size])
        absent = np.concatenate([_regions(empty, place) for place in of_size])
        row[f"auc_{diameter:g}mm"] = round(_detectability(present, absent), 3)
    return row


def _inside(image: Image, place: tuple[int, int, float, float]) -> float:
    row, column, diameter, _ = place
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    return float(image[np.hypot(y - row, x - column) * _SPACING <= max(diameter / 2, 1.0)].mean())


def _regions(images: Image, place: tuple[int, int, float, float]) -> Image:
    row, column = place[:2]
    half = _SIDE // 2
    return images[:, row - half : row + half + 1, column - half : column + half + 1]


def _mean_frequency(noise: Image) -> float:
    """The mean radial frequency of the noise power, 1/mm; noise is (N, Y, X) without its mean."""
    flat = noise - noise.mean((1, 2), keepdims=True)
    power = np.square(np.abs(np.fft.fft2(flat))).mean(0)
    axis = np.fft.fftfreq(noise.shape[-1], _SPACING)
    radius = np.hypot(axis[:, None], axis[None, :])
    return float((power * radius).sum() / power.sum())


def _sharpness(
    strength: float, without: list[tuple[Image, Image]], with_edge: list[tuple[Image, Image]]
) -> float:
    """Where the modulation transfer of the large disc's edge falls to a half, 1/mm.

    The edge spread is the mean answer to the disc (Richard et al., Med Phys 2012), in fine rings.
    """
    answers = [
        (full - empty) - np.float32(strength) * (full_change - empty_change)
        for (full, full_change), (empty, empty_change) in zip(with_edge, without, strict=True)
    ]
    axis = (np.arange(_SIZE) - (_SIZE - 1) / 2) * _SPACING
    step = _SPACING / 4
    rings = np.rint((np.hypot(axis[:, None], axis[None, :]) - _EDGE_RADIUS) / step)
    near = np.abs(rings) <= 40
    places = (rings[near] + 40).astype(int)
    spread = np.bincount(places, np.mean(answers, axis=0)[near]) / np.bincount(places)
    transfer = np.abs(np.fft.rfft(np.diff(spread) * np.hanning(len(spread) - 1), 1024))
    transfer /= transfer[0]
    below = int(np.argmax(transfer < 0.5))
    share = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
    return round(float((below - 1 + share) / (1024 * step)), 4)


def _ghost(model: Model, scans: list[Image], limit_sigma: float) -> float:
    """How much of a 10 mm, 60 HU disc that only the neighbouring slices have full strength copies."""
    disc = np.float32(60) * _disc(0, 0, 5.0)
    core = disc > 50
    shares = []
    for below, image, above in zip(scans[::3], scans[1::3], scans[2::3], strict=False):
        without = _change(model, image, limit_sigma, (below, above))
        beside = _change(model, image, limit_sigma, (below + disc, above + disc))
        shares.append(float((without - beside)[core].mean() / disc[core].mean()))
    return round(float(np.mean(shares)), 4)


def _detectability(present: Image, absent: Image) -> float:
    """Area under the ROC curve of a channelized Hotelling observer for regions (N, S, S)."""
    axis = np.fft.fftfreq(present.shape[-1], _SPACING)
    radius = np.hypot(axis[:, None], axis[None, :])
    widths = 0.015 * 1.4 ** np.arange(10)
    channels = [
        np.fft.ifft2(np.exp(-0.5 * (radius / (1.67 * w)) ** 2) - np.exp(-0.5 * (radius / w) ** 2)).real
        for w in widths
    ]
    templates = np.stack([np.fft.fftshift(channel).ravel() for channel in channels], 1)
    seen, unseen = (group.reshape(len(group), -1) @ templates for group in (present, absent))
    areas = []
    # Both images of a scan have the same noise, so a scan is either learned from or judged.
    for learned, judged in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        covariance = np.cov(seen[learned].T) + np.cov(unseen[learned].T)
        observer = np.linalg.solve(covariance, seen[learned].mean(0) - unseen[learned].mean(0))
        yes, no = seen[judged] @ observer, unseen[judged] @ observer
        areas.append(float(stats.mannwhitneyu(yes, no).statistic) / (len(yes) * len(no)))
    return float(np.mean(areas))


def _organs(model: Model, limit_sigma: float, seed: int) -> list[Figures]:
    """What full strength does to the organs of the made body at a quarter of the dose."""
    phantom = ct_series(slices=5, size=512, seed=seed, dose=0.25)
    changes = np.stack([_change(model, image, limit_sigma) for image in phantom.noisy])
    rows = []
    for name, region in phantom.regions.items():
        if region.sum() < 1000:
            continue
        noise = (phantom.noisy - phantom.clean)[region]
        rows.append(
            {
                "organ": name,
                "noise_hu": round(float(noise.std()), 2),
                "sd_removed": round(1 - float((noise - changes[region]).std() / noise.std()), 3),
                "shift_hu": round(-float(changes[region].mean()), 3),
            }
        )
    lesion = phantom.lesion
    if lesion.any():
        rows.append({"organ": "lung nodule", "shift_hu": round(-float(changes[lesion].mean()), 3)})
    return rows

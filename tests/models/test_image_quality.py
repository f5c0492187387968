"""The observer, the texture and the sharpness, on images whose answer is known beforehand."""

import numpy as np
import pytest
from scipy import ndimage, special, stats

from models.disc_phantoms import MATERIALS, Disc, disc_image, mita_phantom, mr_phantom, sensitometry_phantom
from models.image_quality import (
    channels,
    detectability,
    detectability_of_few,
    mean_frequency,
    sharpness,
)

SPACING = 0.7


def _noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 10, shape).astype(np.float32)


def _disc(side: int = 33, radius: float = 5) -> np.ndarray:
    return (np.hypot(*np.ogrid[-(side // 2) : side // 2 + 1, -(side // 2) : side // 2 + 1]) < radius).astype(
        np.float32
    )


def test_the_observer_sees_what_is_there() -> None:
    """The observer's area is 1 for a plain disc, a half for nothing, and between for a faint one."""
    noise = _noise(2, 200, 33, 33)
    areas = [detectability(noise[0] + h * _disc(), noise[1], SPACING) for h in (0, 2, 20)]
    assert areas[0] == pytest.approx(0.5, abs=0.08)
    assert 0.7 < areas[1] < 0.98
    assert areas[2] > 0.999


def test_the_observer_comes_near_the_ideal_one() -> None:
    """In white noise the ideal area is known: Φ(d'/√2), d' the signal's norm over the noise."""
    signal = 1.0 * ndimage.gaussian_filter(_disc(), 1)
    ideal = stats.norm.cdf(np.linalg.norm(signal) / 10 / np.sqrt(2))
    noise = _noise(2, 3000, 33, 33, seed=2)
    found = detectability(noise[0] + signal, noise[1], SPACING)
    assert ideal - 0.05 < found < ideal + 0.015


def test_a_few_images_give_the_area_of_many() -> None:
    """Ten images with the signal and eight regions of ten without: the mean area is that of 3000 images."""
    signal = 2 * _disc(radius=4)
    many = _noise(2, 3000, 33, 33, seed=3)
    wanted = detectability(many[0] + signal, many[1], SPACING)
    templates = channels(33, SPACING)
    found = [
        detectability_of_few(
            _noise(10, 33, 33, seed=seed) + signal, _noise(10, 8, 33, 33, seed=1000 + seed), templates
        )
        for seed in range(40)
    ]
    assert all(areas.shape == (10,) for areas in found)
    # A template of nine images is somewhat worse than one of thousands.
    assert wanted - 0.08 < np.mean(found) < wanted + 0.01
    nothing = detectability_of_few(_noise(10, 33, 33), _noise(10, 8, 33, 33, seed=9), templates)
    assert np.mean(nothing) == pytest.approx(0.5, abs=0.2)


def test_other_channels_agree() -> None:
    """Laguerre-Gauss channels, another family, find nearly the same area for a disc of their size."""
    signal = 2 * _disc(radius=4)
    present, absent = _noise(2, 600, 33, 33, seed=4)
    present = present + signal
    squared = 2 * np.pi * (np.ogrid[-16:17, -16:17][0] ** 2 + np.ogrid[-16:17, -16:17][1] ** 2) / 12**2
    laguerre = np.stack(
        [(np.exp(-squared / 2) * special.eval_laguerre(order, squared)).ravel() for order in range(5)], 1
    )
    seen, unseen = present.reshape(600, -1) @ laguerre, absent.reshape(600, -1) @ laguerre
    observer = np.linalg.solve(
        np.cov(seen[::2].T) + np.cov(unseen[::2].T), seen[::2].mean(0) - unseen[::2].mean(0)
    )
    other = stats.mannwhitneyu(seen[1::2] @ observer, unseen[1::2] @ observer).statistic / 300**2
    assert detectability(present, absent, SPACING) == pytest.approx(other, abs=0.03)


def test_texture_is_that_of_the_noise() -> None:
    """White noise has the mean frequency of the square of frequencies; smoothed noise a lower one."""
    noise = _noise(40, 64, 64)
    white = mean_frequency(noise, SPACING)
    axis = np.fft.fftfreq(64, SPACING)
    assert white == pytest.approx(np.hypot(axis[:, None], axis).mean(), rel=0.01)
    assert mean_frequency(ndimage.gaussian_filter(noise, (0, 1, 1)), SPACING) < 0.5 * white
    assert mean_frequency(noise, 2 * SPACING) == pytest.approx(white / 2)


@pytest.mark.parametrize(("radius", "reach", "blur"), [(15.0, 7.0, 1.5), (6.0, 4.5, 0.8)])
def test_sharpness_is_that_of_the_blur(radius: float, reach: float, blur: float) -> None:
    """An edge blurred by a Gaussian of SD s has half its modulation at √(2 ln 2) / (2 π s)."""
    disc = disc_image(320, SPACING, Disc(20.0, -31.0, 2 * radius, -40.0))
    wider = np.asarray(ndimage.gaussian_filter(disc, blur), np.float32)
    # Blurred by the pixel (a box of 0.7 mm, SD 0.2 mm), the scanner (0.6 pixels) and by `blur`.
    sd = np.sqrt(0.7**2 / 12 + (0.6 * 0.7) ** 2 + (blur * 0.7) ** 2)
    half = sharpness(wider, (20.0, -31.0), radius, SPACING, reach)
    assert half == pytest.approx(np.sqrt(2 * np.log(2)) / (2 * np.pi * sd), rel=0.1)


def test_phantoms_are_what_they_say() -> None:
    """Materials have their HU, faint discs their contrast, and the MR phantom's rim is its unit."""
    rods = sensitometry_phantom()
    for rod, hu in zip(rods.discs, MATERIALS.values(), strict=True):
        core = rods.inside(rod, 4.0)
        assert core.sum() > 90 and np.abs(rods.filled[core] - hu).max() < 0.2
        assert np.hypot(rod.y, rod.x) + 6 < 100
    assert rods.plain[160, 160] == pytest.approx(0, abs=1e-3) and rods.plain[0, 0] == -1000
    faint = mita_phantom()
    for disc in faint.discs:
        # The middle of 3 mm is blurred by the scanner.
        assert (faint.filled - faint.plain)[faint.pixel(disc)] == pytest.approx(disc.contrast, rel=0.05)
    mr = mr_phantom()
    inside = mr.plain[mr.plain > 0.3]
    assert np.percentile(inside, 99.5) == pytest.approx(1, abs=0.02)
    assert np.median(inside) == pytest.approx(0.6, abs=1e-3) and mr.plain.min() == 0

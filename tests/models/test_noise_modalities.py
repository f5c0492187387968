"""Noise of MR, PET, ultrasound and radiographs: the statistics that physics gives them."""

import numpy as np
import pytest

from models.noise_mr import (
    RAYLEIGH_MEAN,
    RAYLEIGH_SD,
    complex_noise,
    estimate_mr_noise,
    passed,
    rice_mean,
    rician,
)
from models.noise_pet import anscombe, inverse_anscombe, pet_noise
from models.noise_us import SPECKLE_MEAN_DB, SPECKLE_SD_DB, log_compressed, speckle
from models.noise_xray import film_noise, film_sd


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_magnitudes_without_signal_are_rayleigh() -> None:
    """Air shows a mean of 1.25 σ and an SD of 0.66 σ, and nothing below 0."""
    air = rician(np.zeros((256, 256), np.float32), 10.0, complex_noise((256, 256), 1.0, _rng()))
    assert air.min() >= 0
    assert air.mean() == pytest.approx(10 * RAYLEIGH_MEAN, rel=0.01)
    assert air.std() == pytest.approx(10 * RAYLEIGH_SD, rel=0.01)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0, 10.0])
def test_magnitudes_have_rices_mean(ratio: float) -> None:
    """The mean lies above a weak signal and on a strong one, as Rice's distribution says."""
    signal = np.full((256, 256), 20 * ratio, np.float32)
    seen = rician(signal, 20.0, complex_noise(signal.shape, 1.0, _rng()))
    assert seen.mean() == pytest.approx(float(rice_mean(signal[:1, :1], 20.0)[0, 0]), rel=0.005)
    if ratio == 10:
        assert seen.std() == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("acquired", [1.0, 0.5, (0.75, 0.4)])
def test_filled_k_space_is_empty_and_the_noise_keeps_its_level(acquired: float | tuple[float, float]) -> None:
    """Nothing lies outside the acquired block; each channel's SD is 1, and neighbours agree the more."""
    noise = complex_noise((4, 128, 128), acquired, _rng())
    assert noise.real.std() == pytest.approx(1, rel=0.03) and noise.imag.std() == pytest.approx(1, rel=0.03)
    shares = acquired if isinstance(acquired, tuple) else (acquired, acquired)
    frequencies = np.abs(np.fft.fftfreq(128))
    outside = (frequencies[:, None] > shares[0] / 2) | (frequencies[None] > shares[1] / 2)
    spectrum = np.abs(np.fft.fft2(noise))
    assert not outside.any() or spectrum[:, outside].max() < 1e-3 * spectrum.max()
    beside = np.corrcoef(noise.real[:, :, 1:].ravel(), noise.real[:, :, :-1].ravel())[0, 1]
    assert beside == pytest.approx(np.sinc(shares[1]), abs=0.03)


def test_shares_of_k_space_are_checked() -> None:
    """More than all of k-space, or none, is refused."""
    for wrong in (0.0, 1.2, (0.5, -1.0)):
        with pytest.raises(ValueError, match="share of k-space"):
            complex_noise((8, 8), wrong, _rng())


@pytest.mark.parametrize("acquired", [1.0, 0.7, 0.5])
def test_the_mr_estimate_is_near_the_noise_in_even_tissue(acquired: float) -> None:
    """Beside edges and texture, too, it sees the part of the noise that its filter passes."""
    away = np.hypot(*np.ogrid[-100:100, -100:100])
    body = np.broadcast_to(away < 85, (3, 200, 200))
    truth = np.where(body, 600, 0).astype(np.float32)
    truth[:, 40:90, 80:120] = 1000 + 150 * (np.indices((50, 40)).sum(0) % 7 < 3)
    seen = rician(truth, 40.0, complex_noise(truth.shape, acquired, _rng()))
    assert estimate_mr_noise(seen, body) == pytest.approx(40 * passed((acquired, acquired)), rel=0.12)
    assert not estimate_mr_noise(seen, np.zeros_like(body)).any()


def test_pet_noise_is_poissons_after_the_filter() -> None:
    """Its variance is the activity's, over the counts and the filter's area; a quarter doubles the SD."""
    activity = np.full((2, 160, 160), 5.0, np.float32)
    levels = {}
    for counts in (4e6, 1e6):
        noise = pet_noise(activity, (2.0, 2.0), counts=counts, fwhm_mm=6.0, rng=_rng())
        levels[counts] = float(noise[:, 20:-20, 20:-20].std())
        assert abs(float(noise.mean())) < 0.02
    sd = 6.0 / 2.3548 / 2.0  # pixels
    each = 4e6 / 160**2  # counts a pixel
    assert levels[4e6] / 5 == pytest.approx(1 / np.sqrt(each * 4 * np.pi * sd**2), rel=0.05)
    assert levels[1e6] / levels[4e6] == pytest.approx(2, rel=0.06)


def test_pet_noise_is_correlated_and_hot_places_are_noisier() -> None:
    """Neighbours agree, and four times the activity has twice the noise."""
    activity = np.ones((1, 200, 200), np.float32)
    activity[:, :, 100:] = 4
    noise = pet_noise(activity, (2.0, 2.0), counts=1e6, fwhm_mm=5.0, rng=_rng())[0]
    assert np.corrcoef(noise[:, 1:80].ravel(), noise[:, :79].ravel())[0, 1] > 0.7
    assert noise[:, 120:].std() / noise[:, :80].std() == pytest.approx(2, rel=0.1)
    with pytest.raises(ValueError, match="activity"):
        pet_noise(np.zeros((1, 8, 8), np.float32), (2.0, 2.0), counts=1e3, fwhm_mm=5.0, rng=_rng())


@pytest.mark.parametrize("mean", [4.0, 20.0, 200.0])
def test_anscombe_levels_counts_and_its_inverse_has_no_bias(mean: float) -> None:
    """The SD of transformed counts is 1, and the inverse of their mean is the counts' mean."""
    counts = _rng().poisson(mean, 200_000).astype(np.float64)
    assert anscombe(counts).std() == pytest.approx(1, rel=0.03)
    back = inverse_anscombe(np.array([anscombe(counts).mean()]))
    assert back[0] == pytest.approx(counts.mean(), rel=0.01)


def test_log_compressed_speckle_has_its_known_mean_and_sd() -> None:
    """5.57 dB of SD and a mean of −2.51 dB, whatever the pulse; the tail is dark."""
    field = speckle((4, 256, 256), (0.0, 0.0), _rng())
    assert field.std() == pytest.approx(SPECKLE_SD_DB, rel=0.02)
    assert field.mean() == pytest.approx(SPECKLE_MEAN_DB, abs=0.05)
    wide = speckle((8, 256, 256), (1.0, 2.5), _rng())
    assert wide.std() == pytest.approx(SPECKLE_SD_DB, rel=0.05)
    assert wide.mean() == pytest.approx(SPECKLE_MEAN_DB, abs=0.25)
    assert np.median(wide) > wide.mean()
    # Rayleigh's mean over SD of the envelope is 1.91.
    envelope = 10 ** (field / 20)
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, rel=0.01)


def test_speckle_is_as_wide_as_the_pulse() -> None:
    """Neighbours across the beam agree more than along it; the image is clipped to what is shown."""
    field = speckle((256, 256), (0.7, 2.5), _rng())
    along, across = (
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in ((field[1:], field[:-1]), (field[:, 1:], field[:, :-1]))
    )
    assert across > along + 0.2
    shown = log_compressed(np.full((256, 256), -50, np.float32), field)
    assert shown.min() >= -60 and shown.max() <= 0
    with pytest.raises(ValueError, match="pulse"):
        speckle((8, 8), (-1.0, 1.0), _rng())


@pytest.mark.parametrize("value", [0.1, 0.5, 0.7])
def test_film_noise_follows_photons_and_electronics(value: float) -> None:
    """Its SD is the one that error propagation gives; bright, dense film is noisier."""
    film = np.full((300, 300), value, np.float32)
    noise = film_noise(film, photons=20_000, rng=_rng())
    assert noise.std() == pytest.approx(film_sd(value, photons=20_000), rel=0.03)
    assert abs(float(noise.mean())) < 0.02 * noise.std() + 0.001


def test_film_noise_can_be_correlated_and_starves_without_breaking() -> None:
    """The scintillator's light joins neighbours; where no photon arrives the values stay finite."""
    film = np.full((200, 200), 0.3, np.float32)
    noise = film_noise(film, photons=20_000, rng=_rng(), read=0.0, blur=1.0)
    beside = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert beside == pytest.approx(np.exp(-1 / 4), abs=0.03)  # of a Gaussian of SD 1, one pixel on
    starved = film_noise(np.ones((50, 50), np.float32), photons=10, rng=_rng())
    assert np.isfinite(starved).all()
    with pytest.raises(ValueError, match="photons"):
        film_noise(film, photons=0, rng=_rng())

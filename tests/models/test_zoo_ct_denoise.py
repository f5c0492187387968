"""The denoiser that is shipped: what its card promises holds, on images made here."""

import numpy as np
import pytest
import torch

from models import weights
from models.denoiser import Denoised, denoise
from models.evaluate_phantom import evaluate_on_phantom
from models.intensity import body_mask
from models.phantom import PhantomSeries, ct_series
from models.weights import LoadedModel


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return weights.load("ct-denoise")


@pytest.fixture(scope="module")
def phantom() -> PhantomSeries:
    return ct_series(slices=5, size=384, seed=21, dose=0.2)


def _denoised(
    model: LoadedModel, volume: np.ndarray, strength: float, padding: np.ndarray | None = None
) -> Denoised:
    count = len(volume)
    here = np.arange(count)
    return denoise(
        model,
        volume,
        padding=np.zeros(volume.shape, bool) if padding is None else padding,
        neighbours=np.stack((np.maximum(here - 1, 0), here, np.minimum(here + 1, count - 1)), 1),
        strength=strength,
        limit_sigma=model.card["limit_sigma"],
    )


def test_the_card_names_what_a_worker_needs(model: LoadedModel) -> None:
    """Kind, input, defaults within the ceilings, lineage, licence and figures are in model.json."""
    card = model.card
    assert model.kind == "denoiser"
    assert card["input"]["modality"] == "CT" and card["input"]["unit"] == "HU"
    assert 0 < card["strength"] <= card["max_strength"] < 1
    assert 0 < card["limit_sigma"] <= card["max_limit_sigma"]
    assert card["strength"] == 0.5 and card["limit_sigma"] == 3
    assert card["lineage"]["training_data"] and card["licence"] and card["measured_by"]
    assert card["metrics"]["people"]["people"] >= 3
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 1_046_144


def test_noise_falls_and_mean_hu_stays_in_flat_regions(model: LoadedModel, phantom: PhantomSeries) -> None:
    """At the default strength a third or more of the noise goes; no organ's mean moves by 1 HU."""
    result = _denoised(model, phantom.noisy, 0.5)
    for name, region in phantom.regions.items():
        if region.sum() < 500:
            continue
        before, after = (image[region] - phantom.clean[region] for image in (phantom.noisy, result.image))
        assert abs(float(after.mean() - before.mean())) < 1, name
        if name in ("liver", "aorta", "heart", "spleen"):
            assert after.std() < 0.67 * before.std(), name
    error = {
        name: float(np.sqrt(np.square(image - phantom.clean)[phantom.body].mean()))
        for name, image in (("noisy", phantom.noisy), ("denoised", result.image))
    }
    assert error["denoised"] < 0.7 * error["noisy"]
    noise = (phantom.noisy - phantom.clean)[phantom.body].std()
    assert result.sigma == pytest.approx(noise, rel=0.2)


def test_the_bound_holds_and_air_is_untouched(model: LoadedModel, phantom: PhantomSeries) -> None:
    """At the ceiling, too, no pixel passes its bound; air, table and padding are bit for bit the same."""
    padding = np.zeros(phantom.noisy.shape, bool)
    padding[:, :, :20] = True
    volume = np.where(padding, np.float32(-2000), phantom.noisy)
    result = _denoised(model, volume, model.card["max_strength"], padding)
    allowed = model.card["max_strength"] * model.card["limit_sigma"] * result.sigma[:, None, None]
    change = np.abs(result.image - volume)
    assert (change <= allowed + np.spacing(np.abs(volume))).all()
    outside = ~body_mask(volume, padding)
    assert outside.mean() > 0.3
    assert not change[outside].any()


def test_what_has_no_noise_is_hardly_changed(model: LoadedModel, phantom: PhantomSeries) -> None:
    """A clean image has a small estimated noise, so that nearly nothing may be taken from it."""
    result = _denoised(model, phantom.clean, 0.5)
    assert result.sigma.max() < 5
    assert np.abs(result.image - phantom.clean).max() <= 0.5 * 3 * result.sigma.max()
    assert np.sqrt(np.square(result.image - phantom.clean)[phantom.body].mean()) < 2


def test_the_lesion_stays(model: LoadedModel, phantom: PhantomSeries) -> None:
    """The nodule in the lung keeps its size and its HU at the ceiling of strength."""
    result = _denoised(model, phantom.noisy, model.card["max_strength"])
    assert phantom.lesion.any()
    shift = (result.image - phantom.noisy)[phantom.lesion].mean()
    assert abs(float(shift)) < 8
    seen = (result.image > -400) & phantom.lesion
    assert seen.sum() > 0.9 * ((phantom.clean > -400) & phantom.lesion).sum()


def test_promises_at_the_default_strength(model: LoadedModel) -> None:
    """Of faint discs 45 % and more is left; texture and sharpness stay near; the mean does not move."""
    figures = evaluate_on_phantom(model, scans=16, strengths=(0.5,))
    noisy, usual = figures["rows"]
    assert usual["sd_removed"] > 0.4
    assert abs(usual["shift_hu"]) < 1
    assert usual["nps_mean_per_mm"] > 0.85 * noisy["nps_mean_per_mm"]
    assert usual["mtf50_per_mm"] == pytest.approx(noisy["mtf50_per_mm"], rel=0.05)
    for disc in ("3mm_14hu", "5mm_7hu", "7mm_5hu", "10mm_3hu"):
        assert usual[f"kept_{disc}"] > 0.45, disc
    assert abs(figures["ghost"]) < 0.02
    for organ in figures["organs"]:
        if organ["organ"] != "lung nodule":
            assert abs(organ["shift_hu"]) < 1, organ["organ"]


def test_bfloat16_stays_within_its_tolerance(model: LoadedModel, phantom: PhantomSeries) -> None:
    """In bfloat16 the default result differs by less than 2 HU in the body: a mode, not the reference."""
    image = phantom.noisy[:1]
    exact = _denoised(model, image, 0.5).image
    with torch.autocast("cpu", torch.bfloat16):
        rough = _denoised(model, image, 0.5).image
    assert 0 < np.abs(exact - rough).max() < 2

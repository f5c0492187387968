"""The MR denoiser: masks, units, what its network is shown, its bounds and its card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import pack_denoiser, weights
from models import train_mr_denoiser as tm
from models.cases import Case
from models.denoiser import BFRAE, denoise
from models.intensity import INTENSITIES, intensity_of
from models.noise_mr import complex_noise, rician
from models.train import TrainingError, TrainSettings
from tests.models.test_evaluate_denoiser import LINEAGE


def _head(slices: int = 3, scale: float = 1.0, noise: float = 0.02, seed: int = 1) -> np.ndarray:
    """A round head with fluid, a rim and air, in the scanner's unit, with Rician noise."""
    away = np.hypot(*np.ogrid[-72:72, -64:64])
    plane = np.where(away < 55, 0.6, 0.0)
    plane[away < 40] = 0.8
    plane[(away > 50) & (away < 55)] = 1.0
    plane[60:70, 50:60] = 0.1
    volume = np.repeat(plane[None], slices, 0).astype(np.float32)
    return rician(volume, noise, complex_noise(volume.shape, 1.0, np.random.default_rng(seed))) * np.float32(
        scale
    )


def _case(person: str, **changes: float) -> Case:
    volume = _head(seed=ord(person), **changes)  # type: ignore[arg-type]
    return Case(person, "made", "MR", volume, np.zeros(volume.shape, bool), (0.9, 0.9))


def _settings(**changes: object) -> tm.MRDenoiserSettings:
    whole: dict[str, object] = {
        "train": TrainSettings(steps=60, warmup=10, ema_decay=0.9, validate_every=30, learning_rate=3e-3),
        "batch": 6,
        "patch": 48,
        "synthetic_slices": 8,
        "synthetic_size": 96,
        "noise": (0.05, 0.2),
        "architecture": {"widths": (16, 24, 32), "blocks": 1},
    }
    return tm.MRDenoiserSettings(**{**whole, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_person_is_found_in_clean_and_in_noisy_air(noise: float) -> None:
    """Fluid inside belongs to the person, noise in the air does not."""
    volume = _head(noise=noise) if noise else np.where(_head(noise=0.02) > 0.3, 500, 0).astype(np.float32)
    body = INTENSITIES["MR"].body(volume, np.zeros(volume.shape, bool))
    assert body[:, 65, 55].all()
    assert not body[:, :8, :8].any()
    away = np.hypot(*np.ogrid[-72:72, -64:64])
    assert body[1][away < 52].all() and body[1][away > 62].mean() < 0.01


def test_what_shows_nothing_has_no_person() -> None:
    """An empty series has no body and no unit of its own."""
    empty = np.zeros((2, 64, 64), np.float32)
    body = INTENSITIES["MR"].body(empty, np.zeros(empty.shape, bool))
    assert not body.any()
    assert INTENSITIES["MR"].unit(empty, body) == 1


def test_another_modality_is_refused() -> None:
    """A card for a modality without values of its own is no denoiser's."""
    assert intensity_of({}) is INTENSITIES["CT"]
    with pytest.raises(ValueError, match="no denoiser of US"):
        intensity_of({"input": {"modality": "US"}})


def test_patches_are_rician_and_bent_in_contrast() -> None:
    """Nothing is below 0, the loss divides by the noise that was added, and the map is near it."""
    settings = _settings()
    made = [tm._synthetic(settings, n) for n in range(4)]
    patches = tm._Source([], made, settings).draw(np.random.default_rng(3), 48)
    assert patches.noisy.shape == (48, 4, 48, 48) and float(patches.noisy[:, :3].min()) >= 0
    added = (patches.noisy[:, 1:2] - patches.clean).flatten(1).std(1) / patches.sigma.flatten()
    assert 0.6 < float(added.median()) < 1.2  # dark places have Rayleigh's smaller SD
    level = patches.noisy[:, 3, 0, 0] / patches.sigma.flatten()
    assert 0.5 < float(level.min()) < float(level.max()) < 1.8
    image = np.linspace(0, 1, 101, dtype=np.float32)[None]
    bent = [tm.toned(image, np.random.default_rng(n)) for n in range(40)]
    assert all(curve[0, 0] == 0 and curve.max() <= 1.1 for curve in bent)
    assert any(np.corrcoef(curve[0, 20:], image[0, 20:])[0, 1] < -0.8 for curve in bent)


def test_a_slice_that_stands_in_for_its_neighbour_brings_its_noise() -> None:
    """At the end of a series and in one without neighbours there is no second sample to average with."""
    settings = _settings()
    made = [tm._synthetic(settings, n) for n in range(4)]
    noisy = tm._Source([], made, settings).draw(np.random.default_rng(3), 80).noisy
    below, itself, above = noisy[:, :3].unbind(1)
    alone = (below == itself).flatten(1).all(1), (above == itself).flatten(1).all(1)
    assert float(alone[0].float().mean()) == pytest.approx(0.5, abs=0.15)
    assert float(alone[1].float().mean()) == pytest.approx(0.35, abs=0.15)
    assert bool((alone[0] | ~alone[1]).all())


def test_training_learns_and_the_model_keeps_its_bounds_in_any_unit(tmp_path: Path) -> None:
    """The loss falls; scaled by 700 the same series is denoised the same; no pixel passes its bound."""
    torch.set_num_threads(1)
    cases = [_case(name, noise=0.01) for name in "abc"]
    settings = _settings(validation_people=0.34)
    result = tm.train_mr_denoiser(cases, settings, tmp_path / "run")
    assert result.best < 0.75
    told = (tmp_path / "run" / "settings.json").read_text()
    assert '"people": 2,' in told and '"slices": 12,' in told  # each slice twice
    model = pack_denoiser.make_denoiser(
        result.network,
        name="mr-test",
        version="0.0.1",
        arguments=settings.architecture,
        noise=settings.noise,
        trained_people=2,
        lineage=LINEAGE,
        modality="MR",
    )
    figures = pack_denoiser.judge_and_save_denoiser(
        model,
        [_case("d", noise=0.005)],
        tmp_path / "model",
        measured_by="aenode evaluate mr-test",
        filters=("TV",),
        scans=12,
    )
    assert [row["noise"] for row in figures["people"]["rows"] if row["method"] == "noisy"] == [
        0.02,
        0.05,
        0.1,
    ]
    text = (tmp_path / "model" / "CARD.md").read_text()
    assert "99.5th percentile of what it shows of the person" in text and "| 0.05 | noisy |" in text
    assert "| strength | noise removed |" in text and "kept 3 mm, 6 % |" in text
    assert "| contrast of the smallest disc | 0.45 or more is left |" in text
    loaded = weights.load(str(tmp_path / "model"))
    noisy = _head(noise=0.1, seed=9)
    one, many = (_denoised(loaded, np.float32(scale) * noisy) for scale in (1.0, 700.0))
    assert np.allclose(one.image * 700, many.image, atol=0.5)
    body = INTENSITIES["MR"].body(noisy, np.zeros(noisy.shape, bool))
    change = np.abs(one.image - noisy)
    assert (change <= 0.5 * 3 * one.sigma[:, None, None]).all() and not change[~body].any()
    assert one.image.min() >= 0
    truth = _head(noise=0.001)
    before, after = (np.square((image - truth)[body]).mean() for image in (noisy, one.image))
    assert after < 0.75 * before


def _denoised(model: weights.LoadedModel, volume: np.ndarray):  # type: ignore[no-untyped-def]
    here = np.arange(len(volume))
    neighbours = np.stack((np.maximum(here - 1, 0), here, np.minimum(here + 1, len(here) - 1)), 1)
    padding = np.zeros(volume.shape, bool)
    return denoise(model, volume, padding=padding, neighbours=neighbours, strength=0.5, limit_sigma=3)


def test_noisy_cases_and_wrong_patches_are_refused(tmp_path: Path) -> None:
    """A series that is all noise is no target, and patches must fit."""
    with pytest.raises(TrainingError, match="noise of its own"):
        tm.train_mr_denoiser([_case("a", noise=0.3), _case("b", noise=0.3)], _settings(), tmp_path)
    with pytest.raises(ValueError, match="patches of 95"):
        _settings(patch=95)
    assert BFRAE(**_settings().architecture)

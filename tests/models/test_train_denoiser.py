"""Training of the denoiser: what the network is shown, and that it learns from it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import train_denoiser as td
from models.cases import Case
from models.train import TrainingError, TrainSettings


def _settings(**changes: object) -> td.DenoiserSettings:
    whole: dict[str, object] = {
        "train": TrainSettings(steps=80, warmup=10, ema_decay=0.9, validate_every=40, learning_rate=3e-3),
        "batch": 6,
        "patch": 48,
        "size": 128,
        "views": 60,
        "synthetic_slices": 8,
        "validation_people": 0.34,
        "architecture": {"widths": (16, 24, 32), "blocks": 1},
    }
    return td.DenoiserSettings(**{**whole, **changes})  # type: ignore[arg-type]


def _case(person: str, noise: float, seed: int = 1) -> Case:
    volume = np.full((2, 128, 128), -1000, np.float32)
    away = np.hypot(*np.ogrid[-64:64, -64:64])
    volume[:, away < 50] = 40
    volume[:, away < 10] = 130
    volume += np.random.default_rng(seed).normal(0, noise, volume.shape).astype(np.float32)
    neighbours = np.array([[0, 0, 1], [0, 1, 1]])
    return Case(
        person, "made", "CT", volume, np.zeros(volume.shape, bool), (0.7, 0.7), 2.0, neighbours=neighbours
    )


def _bank(settings: td.DenoiserSettings, folder: Path) -> td._Bank:
    bank = td._Bank([], [td._synthetic(settings, n) for n in range(4)], settings)
    assert sum(bank.add_noise(1, folder)) == 4
    return bank


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    """From dead leaves alone a small network learns to remove noise: the loss falls well below 1."""
    torch.set_num_threads(1)
    heard: list[tuple[int, int]] = []
    result = td.train_denoiser(
        [],
        _settings(size=192, noise=(30.0, 80.0)),
        tmp_path,
        prepared=lambda done, total: heard.append((done, total)),
    )
    assert result.best < 0.8
    assert heard[-1] == (8, 8)


def test_noise_is_simulated_once_for_a_run(tmp_path: Path) -> None:
    """A run that goes on reads its noise from its folder; it is the same noise."""
    settings = _settings()
    first, second = _bank(settings, tmp_path), _bank(settings, tmp_path)
    assert len(list(tmp_path.glob("noise-*.npz"))) == 1
    assert all(np.array_equal(a.noise, b.noise) for a, b in zip(first.slices, second.slices, strict=True))
    assert first.slices[0].noise.shape == (2, len(td.KERNELS), 128, 128)


def test_patches_carry_the_noise_they_say(tmp_path: Path) -> None:
    """The noise of patches has the level that the loss divides by, and the map of σ is near it."""
    patches = _bank(_settings(), tmp_path).draw(np.random.default_rng(5), 64)
    added = (patches.noisy[:, 1:2] - patches.clean).flatten(1).std(1) / patches.sigma.flatten()
    assert float(added.median()) == pytest.approx(1, abs=0.25)
    assert patches.noisy.shape == (64, 4, 48, 48)
    level = patches.noisy[:, 3].flatten(1)
    assert float(level.std(1).max()) < 1e-6
    assert float((level[:, 0] / patches.sigma.flatten()).log().abs().max()) < 0.7
    assert 0.003 < float(patches.sigma.min()) < float(patches.sigma.max()) < 0.081


def test_neighbours_repeat_resemble_or_differ(tmp_path: Path) -> None:
    """Of the slices below, some are the slice itself, some like it with other noise, some strangers."""
    patches = _bank(_settings(), tmp_path).draw(np.random.default_rng(6), 200)
    below, centre = patches.noisy[:, 0].flatten(1), patches.noisy[:, 1].flatten(1)
    same = (below == centre).all(1)
    assert 0.4 < float(same.float().mean()) < 0.6
    both = torch.stack((below[~same], centre[~same]))
    likeness = torch.stack([torch.corrcoef(pair)[0, 1] for pair in both.unbind(1)])
    assert bool((likeness > 0.9).any()) and bool((likeness < 0.5).any())
    assert not bool((likeness > 0.9999).any())


def test_noisy_slices_are_no_targets(tmp_path: Path) -> None:
    """Cases of which no slice is clean are refused before any training."""
    with pytest.raises(TrainingError, match="no slice has less than 16 HU"):
        td.train_denoiser([_case("a", 60), _case("b", 60)], _settings(), tmp_path)


def test_people_train_or_validate(tmp_path: Path) -> None:
    """A third of three people is held out; each clean slice comes in two sizes, with its neighbours."""
    settings = _settings(train=TrainSettings(steps=1, warmup=1, validate_every=1), realisations=1)
    cases = [_case(name, 3, seed) for seed, name in enumerate("abc", start=1)]
    td.train_denoiser(cases, settings, tmp_path)
    told = (tmp_path / "settings.json").read_text()
    assert '"people": 2,' in told and '"people_validating": 1,' in told
    assert '"slices": 8,' in told and '"slices_validating": 4,' in told
    slices = td._clean_slices(cases[0], settings)
    assert [item.image.shape for item in slices] == [(128, 128), (64, 64)] * 2
    assert slices[0].beside[0] is None and slices[0].beside[1] is slices[2].image
    assert slices[1].own_noise < slices[0].own_noise * 1.5


def test_patches_must_fit_into_slices_of_half_size() -> None:
    """Settings whose patches are too large for the halved slices are refused."""
    with pytest.raises(ValueError, match="patches of 64"):
        _settings(patch=64)

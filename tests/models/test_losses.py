"""Losses, fine-tuning, and learning from noisy neighbours alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import train_noisy as tn
from models.cases import Case
from models.denoiser import BFRAE
from models.denoiser_patches import Patches, noise_loss
from models.losses import LOSSES, pixel_error
from models.train import TrainingError, TrainSettings, started

SMALL = {"widths": (16, 24, 32), "blocks": 1}


@pytest.mark.parametrize("kind", LOSSES)
def test_each_loss_is_least_where_the_image_is_right(kind: str) -> None:
    """Errors on either side cost more."""
    clean = torch.full((1, 1, 2, 2), 0.5)
    costs = [float(pixel_error(clean + step, clean, kind).mean()) for step in (-0.3, 0.0, 0.3)]
    assert costs[1] < min(costs[0], costs[2])


def test_the_robust_loss_cares_less_for_outliers() -> None:
    """Ten times the error costs ten times as much, not a hundred times; another name is refused."""
    zero = torch.zeros(1)
    ratio = [float(pixel_error(zero + 1, zero, k) / pixel_error(zero + 0.1, zero, k)) for k in LOSSES[:2]]
    assert ratio == pytest.approx([100, 10], rel=0.01)
    with pytest.raises(ValueError, match="no loss 'mae'"):
        pixel_error(zero, zero, "mae")


def test_noise_is_the_unit_of_a_denoisers_loss() -> None:
    """A new network does nothing: its squared error in σ² is 1, its robust one the mean absolute value."""
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.02
    clean = torch.zeros(4, 1, 32, 32)
    patches = Patches((clean + noise).repeat(1, 4, 1, 1), clean, torch.full((4, 1, 1, 1), 0.02))
    network = BFRAE(**SMALL).requires_grad_(False)  # type: ignore[arg-type]  # JSON
    assert float(noise_loss(network, patches)) == pytest.approx(1, rel=0.05)
    assert float(noise_loss(network, patches, "charbonnier")) == pytest.approx((2 / np.pi) ** 0.5, rel=0.05)


def test_a_training_begins_from_given_weights_or_says_that_it_cannot() -> None:
    """The same architecture takes them over; another is refused."""
    torch.manual_seed(1)
    first = BFRAE(**SMALL)  # type: ignore[arg-type]  # JSON
    second = started(BFRAE(**SMALL), first.state_dict())  # type: ignore[arg-type]  # JSON
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(TrainingError, match="another architecture"):
        started(BFRAE((8, 8, 8), 1), first.state_dict())


def _thin(person: str, thick: bool = False) -> Case:
    """A noisy series of 6 slices of 25 HU of noise; a thick one's anatomy jumps from slice to slice."""
    rng = np.random.default_rng(ord(person))
    y, x = np.mgrid[:96, :96]
    slices = []
    for z in range(6):
        plane = np.full((96, 96), -1000.0)
        plane[np.hypot(y - 48, x - 48) < 40] = 40
        shift = 9 * z if thick else 0.3 * z
        plane[np.hypot(y - 40, x - 30 - shift) < 8] = 400
        plane[np.hypot(y - 60 + shift, x - 55) < 10] = -90
        slices.append(plane + rng.normal(0, 25, plane.shape))
    here = np.arange(6)
    neighbours = np.stack((np.maximum(here - 1, 0), here, np.minimum(here + 1, 5)), 1)
    volume = np.stack(slices).astype(np.float32)
    return Case(
        person, "made", "CT", volume, np.zeros(volume.shape, bool), (0.8, 0.8), 1.0, neighbours=neighbours
    )


def test_neighbours_agree_where_anatomy_does() -> None:
    """Even tissue agrees, an organ that jumps does not, and loose slices have no neighbours."""
    near, far = tn.neighbour_pairs(_thin("a"), "CT", 32), tn.neighbour_pairs(_thin("a", thick=True), "CT", 32)
    assert len(near) == 5
    body = np.hypot(*np.ogrid[-48:48, -48:48]) < 36
    assert np.mean([pair.agree[body].mean() for pair in near]) > 0.9
    assert not far or np.mean([pair.agree[body].mean() for pair in far]) < 0.8
    jumping = far[0].agree[36:45, 26:34] if far else np.zeros(1)
    assert jumping.mean() < 0.5
    loose = Case("x", "made", "CT", _thin("a").volume, np.zeros((6, 96, 96), bool), (0.8, 0.8))
    assert tn.neighbour_pairs(loose, "CT", 32) == []


def test_a_network_learns_from_noisy_neighbours_alone(tmp_path: Path) -> None:
    """Without a clean image the error to the truth falls; series without pairs are refused."""
    torch.set_num_threads(1)
    settings = TrainSettings(steps=240, warmup=10, ema_decay=0.9, validate_every=80, learning_rate=5e-3)
    cases = [_thin(name) for name in "abcd"]
    result = tn.train_noisy(cases, "CT", settings, tmp_path / "run", architecture=SMALL, batch=6, patch=32)
    assert 1.0 <= result.best < 1.6  # 2 is a network that does nothing, 1 the target's own noise
    clean = np.full((1, 96, 96), 40, np.float32)
    noisy = clean + np.random.default_rng(5).normal(0, 25, clean.shape).astype(np.float32)
    stack = torch.from_numpy(np.concatenate((noisy, noisy, noisy, np.full_like(noisy, 25)))[None] / 1000)
    with torch.inference_mode():
        drawn = result.network(stack.float())[0, 0].numpy() * 1000
    assert (drawn - clean[0]).std() < 0.75 * 25
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["described"]["people_validating"] == 0
    with pytest.raises(TrainingError, match=r"0 pairs of neighbouring slices .* too far apart"):
        tn.train_noisy([], "CT", settings, tmp_path / "none", architecture=SMALL, patch=32)


def test_some_people_only_validate_noisy_neighbours(tmp_path: Path) -> None:
    """Of five one is kept apart, and the run tells it; what is best is best on someone else."""
    settings = TrainSettings(steps=2, warmup=1, ema_decay=0.9, validate_every=2)
    cases = [_thin(name) for name in "abcde"]
    tn.train_noisy(cases, "CT", settings, tmp_path, architecture=SMALL, batch=2, patch=32)
    told = json.loads((tmp_path / "settings.json").read_text())["described"]
    assert (told["people"], told["people_validating"]) == (4, 1)
    assert told["pairs"] == 4 * told["pairs_validating"] == 20

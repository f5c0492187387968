"""The variational autoencoder: shapes, losses, codes, novelty, compression and the probe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from models import train_vae, vae, weights
from models.evaluate_images import auroc
from models.evaluate_vae import CodeSpread, compression
from models.few_labels import from_scratch, linear, probe
from models.pack_anomaly import Lineage
from models.pack_vae import NOVELTY, judge_and_save_vae, rarer_than
from models.preparation import Contract
from models.train import TrainSettings
from models.train_anomaly import INPUTS, Pool, prepare_cases
from tests.models.test_evaluate_images import case

WORDS = {
    **INPUTS["chest-xray-anomaly"],
    "canvas": [64, 64],
    "erode": 3,
    "normalisation": {"percentiles": [1, 99.5], "values": [0.05, 0.95]},
}
SMALL = {"canvas": [64, 64], "widths": [8, 8, 16, 16, 16], "codes": 16}
LINEAGE = Lineage(
    description="A test.",
    training_data="None.",
    warning="",
    licence="CC0",
    command="aenode train …",
    git="unknown",
    steps=0,
)


def _pool(first: int, count: int) -> tuple[Pool, np.ndarray, np.ndarray]:
    ready, _ = prepare_cases([case(first + n) for n in range(count)], Contract.of({"input": WORDS}))
    images, masks = train_vae.on_canvas(ready, (64, 64))
    return Pool.of(ready, (64, 64)), images, masks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> vae.VAE:
    torch.set_num_threads(1)
    settings = TrainSettings(steps=70, warmup=10, ema_decay=0.9, validate_every=35, learning_rate=5e-3)
    result = train_vae.train_vae(
        _pool(0, 24)[0],
        _pool(100, 8)[0],
        settings,
        tmp_path_factory.mktemp("vae") / "run",
        arguments=SMALL,
        describe={},
    )
    assert isinstance(result.network, vae.VAE)
    return result.network


def test_the_network_is_the_published_one() -> None:
    """Five strided convolutions 16-32-64-64-64 and 128 codes; the canvas must fit."""
    network = vae.VAE()
    assert [answer.shape[1:] for answer in network.scales(torch.zeros(1, 1, 128, 128))] == [
        (16, 64, 64),
        (32, 32, 32),
        (64, 16, 16),
        (64, 8, 8),
        (64, 4, 4),
    ]
    assert network.encode(torch.zeros(2, 1, 128, 128))[0].shape == (2, 128)
    assert network(torch.zeros(2, 1, 128, 128)).shape == (2, 1, 128, 128)
    with pytest.raises(ValueError, match="not divisible by 32"):
        vae.VAE(canvas=(100, 128))


def test_the_divergence_is_that_of_gaussians() -> None:
    """Zero for a unit Gaussian; for another, what a numerical integral gives."""
    assert float(vae.divergence(torch.zeros(1, 4), torch.zeros(1, 4))) == 0
    found = float(vae.divergence(torch.tensor([[0.7]]), torch.log(torch.tensor([[0.25]]))))
    x = np.linspace(-6, 6, 20001)
    density = stats.norm(0.7, 0.5).pdf(x)
    ratio = stats.norm(0.7, 0.5).logpdf(x) - stats.norm().logpdf(x)
    assert found == pytest.approx(float((density * ratio).sum() * (x[1] - x[0])), rel=1e-3)
    assert [vae.warm_up(step, 30) for step in (0, 5, 10, 30)] == [0, vae.BETA / 2, vae.BETA, vae.BETA]


def test_training_draws_normal_films_and_finds_others_novel(trained: vae.VAE) -> None:
    """A held-out film is drawn much better than by the mean film; a filled lung is more novel."""
    _, images, masks = _pool(200, 8)
    drawn = vae.decode_codes(trained, vae.encode_slices(trained, images))
    wrong = np.square(drawn - images)[masks].mean()
    assert wrong < 0.5 * np.square(images - images[masks].mean())[masks].mean()
    ready, _ = prepare_cases([case(300 + n, 110) for n in range(8)], Contract.of({"input": WORDS}))
    odd = train_vae.on_canvas(ready, (64, 64))
    assert np.median(vae.novelty(trained, *odd)) > np.median(vae.novelty(trained, images, masks))


class _Blocks(vae.VAE):
    """Codes that are the means of 8 × 8 blocks."""

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.nn.functional.avg_pool2d(image, 8).flatten(1)
        return codes, torch.zeros_like(codes)

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(codes.view(-1, 1, 8, 8), scale_factor=8)


def test_more_bits_and_more_codes_keep_more_of_the_image() -> None:
    """Of images that the codes can hold, PSNR rises by about 6 dB a bit; what is left out is its mean."""
    blocks = np.random.default_rng(0).uniform(0, 1, (24, 8, 8)).astype(np.float32)
    blocks[:, :4] = 0.5 + 0.2 * (blocks[:, :4] - 0.5)  # the lower half of an image differs most
    known, images = np.split(np.kron(blocks, np.ones((1, 8, 8), np.float32)), 2)
    network, masks = _Blocks(**SMALL), np.ones(images.shape, bool)
    spread = CodeSpread.of(vae.encode_slices(network, known))
    rows = compression(network, images, masks, spread, (64,), (4, 6, 8))
    assert [row["bytes"] for row in rows] == [32, 48, 64]
    assert np.diff([row["psnr_db"] for row in rows]) == pytest.approx([12, 12], abs=1.5)
    assert rows[0]["raw_bytes"] == 64 * 64 * 2
    few = compression(network, images, masks, spread, (16, 32, 64, 128), (8,))
    assert [row["codes"] for row in few] == [16, 32, 64]
    kept = np.concatenate((np.zeros(32), np.ones(32))).astype(bool)
    upper = images[:, :32] - spread.mean[~kept].reshape(4, 8).repeat(8, 0).repeat(8, 1)
    expected = -10 * np.log10(np.square(upper).mean((1, 2)) / 2).mean()
    assert few[1]["psnr_db"] == pytest.approx(expected, abs=0.1)


def test_the_probe_judges_people_it_was_not_shown() -> None:
    """Codes that tell the classes apart reach 1 with few labels; noise stays near a half."""
    rng = np.random.default_rng(0)
    abnormal = np.arange(160) % 2 == 0
    people = [f"p{n // 2}" for n in range(160)]
    codes = (rng.normal(size=(160, 6)) + 3 * abnormal[:, None]).astype(np.float32)
    learners = {"codes": linear(codes), "pixels": linear(rng.normal(size=(160, 20)).astype(np.float32))}
    rows = probe(learners, abnormal, people, (10, 40, 500))
    assert [row["labels"] for row in rows] == [10, 40]
    assert rows[1]["auroc_codes"] > 0.98 and abs(rows[1]["auroc_pixels"] - 0.5) < 0.2
    assert rows[1]["best_rival"] == "pixels" and rows[1]["gain_interval"][0] > 0.3
    alike = probe({**learners, "pixels": learners["codes"]}, abnormal, people, (40,))[0]
    assert alike["gain"] == 0 and alike["gain_interval"] == (0, 0)


def test_an_encoder_from_scratch_learns_from_labels() -> None:
    """It tells bright from dark middles on films it was not shown, and answers alike for the same seed."""
    rng = np.random.default_rng(0)
    abnormal = np.arange(48) % 2 == 0
    films = rng.normal(0.5, 0.05, (48, 64, 64)).astype(np.float32)
    films[abnormal, 20:44, 20:44] += 0.4
    learned = from_scratch(films, vae.VAE(**SMALL), steps=30)
    found = learned(np.arange(24), abnormal, 1)
    assert auroc(found[24:], abnormal[24:]) > 0.95
    assert np.array_equal(found, learned(np.arange(24), abnormal, 1))


def test_interpolation_keeps_the_ends_and_the_length() -> None:
    """The first and last codes are those given; in between nothing shrinks to the middle."""
    rng = np.random.default_rng(1)
    first, last = rng.standard_normal((2, 64)).astype(np.float32)
    path = vae.interpolated(first, last, 7)
    assert np.allclose(path[0], first, atol=1e-5) and np.allclose(path[-1], last, atol=1e-5)
    assert np.linalg.norm(path, axis=1).min() > 0.8 * min(np.linalg.norm(first), np.linalg.norm(last))
    assert np.allclose(vae.interpolated(first, first, 3), first)


def test_a_packed_model_carries_its_normal_novelty(trained: vae.VAE, tmp_path: Path) -> None:
    """The folder loads, its card has the figures, and the rank needs a hundred normals."""
    normal = [case(400 + n) for n in range(6)]
    ill = [case(500 + n, 110) for n in range(6)]
    empty = replace(case(600), person="nobody sees", padding=np.ones_like(case(600).padding))
    figures = judge_and_save_vae(
        trained,
        WORDS,
        tmp_path / "model",
        name="test-vae",
        version="0.0.1",
        arguments=SMALL,
        calibration_cases=[case(100 + n) for n in range(6)],
        test_cases=[*normal, *ill, empty],
        trained_people=24,
        lineage=LINEAGE,
    )
    loaded = weights.load(str(tmp_path / "model"))
    assert loaded.kind == "vae" and len(loaded.calibration[NOVELTY]) == 6
    assert figures["novelty"]["median_of_these"] > 0
    assert figures["people"] == len({one.person for one in normal + ill}) and len(figures["notes"]) == 1
    text = (tmp_path / "model" / "CARD.md").read_text()
    assert CodeSpread.of_arrays(loaded.calibration) is not None
    assert "| 16 | 8 | 16 |" in text and "no" in text.split("\n")[0]
    assert rarer_than(loaded.calibration[NOVELTY], 1.0) is None
    assert rarer_than(np.linspace(0, 1, 199).astype(np.float32), 2.0) == pytest.approx(0.995)

"""The anomaly score: preparation, calibration, sign, place, and what is never judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import calibration, pack_anomaly, train_anomaly, weights
from models.anomaly import AnomalyScores, CoarseDAE, OutsideDomain, score
from models.calibration import Calibration, NormalErrors
from models.cases import split
from models.preparation import Contract, body, prepare, restore
from models.train import TrainSettings
from models.weights import LoadedModel, WeightsError
from tests.models.thorax_made import case, nothing, thorax, untaught_model

CT = Contract.of({"input": train_anomaly.INPUTS["ct-anomaly"]})
LESION = (48, 44)  # row, column in the made slices


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return weights.load("ct-anomaly")


@pytest.fixture
def untaught() -> LoadedModel:
    return untaught_model()


def scored(model: LoadedModel, volume: NDArray[np.float32]) -> AnomalyScores:
    return score(model, volume, padding=nothing(volume), spacing=(3.0, 3.0))


def test_the_network_has_the_published_size() -> None:
    """U-Net 24/48/96/192 has about 1.1 million parameters and keeps the image's size."""
    network = CoarseDAE()
    assert 1.0e6 < sum(p.numel() for p in network.parameters()) < 1.2e6
    assert network(torch.zeros(2, 1, 24, 40)).shape == (2, 1, 24, 40)


def test_the_body_is_found_without_the_table() -> None:
    """Lungs belong to the body; the table and the air do not."""
    found = body(thorax(), 3.0)
    assert found[:, 46, 42].all()
    assert found[:, 48, 64].all()
    assert not found[:, 90:92].any()
    assert not found[:, :5].any()


def test_a_score_returns_to_the_pixel_that_it_came_from() -> None:
    """Preparation and restoring are inverse to within a pixel of the training grid."""
    volume = thorax()
    ready = prepare(volume, nothing(volume), (3.0, 3.0), CT)
    marked = ((ready.image > 0.3) & (ready.image < 0.9)).astype(np.float32)
    back = restore(marked, ready) > 0.5
    inside = (volume > -300) & (volume < 700)
    inside[:, 88:] = False
    assert np.mean(back == inside) > 0.98
    assert back.shape == volume.shape


def test_score_and_mask_have_the_volume_s_shape(untaught: LoadedModel) -> None:
    """One score a voxel, finite, and 0 where nothing was judged."""
    volume = thorax(3)
    found = scored(untaught, volume)
    assert found.score.shape == found.evaluated.shape == volume.shape
    assert found.score.dtype == np.float32
    assert np.isfinite(found.score).all()
    assert not found.score[~found.evaluated].any()
    assert found.per_slice.shape == (3,)
    assert found.series_score == found.per_slice.max()


def test_the_sign_of_the_contract_turns_the_score_round(untaught: LoadedModel) -> None:
    """Brighter than drawn is positive with sign +1 and negative with −1."""
    volume = thorax(1)
    words = {**untaught.card["input"], "sign": -1}
    turned = replace(untaught, card={"input": words})
    first, second = scored(untaught, volume), scored(turned, volume)
    assert np.allclose(first.score, -second.score, atol=1e-5)
    assert np.any(first.score != 0)


def test_padding_is_never_judged(untaught: LoadedModel) -> None:
    """Padding inside the body is outside of the evaluated mask, whatever lies there."""
    volume, padding = thorax(), np.zeros((2, 96, 128), np.bool_)
    padding[:, 40:60, 30:50] = True
    volume[padding] = -2000
    found = score(untaught, volume, padding=padding, spacing=(3.0, 3.0))
    assert found.evaluated.any()
    assert not (found.evaluated & padding).any()
    assert not found.score[padding].any()
    volume[padding] = 30000
    again = score(untaught, volume, padding=padding, spacing=(3.0, 3.0))
    assert np.array_equal(found.score, again.score)


def test_the_rim_and_the_outside_are_not_judged(untaught: LoadedModel) -> None:
    """The mask is eroded by the contract's pixels."""
    volume = thorax(1)
    found = scored(untaught, volume)
    assert not found.evaluated[0, :13].any()
    assert not found.evaluated[0, 85:].any()
    assert found.evaluated[0, 48, 64]


def test_slices_without_a_body_get_no_score(untaught: LoadedModel) -> None:
    """A slice of air among others is passed over, not an error."""
    volume = thorax(3)
    volume[1] = -1000
    found = scored(untaught, volume)
    assert not found.evaluated[1].any()
    assert found.per_slice[1] == 0


def test_a_slice_without_a_body_is_not_the_most_unusual_one(untaught: LoadedModel) -> None:
    """Where all scores are below 0, the series is as unusual as its body, and not as the air."""
    high = Calibration.of(untaught.calibration)
    known = replace(high, mean=high.mean + 99).to_arrays()
    volume = thorax(3)
    volume[1] = -1000
    assert scored(replace(untaught, calibration=known), volume).series_score < -50


def test_what_is_all_rim_is_outside_the_domain(untaught: LoadedModel) -> None:
    """A finger has a foreground and not one pixel that is deep enough to be judged."""
    volume = np.full((1, 64, 64), -1000, np.float32)
    volume[0, 20:44, 30:34] = 50
    with pytest.raises(OutsideDomain, match="too small to be judged"):
        scored(untaught, volume)


@pytest.mark.parametrize("fill", [-1000.0, np.nan, np.inf])
def test_a_series_that_shows_no_body_is_outside_the_domain(untaught: LoadedModel, fill: float) -> None:
    """Air alone, and values that are not finite, give a sentence and no score."""
    with pytest.raises(OutsideDomain):
        scored(untaught, np.full((2, 64, 64), fill, np.float32))


def test_shapes_that_do_not_agree_are_refused(untaught: LoadedModel) -> None:
    """A padding mask of another shape is a mistake of the caller."""
    with pytest.raises(ValueError, match="not one"):
        score(untaught, thorax(2), padding=np.zeros((1, 96, 128), bool), spacing=(3.0, 3.0))


def test_a_denoiser_cannot_score(untaught: LoadedModel) -> None:
    """The kind of a model decides what it may be used for."""
    with pytest.raises(WeightsError, match="not an anomaly model"):
        scored(replace(untaught, kind="denoiser"), thorax())


def test_a_head_with_its_skull_is_refused_by_the_brain_model() -> None:
    """The model was taught on extracted brains; bright scalp would light up."""
    words = train_anomaly.INPUTS["brain-mr-anomaly"]
    rule = {"percentiles": [1, 99.5], "values": [0.05, 0.95]}
    contract = Contract.of({"input": {**words, "normalisation": rule}})
    y, x = np.mgrid[:192, :160]
    radius = np.hypot((y - 96) / 90, (x - 80) / 70)
    brain = np.where(radius < 0.85, 500.0, 0) * np.ones((3, 1, 1))
    head = np.where((radius > 0.85) & (radius < 1), 900.0, brain)
    ready = prepare(brain.astype(np.float32), nothing(brain), (1.0, 1.0), contract)
    assert ready.foreground.any()
    with pytest.raises(OutsideDomain, match="not extracted"):
        prepare(head.astype(np.float32), nothing(head), (1.0, 1.0), contract)
    noisy = brain + np.abs(np.random.default_rng(0).normal(0, 20, brain.shape))
    with pytest.raises(OutsideDomain, match="not extracted"):
        prepare(noisy.astype(np.float32), nothing(head), (1.0, 1.0), contract)


def test_scores_are_the_same_each_time(shipped: LoadedModel) -> None:
    """The same series gives the same bits."""
    volume = thorax(2)
    first, second = scored(shipped, volume), scored(shipped, volume)
    assert np.array_equal(first.score, second.score)
    assert first.series_score == second.series_score


def test_a_bright_lesion_stands_out_and_its_absence_does_not(shipped: LoadedModel) -> None:
    """The shipped CT model marks a 15 mm solid nodule put into a lung, and not the lung without it."""
    plain = thorax(2)
    y, x = np.ogrid[:96, :128]
    inside = np.hypot(y - LESION[0], x - LESION[1]) * 3 < 7.5
    changed = plain.copy()
    changed[:, inside] = 30
    without, with_it = scored(shipped, plain), scored(shipped, changed)
    assert np.all(with_it.score[:, LESION[0], LESION[1]] > with_it.threshold)
    assert np.mean(with_it.score[:, inside] > with_it.threshold) > 0.5
    assert np.mean(without.score[:, inside] > without.threshold) < 0.05
    assert with_it.series_score > without.series_score


def test_a_calibration_holds_on_what_it_was_made_of() -> None:
    """Scores of normals have mean 0 and SD 1 in each region, and the stated share exceeds the threshold."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0, 1, 60_000).astype(np.float32)
    depth = rng.uniform(3, 30, 60_000).astype(np.float32)
    error = (rng.normal(0.1, 1, 60_000) * (0.01 + 0.05 * level)).astype(np.float32)
    normals = [
        NormalErrors([part[0]], [part[1]], [part[2]])
        for part in zip(*(np.split(a, 6) for a in (error, level, depth)), strict=True)
    ]
    found = calibration.fit(normals, 0.01)
    scores = found.to_sd(error, level, depth)
    assert np.mean(scores > found.threshold) == pytest.approx(0.01, abs=2e-4)
    for low in (0.0, 0.5, 0.9):
        part = scores[(level > low) & (level < low + 0.1)]
        assert abs(part.mean()) < 0.1
        assert part.std() == pytest.approx(1, abs=0.15)
    assert len(found.series_scores) == 6
    again = Calibration.of(found.to_arrays())
    assert again.threshold == found.threshold
    assert np.array_equal(again.to_sd(error, level, depth), scores)


def test_a_calibration_without_normals_is_refused() -> None:
    """There is no threshold where nobody was measured."""
    with pytest.raises(ValueError, match="a calibration needs"):
        calibration.fit([], 0.01)


def test_no_rank_is_given_under_a_hundred_series() -> None:
    """Under 100 normals there is no "rarer than"; from then on it is the conformal rank."""
    flat = np.ones((20, 4), np.float32)
    few = Calibration(flat, flat, 1.0, 0.005, np.arange(99, dtype=np.float32))
    assert few.rarer_than(1e9) is None
    enough = Calibration(flat, flat, 1.0, 0.005, np.arange(199, dtype=np.float32))
    assert enough.rarer_than(1e9) == pytest.approx(1 - 1 / 200)
    assert enough.rarer_than(-1.0) == pytest.approx(0)
    assert enough.rarer_than(99.0) == pytest.approx(1 - 101 / 200)


def test_people_are_divided_by_person_and_not_by_the_order_of_reading() -> None:
    """All cases of a person fall into one part, whatever order they come in."""
    cases = [case(np.zeros((1, 8, 8), np.float32), f"person {k % 10}") for k in range(30)]
    parts = split(cases, (0.7, 0.15, 0.15), seed=3)
    people = [{c.person for c in part} for part in parts]
    assert sum(len(p) for p in people) == 10
    assert not people[0] & people[1] | people[1] & people[2] | people[0] & people[2]
    assert all(people)
    again = split(cases[::-1], (0.7, 0.15, 0.15), seed=3)
    assert [{c.person for c in part} for part in again] == people
    with pytest.raises(ValueError, match="add data"):
        split(cases[:1], (0.5, 0.5), seed=3)


def test_coarse_noise_stays_on_the_foreground() -> None:
    """The background remains empty, the foreground changes by about the noise's SD."""
    mask = torch.zeros(4, 1, 64, 64)
    mask[..., 10:50, 12:52] = 1
    clean = 0.5 * mask
    noise = train_anomaly.NoiseSettings(fine_sd=0.0)
    noisy = train_anomaly.add_coarse_noise(clean, mask, np.random.default_rng(0), noise)
    change = noisy - clean
    assert not change[mask == 0].any()
    assert 0.05 < float(change[mask == 1].std()) < 0.25
    again = train_anomaly.add_coarse_noise(clean, mask, np.random.default_rng(0), noise)
    assert torch.equal(noisy, again)


def test_a_network_learns_and_becomes_a_sound_model(tmp_path: Path) -> None:
    """A few steps lower the error; the model that is written loads, scores and states its figures."""
    people = [case(thorax(2, seed=k), f"p{k}") for k in range(4)]
    ready, notes = train_anomaly.prepare_cases(people, CT)
    assert not notes
    pool = train_anomaly.Pool.of(ready[:3], (64, 80))
    held_out = train_anomaly.Pool.of(ready[3:], (64, 80))
    settings = TrainSettings(steps=10, validate_every=5, warmup=1, ema_decay=0.5, seed=2, learning_rate=3e-3)
    result = train_anomaly.train("ct-anomaly", pool, held_out, settings, tmp_path / "run", describe={})
    rows = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    first, last = float(rows[1].split(",")[-1]), result.best
    assert last < first
    lineage = pack_anomaly.Lineage(
        description="A test.",
        training_data="Made.",
        warning="",
        licence="none",
        command="x",
        git="x",
        steps=12,
    )
    model = pack_anomaly.make_model(
        result.network,
        train_anomaly.INPUTS["ct-anomaly"],
        name="ct-anomaly",
        version="9.0.0",
        calibration_cases=people[2:3],
        trained_people=2,
        lineage=lineage,
    )
    figures = pack_anomaly.judge_and_save(model, people[3:], tmp_path / "model")
    loaded = weights.load(str(tmp_path / "model"))
    text = (tmp_path / "model" / "CARD.md").read_text()
    assert loaded.card["metrics"] == figures
    assert 0 <= figures["normals"]["false_positive_rate"] <= 1
    assert figures["lesions"]
    assert {"model", "intensity", "local contrast"} <= figures["lesions"][0].keys()
    assert text.startswith("**Not shown to beat its best baseline")
    assert "1 person, an interval needs 3" in text.splitlines()[0]
    assert np.isfinite(scored(loaded, people[0].volume).score).all()

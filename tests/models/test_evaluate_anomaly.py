"""The figures of an anomaly model: counting, inserted lesions, intervals, and what is shown."""

from dataclasses import replace

import numpy as np
import pytest

from models.evaluate_anomaly import ShownCase, evaluate, figures_of
from models.inserted_lesions import insert
from models.preparation import body
from models.weights import LoadedModel
from tests.models.thorax_made import case, nothing, thorax, untaught_model


@pytest.fixture
def untaught() -> LoadedModel:
    return untaught_model()


def test_figures_agree_with_counting() -> None:
    """AP, AUROC and Dice on a case small enough to count by hand, equal scores included."""
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1], np.float32)
    truth = np.array([True, False, True, False, False])
    found = figures_of(scores, truth, 0.5)
    assert found["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["auroc"] == pytest.approx((3 + 2.5) / 6)
    assert found["dice_fixed"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["dice_oracle"] == pytest.approx(0.8)
    assert figures_of(np.zeros(10, np.float32), truth.repeat(2), None)["auroc"] == pytest.approx(0.5)


def test_inserted_lesions_lie_where_they_may_and_are_known() -> None:
    """A nodule changes lung only, inside its mask and a soft rim."""
    plain = case(thorax(2))
    allowed = body(plain.volume, 3.0)
    changed = insert(plain, allowed, "solid nodule in lung, 30 HU", np.random.default_rng(0))
    assert changed.lesion is not None
    assert changed.lesion.any()
    assert np.all(plain.volume[changed.lesion] < -700)
    assert np.median(changed.volume[changed.lesion]) > -100
    moved = changed.volume != plain.volume
    assert not (moved & ~allowed).any()
    assert moved.sum() < 4 * changed.lesion.sum()


def test_evaluation_is_the_same_each_time(untaught: LoadedModel) -> None:
    """Inserted lesions are drawn from the seed alone, whether anybody looks or not."""
    people = [case(thorax(1, seed=5))]
    assert evaluate(untaught, people, seed=4) == evaluate(untaught, people, seed=4, shown=lambda _: None)


def test_an_interval_needs_three_people(untaught: LoadedModel) -> None:
    """Experts' masks stand person by person until there are enough people for one row and its interval."""
    masked = []
    for person in ("a", "a", "b", "c"):
        one = case(thorax(1, seed=len(masked)), person)
        lesion = nothing(one.volume)
        lesion[:, 44:52, 40:48] = True
        masked.append(replace(one, lesion=lesion))
    few = evaluate(untaught, masked[:3])
    assert [row["kind"] for row in few["lesions"]] == ["expert mask, person 1", "expert mask, person 2"]
    assert [row["slices"] for row in few["lesions"]] == [2, 1]
    assert all(row["against"]["ap_gain_interval"] is None for row in few["lesions"])
    assert not few["beats_baseline"]
    (row,) = evaluate(untaught, masked)["lesions"]
    assert (row["kind"], row["people"]) == ("expert mask", 3)
    low, high = row["against"]["ap_gain_interval"]
    assert low <= row["against"]["ap_gain"] <= high
    assert row["against"]["beats_baseline"] == (low > 0)


def test_every_case_is_shown_with_what_it_is_worth(untaught: LoadedModel) -> None:
    """The untouched case, and one with each kind of lesion: image, score and truth of one slice."""
    shown: list[ShownCase] = []
    figures = evaluate(untaught, [case(thorax(2, seed=5))], shown=shown.append)
    assert [one.kind for one in shown] == ["taken as normal", *(row["kind"] for row in figures["lesions"])]
    assert shown[0].truth is None
    assert shown[0].worth == pytest.approx(-figures["normals"]["false_positive_rate"])
    for one, row in zip(shown[1:], figures["lesions"], strict=True):
        assert one.truth is not None
        assert one.truth.any()
        assert one.image.shape == one.score.shape == one.truth.shape == (96, 128)
        assert one.worth == pytest.approx(row["model"]["ap"])
        assert one.window[0] < one.window[1]

"""The classical filters beside a denoiser, and the intervals of figures."""

import numpy as np
import pytest

from models import yardsticks
from models.intervals import bootstrap, bootstrap_of


def _samples(count: int, size: int = 48) -> list[yardsticks.Sample]:
    away = np.hypot(*np.ogrid[-size // 2 : size // 2, -size // 2 : size // 2])
    truth = np.where(away < size / 3, 100, 0).astype(np.float32)
    body = away < size / 2.4
    rng = np.random.default_rng(1)
    return [
        yardsticks.Sample(truth + rng.normal(0, 12, truth.shape).astype(np.float32), truth, body)
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", list(yardsticks.FILTERS))
def test_each_filter_is_tuned_and_helps(name: str) -> None:
    """With the setting chosen on others each of them, BM3D too, takes a part of the noise."""
    first, second = _samples(2)
    tuned = yardsticks.tune([first], [name])
    assert tuned.settings[name] in yardsticks.FILTERS[name][1]
    image, seconds = yardsticks.filtered(name, second.noisy, second.sigma, tuned)
    assert image.shape == second.noisy.shape and image.dtype == np.float32 and seconds > 0
    before, after = (float(np.square((x - second.truth)[second.body]).mean()) for x in (second.noisy, image))
    assert after < 0.8 * before


def test_the_setting_is_the_best_on_the_samples() -> None:
    """No other setting of the filter has a smaller error on the samples that chose it."""
    samples = _samples(3)
    chosen = yardsticks.tune(samples, ["TV"]).settings["TV"]
    of, choices = yardsticks.FILTERS["TV"]

    def error(setting: float) -> float:
        return float(
            np.mean([np.square((of(s.noisy, s.sigma, setting) - s.truth)[s.body]).mean() for s in samples])
        )

    assert error(chosen) == pytest.approx(min(error(choice) for choice in choices), rel=0.05)
    with pytest.raises(ValueError, match="no validation slice"):
        yardsticks.tune([], ["TV"])


def test_an_interval_is_one_of_people() -> None:
    """Many slices of a person are one case; under three people none is given; the seed fixes it."""
    rng = np.random.default_rng(0)
    people = {f"p{n}": (rng.normal(1, 0.5) + rng.normal(0, 0.01, 50)).tolist() for n in range(20)}
    low, high = bootstrap(people) or (0, 0)
    means = [float(np.mean(values)) for values in people.values()]
    expected = 1.96 * np.std(means) / np.sqrt(20)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert low < np.mean(means) < high
    assert bootstrap(people) == bootstrap(people)
    assert bootstrap({"a": [1.0], "b": [2.0]}) is None


def test_draws_without_a_value_are_left_out() -> None:
    """A measure that is not finite for some draws still has an interval; one that never is has none."""
    found = bootstrap_of(5, lambda chosen: float("nan") if 0 in chosen else float(chosen.mean()))
    assert found is not None and found[0] >= 1
    assert bootstrap_of(5, lambda _: float("nan")) is None

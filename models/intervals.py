"""How sure a figure is: bootstrap over people, since slices of one person are no independent cases."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_PEOPLE = 3
REPEATS = 1000


def bootstrap(
    by_person: Mapping[str, Sequence[float]], *, seed: int = 1, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval of the mean over people of their means; None with fewer than three people."""
    means = np.array([np.mean(values) for values in by_person.values() if len(values)])
    return bootstrap_of(len(means), lambda chosen: float(means[chosen].mean()), seed=seed, level=level)


def bootstrap_of(
    people: int,
    measure: Callable[[NDArray[np.intp]], float],
    *,
    seed: int = 1,
    level: float = 0.95,
    repeats: int = REPEATS,
) -> tuple[float, float] | None:
    """The percentile interval of `measure`, which takes places of people drawn with repetition.

    Draws in which `measure` is not finite (no case of one class, say) are left out.
    """
    if people < FEWEST_PEOPLE:
        return None
    rng = np.random.default_rng(seed)
    values = np.array([measure(rng.integers(people, size=people)) for _ in range(repeats)])
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return round(float(low), 4), round(float(high), 4)


def surely_above(interval: Sequence[float] | None) -> bool:
    """Whether an interval lies above zero; too few people for an interval show nothing."""
    return interval is not None and interval[0] > 0

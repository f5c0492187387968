from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from node.backoff import delay


@given(attempt=st.integers(1, 100_000), first=st.floats(0.1, 60), limit=st.floats(60, 86_400), seed=st.text())
def test_a_wait_is_between_half_and_all_of_the_doubled_first_wait(
    attempt: int, first: float, limit: float, seed: str
) -> None:
    """No attempt is made at once, and none is put off beyond the limit."""
    longest = min(limit, first * 2 ** min(attempt - 1, 40))
    assert longest / 2 <= delay(attempt, first=first, limit=limit, seed=seed) <= longest


def test_waits_grow_until_the_limit() -> None:
    """Each wait is at least as long as any wait two attempts earlier, up to the limit."""
    waits = [delay(n, first=5, limit=3600, seed="archive") for n in range(1, 20)]
    assert waits[0] <= 5
    assert all(later >= earlier for earlier, later in pairwise(waits[:9:2]))
    assert max(waits) <= 3600
    assert sum(waits[12:]) >= 7 * 1800


def test_the_same_seed_gives_the_same_wait_and_another_a_different_one() -> None:
    """The jitter is repeatable, and peers are spread."""
    assert delay(3, first=5, limit=60, seed="a") == delay(3, first=5, limit=60, seed="a")
    assert len({delay(3, first=5, limit=60, seed=str(n)) for n in range(50)}) == 50


def test_the_attempts_of_the_default_settings_last_about_eight_days() -> None:
    """An archive that is away over a long weekend finds its results still waiting."""
    days = sum(delay(n, first=5, limit=3600, seed="archive") for n in range(1, 200)) / 86_400
    assert 4 < days < 8.5

"""How long to wait before the next attempt."""

from random import Random

_DOUBLINGS = 40  # beyond any limit a person would set


def delay(attempt: int, *, first: float, limit: float, seed: str) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    `first` doubled with each attempt, at most `limit`, of which a half to the whole is waited: so
    nodes that lost the same archive do not all come back in one moment. The same seed and
    attempt give the same wait.
    """
    longest = min(limit, first * 2.0 ** min(attempt - 1, _DOUBLINGS))
    # Jitter, not a secret.
    return longest * Random(f"{seed}:{attempt}").uniform(0.5, 1.0)  # noqa: S311

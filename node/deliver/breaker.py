"""Whether a peer is worth an attempt just now."""

from datetime import datetime
from typing import Protocol


class Breaker(Protocol):
    """Remembers how each peer fared. Called from the threads of several peers."""

    def permits(self, peer: str, now: datetime) -> bool:
        """Whether an association may be asked for."""

    def succeeded(self, peer: str, now: datetime) -> None:
        """An association was established and carried its batch to the end."""

    def failed(self, peer: str, now: datetime) -> None:
        """None was established, or it ended early."""


class AlwaysClosed:
    """A breaker that never opens: each delivery's own backoff is the only brake."""

    def permits(self, peer: str, now: datetime) -> bool:
        """Yes."""
        return True

    def succeeded(self, peer: str, now: datetime) -> None:
        """Nothing to remember."""

    def failed(self, peer: str, now: datetime) -> None:
        """Nothing to remember."""

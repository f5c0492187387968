"""Whether a peer is worth an attempt just now: one circuit breaker a peer.

    CLOSED ──failures in a row──▶ OPEN ──its wait is over──▶ HALF_OPEN, asked by C-ECHO
       ▲                            ▲                              │
       └───────── answered ─────────┼──────────────────────────────┤
                                    └───── no answer, longer wait ─┘

While it is open, deliveries wait without using up attempts, so an outage may last for days.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from node.backoff import delay
from node.config import Deliver, Peer
from node.errors import PeerError

log = logging.getLogger("aenode.deliver")

Echo = Callable[[Peer], None]  # raises PeerError


class Breaker(Protocol):
    """Remembers how each peer fared. Called from the threads of several peers."""

    def permits(self, peer: str, now: datetime) -> bool:
        """Whether a thread may be started for a peer."""

    def ready(self, peer: Peer, now: datetime) -> bool:
        """Whether an association may be asked for; may ask the peer by C-ECHO first."""

    def succeeded(self, peer: str, now: datetime) -> None:
        """An association was established and carried something."""

    def failed(self, peer: str, now: datetime, reason: str = "") -> None:
        """None was established, or it ended without having carried anything."""


class AlwaysClosed:
    """A breaker that never opens: each delivery's own backoff is the only brake."""

    def permits(self, peer: str, now: datetime) -> bool:
        """Yes."""
        return True

    def ready(self, peer: Peer, now: datetime) -> bool:
        """Yes."""
        return True

    def succeeded(self, peer: str, now: datetime) -> None:
        """Nothing to remember."""

    def failed(self, peer: str, now: datetime, reason: str = "") -> None:
        """Nothing to remember."""


class State(StrEnum):
    """Of one peer's breaker."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(slots=True)
class _Memory:
    state: State = State.CLOSED
    failures: int = 0  # in a row
    openings: int = 0  # in a row
    opened_at: datetime | None = None
    wait: timedelta = timedelta()
    reason: str = ""


class CircuitBreaker:
    """Opens after `breaker_failures` failed associations in a row; `note` is told of each change."""

    def __init__(
        self,
        settings: Callable[[], Deliver],
        echo: Echo,
        note: Callable[[str, State, datetime, str, datetime | None], None],
    ) -> None:
        self._settings = settings
        self._echo = echo
        self._note = note
        self._lock = threading.Lock()
        self._peers: dict[str, _Memory] = {}

    def permits(self, peer: str, now: datetime) -> bool:
        """Whether the breaker is closed, or open and due for its probe."""
        with self._lock:
            return self._due(self._peers.get(peer), now)

    @staticmethod
    def _due(memory: _Memory | None, now: datetime) -> bool:
        if memory is None or memory.state is State.CLOSED:
            return True
        # A clock that was set back must not keep it open.
        waited = now - memory.opened_at if memory.opened_at else timedelta()
        return memory.state is State.OPEN and not timedelta() <= waited < memory.wait

    def ready(self, peer: Peer, now: datetime) -> bool:
        """Whether it is closed; one that is due is probed by C-ECHO, by one thread at a time."""
        with self._lock:
            memory = self._peers.get(peer.name)
            if memory is None or memory.state is State.CLOSED:
                return True
            if not self._due(memory, now):
                return False
            memory.state = State.HALF_OPEN
        try:
            self._echo(peer)
        except PeerError as error:
            self._open(peer.name, now, str(error))
            return False
        except BaseException:
            self._open(peer.name, now, "the probe failed")
            raise
        self._close(peer.name, now)
        return True

    def succeeded(self, peer: str, now: datetime) -> None:
        """The peer takes what it is sent."""
        with self._lock:
            memory = self._peers.get(peer)
            if memory is None:
                return
            memory.failures = memory.openings = 0
            closed = memory.state is State.CLOSED
        if not closed:
            self._close(peer, now)

    def failed(self, peer: str, now: datetime, reason: str = "") -> None:
        """The peer did not take anything; after enough of it the breaker opens."""
        with self._lock:
            memory = self._peers.setdefault(peer, _Memory())
            memory.failures += 1
            # One that answered C-ECHO and then failed again opens at once.
            enough = memory.failures >= self._settings().breaker_failures or memory.openings > 0
            if memory.state is not State.CLOSED or not enough:
                return
        self._open(peer, now, reason)

    def _open(self, peer: str, now: datetime, reason: str) -> None:
        settings = self._settings()
        with self._lock:
            memory = self._peers.setdefault(peer, _Memory())
            memory.openings += 1
            seconds = delay(
                memory.openings,
                first=settings.breaker_seconds,
                limit=settings.breaker_max_seconds,
                seed=f"breaker {peer}",
            )
            memory.state, memory.opened_at, memory.wait = State.OPEN, now, timedelta(seconds=seconds)
            changed, memory.reason = memory.openings == 1 or memory.reason != reason, reason
        if changed:
            log.warning("%s is left alone and probed by C-ECHO from now on: %s", peer, reason)
        self._note(peer, State.OPEN, now, reason, now + timedelta(seconds=seconds))

    def _close(self, peer: str, now: datetime) -> None:
        with self._lock:
            memory = self._peers.setdefault(peer, _Memory())
            memory.state, memory.failures = State.CLOSED, 0
        log.info("%s answers again", peer)
        self._note(peer, State.CLOSED, now, "", None)

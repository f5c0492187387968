"""The circuit breaker: closed, open, half-open."""

from datetime import datetime, timedelta

import pytest

from node.config import Deliver, Peer
from node.deliver.breaker import CircuitBreaker, State
from node.errors import PeerError
from tests.node.delivering import START

PEER = Peer(name="archive", ae_title="A", address="127.0.0.1:104")
SETTINGS = Deliver(breaker_failures=3, breaker_seconds=30, breaker_max_seconds=120)


class Bench:
    """A breaker whose probes are counted and answered as the test says."""

    def __init__(self) -> None:
        self.answers = False
        self.probes = 0
        self.told: list[State] = []
        self.breaker = CircuitBreaker(lambda: SETTINGS, self.echo, self.note)

    def echo(self, _peer: Peer) -> None:
        self.probes += 1
        if not self.answers:
            raise PeerError("archive: no connection")

    def note(self, _peer: str, state: State, _at: datetime, _reason: str, _probe: datetime | None) -> None:
        self.told.append(state)

    def open(self, at: datetime = START) -> None:
        for _ in range(3):
            self.breaker.failed("archive", at, "no connection")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_opens_after_failures_in_a_row_only(bench: Bench) -> None:
    """Two failures, a success and two more leave it closed; the third in a row opens it."""
    for _ in range(2):
        bench.breaker.failed("archive", START)
    bench.breaker.succeeded("archive", START)
    for _ in range(2):
        bench.breaker.failed("archive", START)
    assert bench.breaker.ready(PEER, START)
    bench.breaker.failed("archive", START)
    assert not bench.breaker.permits("archive", START)
    assert bench.told == [State.OPEN]
    assert bench.breaker.permits("other", START)


def test_an_open_one_is_probed_when_its_wait_is_over(bench: Bench) -> None:
    """Before that nobody is asked; a probe that is answered closes it."""
    bench.open()
    assert not bench.breaker.ready(PEER, START + timedelta(seconds=14))
    assert bench.probes == 0
    bench.answers = True
    assert bench.breaker.permits("archive", START + timedelta(seconds=31))
    assert bench.breaker.ready(PEER, START + timedelta(seconds=31))
    assert (bench.probes, bench.told[-1]) == (1, State.CLOSED)


def test_the_wait_grows_to_its_limit_and_no_further(bench: Bench) -> None:
    """Eight hours without an answer cost a probe every one to two minutes, not one a second."""
    bench.open()
    now = START
    for _ in range(8 * 3600 // 5):
        now += timedelta(seconds=5)
        if bench.breaker.permits("archive", now):
            bench.breaker.ready(PEER, now)
    assert 8 * 30 <= bench.probes <= 8 * 62


def test_one_that_answers_the_probe_and_fails_again_opens_at_once(bench: Bench) -> None:
    """C-ECHO alone does not count as health."""
    bench.open()
    bench.answers = True
    later = START + timedelta(seconds=40)
    assert bench.breaker.ready(PEER, later)
    bench.breaker.failed("archive", later, "rejected")
    assert not bench.breaker.permits("archive", later)
    bench.breaker.ready(PEER, later + timedelta(seconds=61))
    bench.breaker.succeeded("archive", later + timedelta(seconds=61))
    bench.breaker.failed("archive", later + timedelta(seconds=62))
    assert bench.breaker.permits("archive", later + timedelta(seconds=62))


def test_a_clock_set_back_does_not_keep_it_open(bench: Bench) -> None:
    """A wait that began in the future is over."""
    bench.open(START + timedelta(days=365))
    assert bench.breaker.permits("archive", START)

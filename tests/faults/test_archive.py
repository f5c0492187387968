"""An archive that is down, refuses, is slow, or answers with every kind of status."""

import threading
import time
from pathlib import Path

import pytest

from node.deliver.breaker import CircuitBreaker
from node.dimse import scu
from tests.node.delivering import CT, Bench
from tests.node.scripted import ScriptedSCP
from tests.peers import LOOPBACK, free_port


@pytest.mark.parametrize(
    ("status", "first", "healed"),
    [
        (0xA700, "PENDING", "SENT"),
        (0xB000, "SENT", "SENT"),
        (0xC000, "DEAD", "DEAD"),
        (0x0122, "UNSUPPORTED", "UNSUPPORTED"),
    ],
)
def test_each_status_means_what_the_standard_says(
    tmp_path: Path, status: int, first: str, healed: str
) -> None:
    """A700 is tried again, B000 stored, C000 waits for a person, 0122 is left out; nothing goes twice."""
    bench = Bench(tmp_path, 5)
    with ScriptedSCP(CT, lambda number, _uid: status if number == 2 else 0x0000) as scp:
        bench.configure(scp.peer())
        bench.queue("archive")
        bench.step()
        assert bench.states() == ["SENT", first, "SENT", "SENT", "SENT"]
        bench.step(after=60)
        assert bench.states() == ["SENT", healed, "SENT", "SENT", "SENT"]
        assert len(scp.received) == 5 + (first == "PENDING")
    assert bench.outbox.close(30)
    bench.index.close()


def through(bench: Bench, seconds: float) -> float:
    """Step in real time until the healthy peer has everything; how long that took."""
    began = time.monotonic()
    while bench.states("healthy") != ["SENT"] * len(bench.files):
        bench.outbox.step(bench.now)
        time.sleep(0.005)
        assert time.monotonic() - began < seconds
    return time.monotonic() - began


@pytest.mark.parametrize("fault", ["down", "silent"])
def test_one_dead_archive_delays_no_other(tmp_path: Path, fault: str) -> None:
    """The healthy archive's queue takes as long beside a dead one as alone, within a tenth and 0.2 s."""
    took = {}
    for beside in (False, True):
        folder = tmp_path / str(beside)
        bench = Bench(folder, 40)
        breaker = CircuitBreaker(
            lambda bench=bench: bench.deliver,  # type: ignore[misc]  # bound now, of no further type
            lambda peer: scu.echo(peer, "AENODE", timeout=1),
            lambda *_: None,
        )
        bench.new_outbox(breaker=breaker)
        release = threading.Event()

        def slowly(_number: int, _uid: str, release: threading.Event = release) -> int:
            release.wait(20)
            return 0x0000

        with ScriptedSCP(CT) as healthy, ScriptedSCP(CT, slowly) as silent:
            dead = silent.peer("dead")
            if fault == "down":
                dead = dead.model_copy(update={"address": f"{LOOPBACK}:{free_port()}"})
            bench.configure(healthy.peer("healthy"), *([dead] if beside else []), timeout_seconds=2)
            bench.queue("healthy", "dead")
            took[beside] = through(bench, 30)
            release.set()
            assert bench.outbox.close(30)
        bench.index.close()
    assert took[True] <= 1.1 * took[False] + 0.2, took

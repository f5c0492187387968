"""One active router: leases, takeover and fencing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.index import Index, LeaseLost
from node.route.lease import ActiveRouter, is_dead, this_process
from tests.node.records import after, frozen, index_in, instance


@dataclass
class Hand:
    """A monotonic clock in the test's hand."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def indexes(tmp_path: Path, index_url: str) -> Iterator[tuple[Index, Index]]:
    pair = index_in(tmp_path, index_url), index_in(tmp_path, index_url)
    yield pair
    for index in pair:
        index.close()


def routers(indexes: tuple[Index, Index], hand: Hand) -> tuple[ActiveRouter, ActiveRouter]:
    first, second = indexes
    return (
        ActiveRouter(first, 12, holder="machine-a:x:1:1", monotonic=hand),
        ActiveRouter(second, 12, holder="machine-b:x:1:1", monotonic=hand),
    )


def test_one_is_active_while_it_beats(indexes: tuple[Index, Index], hand: Hand) -> None:
    """The other stands by, for as long as the first shows signs of life."""
    first, second = routers(indexes, hand)
    assert first.look()
    for _ in range(50):
        hand.at += 1
        assert first.look()
        assert not second.look()


def test_a_silent_one_is_replaced_and_fenced_off(indexes: tuple[Index, Index], hand: Hand) -> None:
    """A router that slept through its lease changes nothing when it wakes; it stands by."""
    first, second = routers(indexes, hand)
    first.look()
    assert not second.look()
    hand.at += 7
    assert not first.active, "it stops by itself before another may take over"
    hand.at += 5
    assert second.look()
    with pytest.raises(LeaseLost, match="another process has taken over"):
        indexes[0].add_instances([instance(1)])
    with pytest.raises(LeaseLost):
        indexes[0].require_lease()
    assert not first.look()
    assert second.look()
    frozen(indexes[1])


def test_a_release_hands_over_at_once(indexes: tuple[Index, Index], hand: Hand) -> None:
    """A stop is no death: nobody waits for a lease to run out."""
    first, second = routers(indexes, hand)
    first.look()
    first.release()
    assert second.look()


def test_two_that_try_at_once_get_one_lease(indexes: tuple[Index, Index], hand: Hand) -> None:
    """A lease is taken only as it was seen."""
    first, second = indexes
    assert first.take_lease("route", "a", None) == 1
    assert second.take_lease("route", "b", None) is None
    seen = second.lease("route")
    assert seen is not None
    first.beat_lease()
    assert second.take_lease("route", "b", seen) is None
    assert second.take_lease("route", "b", second.lease("route")) == 2
    with pytest.raises(LeaseLost):
        first.beat_lease()


def test_a_dead_process_of_this_machine_is_replaced_at_once(indexes: tuple[Index, Index], hand: Hand) -> None:
    """After kill -9 and a restart nobody waits for the lease."""
    code = "from node.route.lease import this_process; print(this_process(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stdin=-1, env=os.environ, text=True)
    assert child.stdout is not None
    holder = child.stdout.readline().strip()
    assert not is_dead(holder)
    assert not is_dead(this_process())
    ActiveRouter(indexes[0], 12, holder=holder, monotonic=hand).look()
    second = ActiveRouter(indexes[1], 12, monotonic=hand)
    assert not second.look()
    child.kill()
    child.communicate()
    assert is_dead(holder)
    assert second.look()


def test_the_receiver_is_not_fenced(indexes: tuple[Index, Index], hand: Hand) -> None:
    """Only who took a lease is bound by it."""
    first, second = routers(indexes, hand)
    first.look()
    indexes[1].add_instances([instance(1)])
    assert not second.look()
    assert indexes[1].status().instances == 1
    assert after(0) < after(1)

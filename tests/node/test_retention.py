"""What is removed from the disk, and above all what is not."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from node.deliver.retention import Retention
from node.states import DeliveryState, JobState, SeriesState
from tests.node.records import CONFIG, after
from tests.node.routing import Bench
from tests.series import series

DAY = 86_400


@pytest.fixture
def bench(tmp_path: Path, index_url: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, f'{CONFIG}[index]\nurl = "{index_url}"\n')
    yield bench
    bench.close()


def produce(bench: Bench, name: str, *, at: float = 0) -> None:
    """Receive a series, route it, and finish its jobs."""
    bench.now = after(at)
    bench.receive(series(3, 16, series=name), name=name)
    bench.settle(at + 10)
    for spec in bench.submitted:
        if not (bench.data / "results" / spec.job_id).exists():
            bench.finish(spec.job_id)
    bench.step(at + 60)


def settle_deliveries(bench: Bench, *states: DeliveryState, at: float) -> None:
    """Move every PENDING delivery through the states."""
    for state in states:
        before = DeliveryState.PENDING if state is not DeliveryState.PROVEN else DeliveryState.SENT
        for delivery in bench.index.deliveries_in(before):
            bench.index.record_delivery(delivery, state, after(at))


def purge(bench: Bench, at: float, *allowed: str, days: float = 1) -> int:
    settings = bench.file.settings
    retention = settings.retention.model_copy(update={"days": days, "purge": allowed or ("proven",)})
    bench.file.settings = settings.model_copy(update={"retention": retention})
    return Retention(bench.file, bench.index).step(after(at))


def spool_files(bench: Bench) -> int:
    return len(list((bench.data / "spool").rglob("*.dcm")))


def test_what_is_proven_and_old_goes_with_its_results(bench: Bench) -> None:
    """Spool, result folders and empty series folders are removed; the history stays."""
    produce(bench, "a")
    settle_deliveries(bench, DeliveryState.SENT, DeliveryState.PROVEN, at=100)
    assert purge(bench, 100 + DAY - 1) == 0, "not before the retention time is over"
    assert purge(bench, 101 + DAY) == 1
    assert spool_files(bench) == 0
    assert list((bench.data / "results").iterdir()) == []
    (report,) = bench.index.find(bench.revision().series_instance_uid)
    assert report.events[-1].state == "PURGED"
    assert purge(bench, 200 + DAY) == 0


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ((), None),
        ((DeliveryState.SENT,), "sent"),
        ((DeliveryState.DEAD,), "failed"),
        ((DeliveryState.UNSUPPORTED,), "failed"),
    ],
)
def test_age_alone_removes_nothing(bench: Bench, states: tuple[DeliveryState, ...], word: str | None) -> None:
    """PENDING, unproven and DEAD stay for ever; a setting that weakens this names what it gives up."""
    produce(bench, "a")
    settle_deliveries(bench, *states, at=100)
    assert purge(bench, 1000 * DAY) == 0
    assert spool_files(bench) == 3
    if word is None:
        assert purge(bench, 1000 * DAY, "proven", "sent", "ignored", "failed") == 0
    else:
        assert purge(bench, 1000 * DAY, "proven", word) == 1
        assert spool_files(bench) == 0


def test_what_a_peer_does_not_take_keeps_nothing_else_from_going(bench: Bench) -> None:
    """An archive without a kind of result would else fill the disk."""
    produce(bench, "a")
    left_out = bench.index.deliveries_in(DeliveryState.PENDING)[::2]
    for delivery in left_out:
        bench.index.record_delivery(delivery, DeliveryState.UNSUPPORTED, after(100))
    settle_deliveries(bench, DeliveryState.SENT, DeliveryState.PROVEN, at=100)
    assert purge(bench, 101 + DAY) == 1


def test_a_series_that_no_rule_wants_or_that_failed_stays(bench: Bench) -> None:
    """What we acknowledged and did nothing with is removed by its own word only."""
    bench.receive(series(2, 16, modality="MR", series="mr"))
    bench.settle(10)
    assert bench.states() == {SeriesState.IGNORED: 1}
    assert purge(bench, 1000 * DAY) == 0
    assert purge(bench, 1000 * DAY, "ignored") == 1
    bench.now = after(0)
    bench.receive(series(2, 16, series="bad"), name="b")
    bench.settle(10)
    for spec in bench.submitted:
        bench.fail(spec.job_id, "cannot be read")
    bench.step(60)
    assert {job.state for job in bench.jobs()} == {JobState.FAILED}
    assert purge(bench, 1000 * DAY, "proven", "sent", "ignored") == 0
    assert purge(bench, 1000 * DAY, "failed") == 1


def test_the_oldest_go_first(bench: Bench) -> None:
    """A portion begins with what was touched longest ago."""
    for number, name in enumerate(("late", "early")):
        produce(bench, name, at=5000 - 4000 * number)
        settle_deliveries(bench, DeliveryState.SENT, DeliveryState.PROVEN, at=5100 - 4000 * number)
    found = bench.index.purgeable(after(10 * DAY), ["proven"])
    assert [one.last_at for one in found] == sorted(one.last_at for one in found)
    assert len(found) == 2
    assert bench.index.purgeable(after(2000), ["proven"])[0] == found[0]


def test_a_late_slice_keeps_what_it_belongs_to(bench: Bench) -> None:
    """While a revision is open, the earlier ones' files stay."""
    produce(bench, "a")
    settle_deliveries(bench, DeliveryState.SENT, DeliveryState.PROVEN, at=100)
    bench.now = after(200)
    bench.receive(series(4, 16, series="a")[3:], name="late")
    assert purge(bench, 100 * DAY, "proven", "sent", "ignored", "failed") == 0
    assert spool_files(bench) == 4


def test_a_slice_that_comes_after_the_purge_asks_for_the_series_again(bench: Bench) -> None:
    """It is kept, its revision says what is missing, and a second send of the series cures it."""
    produce(bench, "a")
    settle_deliveries(bench, DeliveryState.SENT, DeliveryState.PROVEN, at=100)
    assert purge(bench, 2 * DAY) == 1
    bench.now = after(2 * DAY)
    bench.receive(series(4, 16, series="a")[3:], name="late")
    bench.settle(2 * DAY + 10)
    assert bench.states() == {SeriesState.ROUTED: 1, SeriesState.QUARANTINED: 1}
    assert "3 were removed after their retention: send the series again" in bench.revision(2).reason
    bench.now = after(2 * DAY + 100)
    bench.receive(series(4, 16, series="a"), name="again")
    bench.settle(2 * DAY + 200)
    assert bench.revision(3).state is SeriesState.ROUTED
    assert len(bench.submitted[-1].instances) == 4


def test_a_clock_set_back_makes_no_wait_endless(bench: Bench) -> None:
    """Times that lie ahead of the clock are brought back to it."""
    produce(bench, "a")
    bench.now = after(365 * DAY)
    bench.receive(series(3, 16, series="b"), name="b")
    for delivery in bench.index.deliveries_in(DeliveryState.PENDING)[:1]:
        bench.index.record_delivery(
            delivery, DeliveryState.PENDING, after(100), next_attempt_at=after(365 * DAY)
        )
    now = after(200)
    assert bench.index.mend_future(now, now + timedelta(hours=1)) >= 2
    assert len(bench.index.due_deliveries("archive", now, 100)) == 4
    bench.settle(240)
    assert bench.states() == {SeriesState.ROUTED: 2}
    assert bench.index.mend_future(bench.now, bench.now + timedelta(hours=1)) == 0

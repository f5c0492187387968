"""What becomes of a job: heartbeat, lease, result folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.entities import Delivery, Job
from node.errors import IllegalTransition
from node.index import DeliveryOutcome, Index
from node.states import DeliveryState, JobState
from tests.node.records import CONFIG
from tests.node.routing import Bench
from tests.series import series

SENT = DeliveryState.SENT


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with one job, submitted at 32 s."""
    made = Bench(tmp_path, CONFIG.replace('["ct-denoise", "ct-anomaly"]', '["ct-denoise"]'))
    made.receive(series(3, 16))
    made.settle(1)
    assert made.job().state is JobState.QUEUED
    yield made
    made.close()


def seen(job: Job) -> tuple[JobState, int]:
    return job.state, job.attempts


def due(index: Index, bench: Bench) -> list[str]:
    return [d.artifact.sop_instance_uid for d in index.due_deliveries("archive", bench.now, 100)]


def test_a_heartbeat_makes_a_job_run_under_a_lease(bench: Bench) -> None:
    """The first heartbeat is RUNNING, each further one renews the lease of a minute."""
    bench.beat(bench.job().id, 1)
    bench.step(40)
    assert seen(bench.job()) == (JobState.RUNNING, 1)
    for second in range(50, 600, 50):
        bench.beat(bench.job().id, second)
        bench.step(second)
    assert seen(bench.job()) == (JobState.RUNNING, 1)
    lease = bench.job().lease_until
    assert lease is not None
    assert (lease - bench.now).total_seconds() == 60


def test_a_silent_worker_loses_its_job(bench: Bench) -> None:
    """After a minute of silence the job is submitted again, and fails when its attempts are used up."""
    job_id = bench.job().id
    bench.beat(job_id, 1)
    bench.step(40)
    bench.step(99)
    assert seen(bench.job()) == (JobState.RUNNING, 1)
    bench.step(100)
    assert seen(bench.job()) == (JobState.QUEUED, 1)
    assert len(bench.submitted) == 1, "it waits out its backoff first"
    bench.step(106)
    assert [spec.job_id for spec in bench.submitted] == [job_id] * 2
    # The heartbeat that the dead worker left is no sign of life.
    bench.step(130)
    assert seen(bench.job()) == (JobState.QUEUED, 1)
    bench.beat(job_id, 2)
    bench.step(140)
    assert seen(bench.job()) == (JobState.RUNNING, 2)
    bench.step(200)
    assert bench.job().state is JobState.FAILED
    assert bench.job().reason == "its worker gave no sign of life for 60 s (tried 2 times)"
    assert len(bench.submitted) == 2


def test_a_result_becomes_deliveries(bench: Bench) -> None:
    """DONE, with a delivery of each artifact, and the model and its times in the timeline."""
    job = bench.job()
    manifest = bench.finish(
        job.id,
        model="ct-denoise 0.1.0",
        weights_sha256="ab",
        seconds={"model": 1.23456},
        notes=("1 localizer",),
    )
    bench.step(40)
    assert seen(bench.job()) == (JobState.DONE, 1)
    assert due(bench.index, bench) == [a.sop_instance_uid for a in manifest.artifacts]
    for delivery in bench.index.due_deliveries("archive", bench.now, 100):
        assert (bench.data / delivery.artifact.path).is_file()
    (event,) = [e for e in bench.index.find(job.id)[0].events if e.state == "DONE"]
    assert event.details == {
        "model": "ct-denoise 0.1.0",
        "weights_sha256": "ab",
        "seconds_model": 1.235,
        "notes": "1 localizer",
    }
    bench.step(41)
    assert len(due(bench.index, bench)) == 2


def test_a_failure_keeps_its_reason_and_can_be_requeued(bench: Bench) -> None:
    """The folder of the failure is set aside, so that the next attempt is seen as its own."""
    job_id = bench.job().id
    bench.fail(job_id, "Slice 3 is missing.")
    bench.step(40)
    assert (bench.job().state, bench.job().reason) == (JobState.FAILED, "Slice 3 is missing.")
    assert (bench.data / "results" / f"{job_id}.failed" / "manifest.json").is_file()
    bench.index.requeue_jobs(bench.now)
    bench.step(50)
    assert [spec.job_id for spec in bench.submitted] == [job_id] * 2
    assert bench.job().state is JobState.QUEUED
    bench.finish(job_id)
    bench.step(60)
    assert bench.job().state is JobState.DONE
    assert len(due(bench.index, bench)) == 2


def test_a_failure_that_may_pass_is_tried_again(bench: Bench) -> None:
    """A retryable failure returns to QUEUED until the attempts are used up."""
    job_id = bench.job().id
    bench.fail(job_id, "The device is busy.", retryable=True)
    bench.step(40)
    assert seen(bench.job()) == (JobState.QUEUED, 1)
    assert len(bench.submitted) == 1, "it waits out its backoff first"
    bench.step(46)
    assert len(bench.submitted) == 2
    bench.beat(job_id, 9)
    bench.step(50)
    bench.fail(job_id, "The device is busy.", retryable=True)
    bench.step(60)
    assert seen(bench.job()) == (JobState.FAILED, 2)
    assert bench.job().reason == "The device is busy. (tried 2 times)"


def damaged(name: str, change: Callable[[bytes], bytes], message: str) -> object:
    return pytest.param(change, message, id=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        damaged("garbage", lambda _: b"\x00\xff{", "is broken at: the text"),
        damaged("empty", lambda _: b"", "is broken at: the text"),
        damaged(
            "version", lambda text: text.replace(b'"version":1', b'"version":2'), "is broken at: version"
        ),
        damaged(
            "shape", lambda text: text.replace(b'"role":"derived"', b'"role":"x"', 1), "artifacts.0.role"
        ),
        damaged("other job", lambda text: text.replace(b'job_id":"', b'job_id":"f'), "is that of job f"),
        damaged("escape", lambda text: text.replace(b'"1.dcm"', b'"../../1.dcm"'), "outside of its folder"),
        damaged("absolute", lambda text: text.replace(b'"1.dcm"', b'"/etc/passwd"'), "outside of its folder"),
        damaged("no file", lambda text: text.replace(b'"1.dcm"', b'"7.dcm"'), "is missing"),
    ],
)
def test_a_broken_manifest_fails_the_job_alone(
    bench: Bench, change: Callable[[bytes], bytes], message: str
) -> None:
    """The reason says what is wrong, nothing of it is delivered, and the next result is taken."""
    job_id = bench.job().id
    bench.finish(job_id)
    path = bench.data / "results" / job_id / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    bench.step(40)
    assert bench.job().state is JobState.FAILED
    assert message in bench.job().reason
    assert bench.index.deliveries_in(DeliveryState.PENDING) == []
    bench.index.requeue_jobs(bench.now)
    bench.finish(job_id)
    bench.step(50)
    assert bench.job().state is JobState.DONE


def test_a_folder_without_a_manifest_fails_the_job(bench: Bench) -> None:
    """A result folder appears whole: without a manifest it never will have one."""
    (bench.data / "results" / bench.job().id).mkdir(parents=True)
    bench.step(40)
    assert (bench.job().state, bench.job().reason) == (
        JobState.FAILED,
        "the result folder has no manifest.json",
    )


def test_a_result_is_collected_while_the_broker_is_down(bench: Bench) -> None:
    """What the workers finish is delivered whether or not Redis lives."""
    bench.broker_is_down = True
    bench.beat(bench.job().id, 1)
    bench.step(40)
    bench.finish(bench.job().id)
    bench.step(41)
    assert bench.job().state is JobState.DONE


def test_a_router_that_died_goes_on_where_it_was(bench: Bench, tmp_path: Path) -> None:
    """A new router collects what the old one submitted, and submits nothing twice."""
    bench.beat(bench.job().id, 1)
    bench.step(40)
    bench.close()
    again = Bench(tmp_path, bench.file.path.read_text())
    again.step(50)
    again.finish(again.job().id)
    again.step(51)
    assert (seen(again.job()), again.submitted) == ((JobState.DONE, 1), [])
    again.close()


def test_a_failures_notice_is_delivered_from_where_it_was_set_aside(bench: Bench) -> None:
    """A capture that says why goes to the peers of the job; its file is where the delivery looks for it."""
    job_id = bench.job().id
    manifest = bench.finish(job_id, files=1, outcome="failed", reason="Slice 3 is missing.")
    bench.step(40)
    assert bench.job().state is JobState.FAILED
    (delivery,) = bench.index.due_deliveries("archive", bench.now, 100)
    assert delivery.artifact.sop_instance_uid == manifest.artifacts[0].sop_instance_uid
    assert (bench.data / delivery.artifact.path).is_file()


def fails_with_notice(bench: Bench, seconds: float) -> Delivery:
    """The job fails, and its notice is due."""
    bench.finish(bench.job().id, files=1, role="notice", outcome="failed", reason="A slice is missing.")
    bench.step(seconds)
    assert bench.job().state is JobState.FAILED
    (delivery,) = bench.index.due_deliveries("archive", bench.now, 100)
    return delivery


def states(bench: Bench) -> dict[str, str]:
    """The state of each delivery, by its role."""
    found = [d for state in DeliveryState for d in bench.index.deliveries_in(state)]
    return {d.artifact.role: d.state.value for d in found}


def reasons(bench: Bench) -> str:
    (report,) = bench.index.find(bench.job().id)
    return "\n".join(f"{event.state} {event.reason}" for event in report.events)


def test_a_notice_that_waits_is_withdrawn_with_the_requeue(bench: Bench) -> None:
    """An archive that was down must not be told of a failure after the result, not by `requeue` either."""
    fails_with_notice(bench, 40)
    assert len(bench.index.requeue_jobs(bench.now)) == 1
    assert bench.index.requeue_deliveries(bench.now, job_ids=[bench.job().id]) == []
    assert due(bench.index, bench) == []
    assert "WITHDRAWN withdrawn: its job runs again" in reasons(bench)
    bench.finish(bench.job().id, files=1)
    bench.step(60)
    assert bench.job().state is JobState.DONE
    assert states(bench) == {"notice": "WITHDRAWN", "derived": "PENDING"}
    bench.index.record_delivery(bench.index.due_deliveries("archive", bench.now, 9)[0], SENT, bench.now)
    (report,) = bench.index.find(bench.job().id)
    assert report.sent_at == bench.now, "what was withdrawn is not waited for"


def test_a_job_that_fails_again_as_before_sends_its_notice_after_all(bench: Bench) -> None:
    """The same sentence is the same instance, so its delivery is taken up again."""
    fails_with_notice(bench, 40)
    bench.index.requeue_jobs(bench.now)
    fails_with_notice(bench, 60)
    assert states(bench) == {"notice": "PENDING"}
    assert "PENDING its job failed again as before" in reasons(bench)


@pytest.mark.parametrize("state", [DeliveryState.DEAD, DeliveryState.UNSUPPORTED])
def test_a_notice_that_could_not_be_sent_is_withdrawn_too(bench: Bench, state: DeliveryState) -> None:
    """Else `requeue --peer` would send it later."""
    bench.index.record_delivery(fails_with_notice(bench, 40), state, bench.now, reason="refused")
    bench.index.requeue_jobs(bench.now)
    assert states(bench) == {"notice": "WITHDRAWN"}


def test_a_notice_that_the_archive_has_is_named_in_the_timeline(bench: Bench) -> None:
    """Nothing calls it back; a person who looks knows why both are there."""
    bench.index.record_delivery(fails_with_notice(bench, 40), SENT, bench.now)
    bench.index.requeue_jobs(bench.now)
    assert states(bench) == {"notice": "SENT"}
    assert "QUEUED requeued by hand; archive has its notice of no result already" in reasons(bench)


def test_a_notice_that_is_under_way_when_it_is_withdrawn_ends_as_the_truth(bench: Bench) -> None:
    """The peer's answer comes after the requeue: what it took, it has."""
    delivery = fails_with_notice(bench, 40)
    bench.index.requeue_jobs(bench.now)
    for state, written in ((DeliveryState.DEAD, False), (SENT, True), (SENT, False)):
        outcome = DeliveryOutcome(delivery=delivery, state=state, status=0, reason="stored (0x0000)")
        with pytest.raises(IllegalTransition):
            bench.index.record_deliveries([outcome], bench.now)
        assert bench.index.record_overtaken(outcome, bench.now) is written
    assert states(bench) == {"notice": "SENT"}
    assert "stored (0x0000); it was under way when it was withdrawn" in reasons(bench)


def test_a_rule_asks_for_notices(tmp_path: Path) -> None:
    """`notice = true` of a rule reaches the worker with its jobs; without it they say nothing of it."""
    for name, text in (("off", CONFIG), ("on", CONFIG.replace("send_to =", "notice = true\nsend_to ="))):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, text)
        bench.receive(series(3, 16))
        bench.settle(1)
        assert {spec.notice for spec in bench.submitted} == {name == "on"}
        bench.close()

"""Jobs, deliveries, and what people ask and tell the index about them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.entities import Delivery, Job
from node.errors import IllegalTransition
from node.index import DeliveryOutcome, Index
from node.states import DeliveryState, JobState, SeriesState
from tests.node.records import SERIES, STUDY, after, artifact, frozen, index_in, instance, new_job, queued_job


@pytest.fixture
def index(tmp_path: Path, index_url: str) -> Iterator[Index]:
    opened = index_in(tmp_path, index_url)
    yield opened
    opened.close()


def now_of(index: Index, job: Job) -> Job:
    found = index.job(job.id)
    assert found is not None
    return found


def sent(index: Index, deliveries: list[Delivery], at: float) -> None:
    outcomes = [DeliveryOutcome(delivery=d, state=DeliveryState.SENT, status=0) for d in deliveries]
    index.record_deliveries(outcomes, after(at))


def test_jobs_and_their_series_move_together(index: Index) -> None:
    """A revision becomes ROUTED in the transaction that makes its jobs."""
    revision = frozen(index)
    index.create_jobs(revision, [new_job(revision, 1), new_job(revision, 2)], after(11), "rule CT")
    assert index.series_revision(revision.id).state is SeriesState.ROUTED
    jobs = index.jobs_in(JobState.QUEUED)
    assert [(j.series_id, j.rule, j.send_to, j.attempts) for j in jobs] == [
        (revision.id, "CT", ("archive",), 0)
    ] * 2
    assert index.spec_of(jobs[0].id) == new_job(revision, 1).spec


def test_jobs_are_made_once(index: Index) -> None:
    """Two routers that decide on one revision make its jobs once."""
    revision = frozen(index)
    index.create_jobs(revision, [new_job(revision)], after(11))
    with pytest.raises(IllegalTransition):
        index.create_jobs(revision, [new_job(revision, 2)], after(12))
    assert len(index.jobs_in(JobState.QUEUED)) == 1


def test_a_lease_is_renewed_while_a_job_runs(index: Index) -> None:
    """Only a RUNNING job has its lease renewed."""
    job = queued_job(index)
    index.renew_lease(job.id, heartbeat=5, until=after(99))
    assert now_of(index, job).lease_until is None
    index.move(job, JobState.RUNNING, after(20), "attempt 1", attempts=1, lease_until=after(80))
    index.renew_lease(job.id, heartbeat=7, until=after(140))
    (submission,) = index.unfinished_jobs()
    assert (submission.heartbeat, submission.job.lease_until) == (7, after(140))


def test_a_result_is_collected_whole(index: Index) -> None:
    """DONE, the artifacts, and a delivery of each to each peer appear in one transaction."""
    job = queued_job(index, send_to=("archive", "other"))
    produced = [artifact(job, n) for n in range(3)]
    index.finish_job(job, JobState.DONE, after(30), produced=produced, peers=job.send_to)
    done = now_of(index, job)
    assert (done.state, done.attempts) == (JobState.DONE, 1)
    for peer in job.send_to:
        due = index.due_deliveries(peer, after(30), 10)
        assert [d.artifact for d in due] == produced
    assert index.due_deliveries("archive", after(29), 10) == []
    assert index.next_delivery_at("archive") == after(30)


def test_a_result_that_cannot_be_written_leaves_the_job(index: Index) -> None:
    """A job that another process finished is not finished twice, and gets no second deliveries."""
    job = queued_job(index)
    index.finish_job(job, JobState.DONE, after(30), produced=[artifact(job, 0)], peers=["archive"])
    with pytest.raises(IllegalTransition):
        index.finish_job(job, JobState.DONE, after(31), produced=[artifact(job, 1)], peers=["archive"])
    assert len(index.due_deliveries("archive", after(40), 10)) == 1


def test_a_job_is_retried_and_counted(index: Index) -> None:
    """A job that ran unseen is counted as begun when it returns to QUEUED, and is to be submitted anew."""
    job = queued_job(index)
    index.record_submission(job, after(12))
    index.retry_job(job, after(13), "the device was lost")
    (submission,) = index.unfinished_jobs()
    assert (submission.job.state, submission.job.attempts) == (JobState.QUEUED, 1)
    assert (submission.submitted_at, submission.submissions) == (None, 0)
    states = [e.state for e in index.find(job.id)[0].events if e.entity == "job"]
    assert states == ["QUEUED", "RUNNING", "QUEUED"]


def test_a_delivery_waits_out_its_backoff(index: Index) -> None:
    """A failed attempt stays PENDING with its status, reason and next time, and is counted."""
    job = queued_job(index)
    index.finish_job(job, JobState.DONE, after(30), produced=[artifact(job, 0)], peers=["archive"])
    (delivery,) = index.due_deliveries("archive", after(30), 10)
    index.record_delivery(
        delivery,
        DeliveryState.PENDING,
        after(31),
        status=0xA700,
        reason="out of resources",
        next_attempt_at=after(36),
    )
    assert index.due_deliveries("archive", after(35), 10) == []
    (again,) = index.due_deliveries("archive", after(36), 10)
    assert (again.attempts, again.status, again.reason) == (1, 0xA700, "out of resources")
    assert index.find(job.id)[0].events[-1].reason == "out of resources"


def test_outcomes_of_a_batch_are_written_together(index: Index) -> None:
    """One delivery that is no longer in its state leaves the whole batch unwritten."""
    job = queued_job(index)
    index.finish_job(
        job, JobState.DONE, after(30), produced=[artifact(job, n) for n in range(3)], peers=["archive"]
    )
    due = index.due_deliveries("archive", after(30), 10)
    sent(index, due[2:], 31)
    with pytest.raises(IllegalTransition):
        sent(index, due, 32)
    assert len(index.deliveries_in(DeliveryState.SENT)) == 1
    sent(index, due[:2], 33)
    assert index.due_deliveries("archive", after(99), 10) == []


def test_requeue_returns_failed_jobs(index: Index) -> None:
    """A FAILED job is QUEUED again with its attempts counted anew; one that is not named stays."""
    failed, other = queued_job(index), queued_job(index, series="1.9")
    for job in (failed, other):
        index.finish_job(job, JobState.FAILED, after(30), "the series is one slice")
    assert now_of(index, failed).reason == "the series is one slice"
    assert [j.id for j in index.requeue_jobs(after(40), job_ids=[failed.id])] == [failed.id]
    assert (now_of(index, failed).state, now_of(index, failed).attempts) == (JobState.QUEUED, 0)
    assert now_of(index, other).state is JobState.FAILED
    assert [j.id for j in index.requeue_jobs(after(41))] == [other.id]
    assert index.requeue_jobs(after(42)) == []


def test_requeue_returns_dead_deliveries(index: Index) -> None:
    """A DEAD delivery is due again at once; one to another peer stays."""
    job = queued_job(index, send_to=("archive", "other"))
    index.finish_job(job, JobState.DONE, after(30), produced=[artifact(job, 0)], peers=job.send_to)
    for peer in job.send_to:
        (delivery,) = index.due_deliveries(peer, after(30), 10)
        index.record_delivery(delivery, DeliveryState.DEAD, after(31), status=0xA900, reason="refused")
    assert [d.peer for d in index.requeue_deliveries(after(40), peer="archive")] == ["archive"]
    (again,) = index.due_deliveries("archive", after(40), 10)
    assert again.attempts == 0
    assert index.due_deliveries("other", after(40), 10) == []
    assert len(index.requeue_deliveries(after(41), job_ids=[job.id])) == 1


def test_find_answers_to_every_name(index: Index) -> None:
    """Accession number, study, series, instance, job, result and result series name one report."""
    job = queued_job(index)
    index.finish_job(job, JobState.DONE, after(30), produced=[artifact(job, 0)], peers=["archive"])
    produced = artifact(job, 0)
    names = [
        "ACC-1",
        STUDY,
        SERIES,
        f"{SERIES}.2",
        job.id,
        produced.sop_instance_uid,
        produced.series_instance_uid,
    ]
    reports = [index.find(name) for name in names]
    assert all(found == reports[0] for found in reports)
    (report,) = reports[0]
    assert (report.series_instance_uid, report.accession_number) == (SERIES, "ACC-1")
    assert report.jobs[0].deliveries[0].peer == "archive"
    assert index.find("  ") == index.find("1.2") == index.find("%") == []


def test_find_tells_the_seconds_to_the_result(index: Index) -> None:
    """From the association's release to the last result sent; unknown while one is still to go."""
    index.open_association("a1", calling_ae="CT1", called_ae="AENODE", host="h", receiver="r", at=after(0))
    job = queued_job(index)
    index.close_association("a1", after(8))
    index.finish_job(
        job, JobState.DONE, after(30), produced=[artifact(job, n) for n in range(2)], peers=["archive"]
    )
    first, second = index.due_deliveries("archive", after(30), 10)
    sent(index, [first], 31)
    assert index.find(SERIES)[0].seconds_to_result is None
    sent(index, [second], 33.5)
    assert index.find(SERIES)[0].seconds_to_result == 25.5


def test_seconds_to_the_result_wait_for_every_job(index: Index) -> None:
    """While another job of the series still runs, its last result is not known."""
    index.open_association("a1", calling_ae="CT1", called_ae="AENODE", host="h", receiver="r", at=after(0))
    revision = frozen(index)
    new = [new_job(revision, 1), new_job(revision, 2)]
    index.create_jobs(revision, new, after(11))
    index.close_association("a1", after(8))
    for number, at in ((0, 30), (1, 40)):
        job = index.job(new[number].spec.job_id)
        assert job is not None
        assert index.find(SERIES)[0].seconds_to_result is None
        index.finish_job(job, JobState.DONE, after(at), produced=[artifact(job, 0)], peers=["archive"])
        sent(index, index.due_deliveries("archive", after(at), 10), at + 1)
    assert index.find(SERIES)[0].seconds_to_result == 33


def test_status_counts_what_is_where(index: Index) -> None:
    """Counts by state, the oldest of each queue, and each peer's share."""
    job = queued_job(index, send_to=("archive", "other"))
    queued_job(index, series="1.9")
    index.add_instances([instance(1, series="1.10"), instance(2, series="1.10", defect="cut")])
    index.finish_job(job, JobState.DONE, after(30), produced=[artifact(job, 0)], peers=job.send_to)
    sent(index, index.due_deliveries("other", after(30), 10), 31)
    found = index.status()
    assert found.series == {"RECEIVING": 1, "ROUTED": 2}
    assert found.jobs == {"DONE": 1, "QUEUED": 1}
    assert found.deliveries == {"PENDING": 1, "SENT": 1}
    assert (found.instances, found.defects, found.open_associations) == (8, 1, 0)
    assert found.oldest_receiving_at == instance(1).received_at
    assert (found.oldest_queued_at, found.oldest_pending_at) == (after(11), after(30))
    assert [(p.peer, p.deliveries, p.oldest_pending_at) for p in found.peers] == [
        ("archive", {"PENDING": 1}, after(30)),
        ("other", {"SENT": 1}, None),
    ]

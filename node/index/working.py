"""Jobs from the broker to their result: leases, attempts, what was produced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, func, select, update

from node.entities import Artifact, Job
from node.index import rows
from node.index.store import UNSUBMITTED, Store
from node.index.tables import artifacts, deliveries, jobs
from node.job import JobSpec, Role
from node.states import AT_PEER, TRANSITIONS, DeliveryState, JobState

_NOTICE: Role = "notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job that has no result yet, with what the broker and its worker were last seen to do."""

    job: Job
    submitted_at: datetime | None  # when the broker last took it
    submissions: int  # how often it took it since the job became QUEUED
    heartbeat: int  # ns; mtime of the last heartbeat seen, 0 for none
    not_before: datetime | None = None  # the backoff after a failed attempt


class Working(Store):
    """The part of the index that follows jobs."""

    def job(self, id: str) -> Job | None:
        """One job."""
        with self._read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == id)).first()
            return None if row is None else rows.job(row)

    def jobs_in(self, state: JobState) -> list[Job]:
        """The jobs in a state, oldest first."""
        with self._read() as connection:
            found = connection.execute(select(jobs).where(jobs.c.state == state).order_by(jobs.c.created_at))
            return [rows.job(row) for row in found]

    def unfinished_jobs(self) -> list[Submission]:
        """The QUEUED and RUNNING jobs, STAT before routine, then the oldest first."""
        columns = [column for column in jobs.c if column is not jobs.c.spec]
        query = select(*columns).where(jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]))
        with self._read() as connection:
            return [
                Submission(
                    job=rows.job(row),
                    submitted_at=row.submitted_at,
                    submissions=row.submissions,
                    heartbeat=row.heartbeat,
                    not_before=row.not_before,
                )
                for row in connection.execute(query.order_by(jobs.c.priority, jobs.c.created_at, jobs.c.id))
            ]

    def is_as_seen(self, submission: Submission) -> bool:
        """Whether a job still waits as it was read: nobody has handed it over or moved it since."""
        query = select(jobs.c.state, jobs.c.submissions, jobs.c.submitted_at).where(
            jobs.c.id == submission.job.id
        )
        with self._read() as connection:
            row = connection.execute(query).one()
            return (row.state, row.submissions, row.submitted_at) == (
                submission.job.state,
                submission.submissions,
                submission.submitted_at,
            )

    def spec_of(self, job_id: str) -> JobSpec:
        """What a job's worker is told."""
        with self._read() as connection:
            return JobSpec.from_json(
                connection.execute(select(jobs.c.spec).where(jobs.c.id == job_id)).scalar_one()
            )

    def record_submission(self, job: Job, at: datetime) -> None:
        """Note that the broker took a job."""
        with self._write(durable=False) as connection:
            changed = connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.state == JobState.QUEUED)
                .values(submitted_at=at, submissions=jobs.c.submissions + 1)
                .returning(jobs.c.submissions)
            ).scalar()
            if changed is not None and changed > 1:
                uid = self._series_uid(connection, job)
                reason = "no worker has begun it; handed to the broker again"
                self._note(connection, uid, "job", job.id, JobState.QUEUED, at, reason)

    def retry_job(self, job: Job, at: datetime, reason: str, *, not_before: datetime | None = None) -> None:
        """Return a job to QUEUED, to be handed to the broker again at `not_before`.

        One that ran unseen counts as begun.
        """
        with self._write() as connection:
            if job.state is JobState.QUEUED:
                self._move(connection, job, JobState.RUNNING, at, "", attempts=job.attempts + 1, begun_at=at)
                job = replace(job, state=JobState.RUNNING)
            waits = UNSUBMITTED | {"not_before": not_before}
            self._move(connection, job, JobState.QUEUED, at, reason, **waits)

    def renew_lease(self, job_id: str, *, heartbeat: int, until: datetime) -> None:
        """A RUNNING job's worker was seen to live."""
        with self._write(durable=False) as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING)
                .values(heartbeat=heartbeat, lease_until=until)
            )

    def last_begun(self, priority: int) -> tuple[datetime | None, datetime | None]:
        """When a job of a queue was last seen to begin, and the latest submission among those that began."""
        query = select(func.max(jobs.c.begun_at), func.max(jobs.c.submitted_at)).where(
            jobs.c.begun_at.is_not(None),
            jobs.c.begun_at >= jobs.c.submitted_at,
            jobs.c.priority == priority,
        )
        with self._read() as connection:
            begun, submitted = connection.execute(query).one()
            return begun, submitted

    def finish_job(
        self,
        job: Job,
        state: JobState,
        at: datetime,
        reason: str = "",
        *,
        produced: Sequence[Artifact] = (),
        peers: Sequence[str] = (),
        details: dict[str, str | int | float] | None = None,
    ) -> None:
        """Move a job to DONE or FAILED with its artifacts and their deliveries, in one transaction."""
        values: dict[str, object] = {"lease_until": None}
        if job.state is JobState.QUEUED:  # it ran unseen
            values |= {"begun_at": at, "attempts": job.attempts + 1}
        with self._write() as connection:
            self._move(connection, job, state, at, reason, details=details, **values)
            self._add_deliveries(connection, job, produced, peers, at)

    def add_deliveries(
        self, job: Job, produced: Sequence[Artifact], peers: Sequence[str], at: datetime
    ) -> None:
        """List a job's artifacts, and a PENDING delivery of each to each peer; twice changes nothing."""
        with self._write() as connection:
            self._add_deliveries(connection, job, produced, peers, at)

    def _add_deliveries(
        self,
        connection: Connection,
        job: Job,
        produced: Sequence[Artifact],
        peers: Sequence[str],
        at: datetime,
    ) -> None:
        if not produced:
            return
        listed = [
            {
                "job_id": job.id,
                "sop_instance_uid": a.sop_instance_uid,
                "sop_class_uid": a.sop_class_uid,
                "series_instance_uid": a.series_instance_uid,
                "transfer_syntax_uid": a.transfer_syntax_uid,
                "role": a.role,
                "path": str(a.path),
            }
            for a in produced
        ]
        self._insert_new(connection, artifacts, listed)
        ids = connection.execute(
            select(artifacts.c.id).where(artifacts.c.job_id == job.id).order_by(artifacts.c.id)
        ).scalars()
        first = {"job_id": job.id, "state": "PENDING", "attempts": 0, "next_attempt_at": at, "created_at": at}
        first["priority"] = job.priority
        pending = [first | {"artifact_id": id, "peer": peer} for id in ids for peer in peers]
        self._insert_new(connection, deliveries, pending)
        self._restore(connection, job, [artifact.sop_instance_uid for artifact in produced], at)
        uid = self._series_uid(connection, job)
        for peer in peers:
            self._note(
                connection, uid, "delivery", job.id, "PENDING", at, f"{len(produced)} instances to {peer}"
            )

    def _restore(self, connection: Connection, job: Job, uids: Sequence[str], at: datetime) -> None:
        """A notice that was withdrawn is true again where its job failed for the same reason."""
        query = rows.deliveries_with_artifacts().where(
            deliveries.c.job_id == job.id,
            deliveries.c.state == DeliveryState.WITHDRAWN,
            artifacts.c.sop_instance_uid.in_(uids),
        )
        for row in connection.execute(query).all():
            reason = "its job failed again as before"
            withdrawn, now = rows.delivery(row), DeliveryState.PENDING
            self._move(connection, withdrawn, now, at, reason, attempts=0, next_attempt_at=at)

    def requeue_jobs(
        self, at: datetime, *, job_ids: Sequence[str] | None = None, reason: str = "requeued by hand"
    ) -> list[Job]:
        """Return FAILED jobs to QUEUED, with their attempts counted anew; all of them, or those named.

        Their notices of no result are withdrawn; the timeline names the peers that have them already.
        """
        query = select(jobs).where(jobs.c.state == JobState.FAILED).order_by(jobs.c.created_at)
        if job_ids is not None:
            query = query.where(jobs.c.id.in_(job_ids))
        with self._write() as connection:
            failed = [rows.job(row) for row in connection.execute(query)]
            for job in failed:
                waits = UNSUBMITTED | {"not_before": None}
                told = self._withdraw_notices(connection, job, at)
                said = f"{reason}; {told} has its notice of no result already" if told else reason
                self._move(connection, job, JobState.QUEUED, at, said, attempts=0, **waits)
            return failed

    def _withdraw_notices(self, connection: Connection, job: Job, at: datetime) -> str:
        """Stop a job's notices that are still to go; the names of the peers that have one."""
        query = rows.deliveries_with_artifacts().where(
            deliveries.c.job_id == job.id, artifacts.c.role == _NOTICE
        )
        notices = [rows.delivery(row) for row in connection.execute(query.order_by(deliveries.c.id))]
        for notice in notices:
            if DeliveryState.WITHDRAWN in TRANSITIONS[notice.state]:
                details = {"peer": notice.peer}
                reason = "withdrawn: its job runs again"
                self._move(connection, notice, DeliveryState.WITHDRAWN, at, reason, details=details)
        return ", ".join(sorted({notice.peer for notice in notices if notice.state in AT_PEER}))

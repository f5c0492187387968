"""Results that others supersede, and the notes that retire them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select, update

from node.entities import Artifact, Job
from node.index import rows
from node.index.tables import artifacts, deliveries, jobs
from node.index.working import Working
from node.states import AT_PEER, PASSED_OVER, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A job whose results are with the peers that take them, and the older ones that it retires."""

    job: Job
    produced: tuple[Artifact, ...]
    retired: tuple[Artifact, ...]  # those that a peer holds


class Retiring(Working):
    """The part of the index that rejection notes need."""

    def due_retirements(self, limit: int = 20) -> list[Retirement]:
        """Jobs whose note is to be made now."""
        of_job = deliveries.c.job_id == jobs.c.id
        missing = exists().where(of_job, deliveries.c.state.not_in(AT_PEER | PASSED_OVER))
        some = exists().where(of_job, deliveries.c.state.in_(AT_PEER))
        query = (
            select(jobs)
            .where(
                jobs.c.state == JobState.DONE,
                jobs.c.retires.is_not(None),
                jobs.c.retired_at.is_(None),
                some,
                ~missing,
            )
            .limit(limit)
        )
        with self._read() as connection:
            found = []
            for row in connection.execute(query).all():
                ids: Sequence[str] = row.retires or ()
                if not ids:
                    continue
                made = select(artifacts).order_by(artifacts.c.id)
                held = exists().where(
                    deliveries.c.artifact_id == artifacts.c.id, deliveries.c.state.in_(AT_PEER)
                )
                produced = connection.execute(made.where(artifacts.c.job_id == row.id))
                retired = connection.execute(made.where(artifacts.c.job_id.in_(ids), held))
                found.append(
                    Retirement(
                        job=rows.job(row),
                        produced=tuple(rows.artifact(one) for one in produced),
                        retired=tuple(rows.artifact(one) for one in retired),
                    )
                )
            return found

    def record_retirement(self, retirement: Retirement, note: Artifact | None, at: datetime) -> None:
        """List a note and its deliveries; None where there was nothing to retire."""
        job = retirement.job
        with self._write() as connection:
            changed = connection.execute(
                update(jobs).where(jobs.c.id == job.id, jobs.c.retired_at.is_(None)).values(retired_at=at)
            )
            if changed.rowcount and note is not None:
                # `_add_deliveries` lists every artifact of the job; those it knows stay as they are.
                self._add_deliveries(connection, job, [note], job.send_to, at)
                reason = f"a rejection note retires {len(retirement.retired)} older results"
                uid = self._series_uid(connection, job)
                self._note(connection, uid, "job", job.id, job.state, at, reason)

"""Results that others supersede, and the notes that retire them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select, update

from node.entities import Artifact, Job
from node.index import rows
from node.index.tables import artifacts, deliveries, jobs
from node.index.working import Working
from node.states import DeliveryState, JobState

_KEPT = (DeliveryState.SENT, DeliveryState.PROVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A job whose results are all with their peers, and the older results that it retires."""

    job: Job
    produced: tuple[Artifact, ...]
    retired: tuple[Artifact, ...]  # those that a peer holds


class Retiring(Working):
    """The part of the index that rejection notes need."""

    def due_retirements(self, limit: int = 20) -> list[Retirement]:
        """Jobs whose note is to be made now."""
        missing = exists().where(deliveries.c.job_id == jobs.c.id, deliveries.c.state.not_in(_KEPT))
        some = exists().where(deliveries.c.job_id == jobs.c.id)
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
                    deliveries.c.artifact_id == artifacts.c.id, deliveries.c.state.in_(_KEPT)
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

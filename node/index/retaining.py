"""What may be removed from the disk: only what is settled, proven where that is asked for, and old.

A series is settled when none of its revisions waits for anything, none of its jobs runs, and none
of its deliveries is under way. What may go then depends on how its parts ended: `retention.purge`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, Select, case, exists, func, select, type_coerce, update

from node.index.store import Store, chunks
from node.index.tables import Instant, associations, deliveries, instances, jobs, series
from node.states import DeliveryState, JobState, SeriesState

_SKEW = timedelta(seconds=5)
_OF_REVISION = {SeriesState.IGNORED: "ignored", SeriesState.QUARANTINED: "failed"}
_OF_DELIVERY = {  # without those that were passed over
    DeliveryState.PENDING: "busy",
    DeliveryState.SENT: "sent",
    DeliveryState.PROVEN: "proven",
    DeliveryState.DEAD: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Purgeable:
    """A settled series that nobody has touched for the retention time."""

    series_instance_uid: str
    last_at: datetime  # the last instance or delivery
    ended: frozenset[str]  # "proven", "sent", "ignored", "failed": how its parts ended
    job_ids: tuple[str, ...]
    paths: tuple[PurePosixPath, ...]  # of the spool, relative to the data folder


class Retaining(Store):
    """The retention's part of the index."""

    def purgeable(self, before: datetime, allowed: Iterable[str], limit: int = 20) -> list[Purgeable]:
        """Series last touched before a time, oldest first, all of whose parts ended as `allowed` says."""
        permitted = frozenset(allowed)
        found: list[Purgeable] = []
        with self._read() as connection:
            for row in connection.execute(_settled(before)):
                candidate = _described(connection, row.series_instance_uid, row.last_at)
                if candidate.last_at < before and candidate.ended <= permitted:
                    found.append(candidate)
                if len(found) >= limit:
                    break
        return sorted(found, key=lambda one: one.last_at)

    def record_purge(self, purged: Purgeable, at: datetime) -> None:
        """Note that a series' files are gone; the rows stay, so that its history can be told."""
        with self._write() as connection:
            for chunk in chunks([str(path) for path in purged.paths]):
                connection.execute(
                    update(instances)
                    .where(
                        instances.c.series_instance_uid == purged.series_instance_uid,
                        instances.c.path.in_(chunk),
                    )
                    .values(purged_at=at)
                )
            how = ", ".join(sorted(purged.ended))
            self._note(
                connection,
                purged.series_instance_uid,
                "series",
                purged.series_instance_uid,
                "PURGED",
                at,
                f"{len(purged.paths)} instances and {len(purged.job_ids)} results removed ({how})",
            )

    def purged_of(self, series_instance_uid: str) -> int:
        """How many instances of a series were removed from the spool."""
        query = select(func.count()).where(
            instances.c.series_instance_uid == series_instance_uid, instances.c.purged_at.is_not(None)
        )
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def spooled_bytes(self, calling_ae: str) -> int:
        """Bytes of the spool that came from a calling AE title."""
        query = select(func.coalesce(func.sum(instances.c.size), 0)).where(
            instances.c.calling_ae == calling_ae, instances.c.purged_at.is_(None)
        )
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def mend_future(self, now: datetime, waits_until: datetime) -> int:
        """Bring times that lie ahead of the clock back to it, after the clock was set back; how many.

        `waits_until` is how far ahead a wait may rightly end; what has happened lies at most a few
        seconds ahead, the difference of two machines' clocks.
        """
        happened = now + _SKEW
        ahead = (
            (
                deliveries,
                deliveries.c.state.in_(["PENDING", "SENT"]),
                deliveries.c.next_attempt_at,
                waits_until,
            ),
            (jobs, jobs.c.state == JobState.QUEUED, jobs.c.not_before, waits_until),
            (jobs, jobs.c.state == JobState.RUNNING, jobs.c.lease_until, waits_until),
            (jobs, jobs.c.state.in_(["QUEUED", "RUNNING"]), jobs.c.submitted_at, happened),
            (jobs, jobs.c.state.in_(["QUEUED", "RUNNING"]), jobs.c.begun_at, happened),
            (series, series.c.state == SeriesState.RECEIVING, series.c.last_instance_at, happened),
            (associations, associations.c.closed_at.is_not(None), associations.c.closed_at, happened),
        )
        with self._read() as connection:
            wrong = [
                (table, where, column, limit)
                for table, where, column, limit in ahead
                if connection.execute(select(exists().where(where, column > limit))).scalar()
            ]
        if not wrong:
            return 0
        with self._write() as connection:
            return sum(
                connection.execute(update(table).where(where, column > limit).values({column: now})).rowcount
                for table, where, column, limit in wrong
            )


def _settled(before: datetime) -> Select[Any]:
    """Series without a revision that waits, last received before a time, with files left; oldest first."""
    waiting = case((series.c.state.in_([SeriesState.RECEIVING, SeriesState.COMPLETE]), 1), else_=0)
    last_at = func.max(series.c.last_instance_at)
    left = exists().where(
        instances.c.series_instance_uid == series.c.series_instance_uid, instances.c.purged_at.is_(None)
    )
    return (
        select(series.c.series_instance_uid, type_coerce(last_at, Instant).label("last_at"))
        .where(left)
        .group_by(series.c.series_instance_uid)
        .having(func.sum(waiting) == 0, last_at < before)
        .order_by(last_at, series.c.series_instance_uid)
    )


def _described(connection: Connection, uid: str, last_at: datetime) -> Purgeable:
    found = connection.execute(
        select(jobs.c.id, jobs.c.state).join(series).where(series.c.series_instance_uid == uid)
    ).all()
    states = connection.execute(select(series.c.state).where(series.c.series_instance_uid == uid)).scalars()
    ended = {_OF_REVISION[state] for state in states if state in _OF_REVISION}
    for job in found:
        if job.state != JobState.DONE:
            ended.add("failed" if job.state == JobState.FAILED else "busy")
            continue
        sent = connection.execute(
            select(deliveries.c.state, func.max(deliveries.c.sent_at).label("at"))
            .where(deliveries.c.job_id == job.id)
            .group_by(deliveries.c.state)
        ).all()
        ways = {_OF_DELIVERY[row.state] for row in sent if row.state in _OF_DELIVERY}
        # What one peer does not take is no reason to keep the rest; where nothing was taken, it is.
        left_out = any(row.state == DeliveryState.UNSUPPORTED for row in sent)
        ended.update(ways or ({"failed"} if left_out else ()))
        last_at = max([last_at, *(row.at for row in sent if row.at is not None)])
    kept = connection.execute(
        select(instances.c.path, instances.c.defect).where(
            instances.c.series_instance_uid == uid, instances.c.purged_at.is_(None)
        )
    ).all()
    if any(row.defect for row in kept):
        ended.add("failed")  # set apart: somebody may want to look at it
    return Purgeable(
        series_instance_uid=uid,
        last_at=last_at,
        ended=frozenset(ended),
        job_ids=tuple(job.id for job in found),
        paths=tuple(PurePosixPath(row.path) for row in kept),
    )

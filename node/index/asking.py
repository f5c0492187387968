"""What people ask of the index: find and status."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, func, literal_column, or_, select

from node.entities import Delivery, Event, Instance, Job, SeriesRevision
from node.index import rows
from node.index.store import Store
from node.index.tables import (
    artifacts,
    associations,
    breakers,
    carriers,
    deliveries,
    instances,
    jobs,
    series,
    timeline,
)
from node.states import AT_PEER, PASSED_OVER, DeliveryState, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """A job and where its results are on their way."""

    job: Job
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """All that is known of one series: its revisions, what was set apart, its jobs, its timeline."""

    series_instance_uid: str
    study_instance_uid: str
    accession_number: str
    revisions: tuple[SeriesRevision, ...]
    defects: tuple[Instance, ...]
    jobs: tuple[JobReport, ...]
    events: tuple[Event, ...]
    released_at: datetime | None  # release of the last association that carried it
    sent_at: datetime | None  # when the last result was sent; None while one is still to go

    @property
    def seconds_to_result(self) -> float | None:
        """From the association's release to the last result sent."""
        if self.released_at is None or self.sent_at is None:
            return None
        return (self.sent_at - self.released_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One peer's queue."""

    peer: str
    deliveries: dict[str, int]  # by state
    oldest_pending_at: datetime | None
    breaker: str = "CLOSED"  # "OPEN" while the peer is only probed
    breaker_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How much of what is in which state; states that nothing is in are left out."""

    series: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    instances: int
    defects: int
    open_associations: int
    oldest_receiving_at: datetime | None
    oldest_queued_at: datetime | None
    oldest_pending_at: datetime | None
    peers: tuple[PeerStatus, ...]


class Asking(Store):
    """The people's part of the index."""

    def find(self, text: str) -> list[SeriesReport]:
        """Every series that an accession number, a UID or a job id names, oldest first.

        A UID may be that of a study, a series, an instance, or of a result or its series.
        """
        text = text.strip()
        with self._read() as connection:
            return [self._report(connection, uid) for uid in _named(connection, text)]

    def _report(self, connection: Connection, uid: str) -> SeriesReport:
        revisions = tuple(
            rows.series_revision(row)
            for row in connection.execute(
                select(series).where(series.c.series_instance_uid == uid).order_by(series.c.revision)
            )
        )
        defects = tuple(
            rows.instance(row)
            for row in connection.execute(
                select(instances)
                .where(instances.c.series_instance_uid == uid, instances.c.defect != "")
                .order_by(instances.c.id)
            )
        )
        ids = [r.id for r in revisions]
        found = connection.execute(
            select(jobs).where(jobs.c.series_id.in_(ids)).order_by(jobs.c.created_at, jobs.c.id)
        ).all()
        reports = tuple(
            JobReport(
                job=rows.job(row),
                deliveries=tuple(
                    rows.delivery(d)
                    for d in connection.execute(
                        rows.deliveries_with_artifacts()
                        .where(deliveries.c.job_id == row.id)
                        .order_by(deliveries.c.id)
                    )
                ),
            )
            for row in found
        )
        events = tuple(
            rows.event(row)
            for row in connection.execute(
                select(timeline).where(timeline.c.series_instance_uid == uid).order_by(timeline.c.id)
            )
        )
        released, sent = _span(connection, ids, reports)
        first = revisions[0] if revisions else None
        return SeriesReport(
            series_instance_uid=uid,
            study_instance_uid=first.study_instance_uid if first else defects[0].study_instance_uid,
            accession_number=next(
                (r.accession_number for r in reversed(revisions) if r.accession_number), ""
            ),
            revisions=revisions,
            defects=defects,
            jobs=reports,
            events=events,
            released_at=released,
            sent_at=sent,
        )

    def status(self) -> Status:
        """Counts by state, the age of each queue, and each peer's share."""
        with self._read() as connection:

            def oldest(table: Table, column: str, state: str) -> datetime | None:
                query = select(func.min(table.c[column])).where(table.c.state == state)
                found: datetime | None = connection.execute(query).scalar()
                return found

            peers: dict[str, dict[str, int]] = {}
            counted = select(deliveries.c.peer, deliveries.c.state, func.count()).group_by(
                deliveries.c.peer, deliveries.c.state
            )
            for peer, state, count in connection.execute(counted):
                peers.setdefault(peer, {})[state] = count
            waiting = {
                row.peer: row.oldest
                for row in connection.execute(
                    select(deliveries.c.peer, func.min(deliveries.c.created_at).label("oldest"))
                    .where(deliveries.c.state == DeliveryState.PENDING)
                    .group_by(deliveries.c.peer)
                )
            }
            cut_off = {row.peer: row for row in connection.execute(select(breakers))}
            total = select(func.count()).select_from(instances)
            return Status(
                series=_counts(connection, series),
                jobs=_counts(connection, jobs),
                deliveries=_counts(connection, deliveries),
                instances=connection.execute(total).scalar_one(),
                defects=connection.execute(total.where(instances.c.defect != "")).scalar_one(),
                open_associations=connection.execute(
                    select(func.count()).select_from(associations).where(associations.c.closed_at.is_(None))
                ).scalar_one(),
                oldest_receiving_at=oldest(series, "opened_at", "RECEIVING"),
                oldest_queued_at=oldest(jobs, "created_at", "QUEUED"),
                oldest_pending_at=oldest(deliveries, "created_at", "PENDING"),
                peers=tuple(
                    PeerStatus(
                        peer=peer,
                        deliveries=states,
                        oldest_pending_at=waiting.get(peer),
                        breaker=cut_off[peer].state if peer in cut_off else "CLOSED",
                        breaker_reason=cut_off[peer].reason if peer in cut_off else "",
                    )
                    for peer, states in sorted(peers.items())
                ),
            )


def _counts(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.state, func.count().label("number")).group_by(table.c.state)
    return {row.state: row.number for row in connection.execute(query)}


def _named(connection: Connection, text: str) -> list[str]:
    """The source series that a person's text names, in the order they came."""
    if not text:
        return []
    by_job = select(series.c.series_instance_uid).join_from(series, jobs)
    queries = (
        select(series.c.series_instance_uid)
        .where(
            or_(
                series.c.series_instance_uid == text,
                series.c.study_instance_uid == text,
                series.c.accession_number == text,
            )
        )
        .order_by(series.c.id),
        select(instances.c.series_instance_uid)
        .where(or_(instances.c.series_instance_uid == text, instances.c.sop_instance_uid == text))
        .distinct(),
        select(instances.c.series_instance_uid).where(
            # A literal, so that SQLite sees that the index of defects serves.
            instances.c.study_instance_uid == text,
            instances.c.defect != literal_column("''"),
        ),
        by_job.where(jobs.c.id == text),
        by_job.join(artifacts, artifacts.c.job_id == jobs.c.id).where(
            or_(artifacts.c.sop_instance_uid == text, artifacts.c.series_instance_uid == text)
        ),
    )
    found: dict[str, None] = {}
    for query in queries:
        found |= dict.fromkeys(connection.execute(query).scalars())
    return list(found)


def _span(
    connection: Connection, ids: Sequence[int], reports: Sequence[JobReport]
) -> tuple[datetime | None, datetime | None]:
    """Release of the last association of these revisions, and when their last result was sent."""
    released: datetime | None = connection.execute(
        select(func.max(associations.c.closed_at))
        .join(carriers, carriers.c.association == associations.c.id)
        .where(carriers.c.series_id.in_(ids))
    ).scalar()
    if not any(r.deliveries for r in reports):
        return released, None
    if any(r.job.state in (JobState.QUEUED, JobState.RUNNING) for r in reports):
        return released, None
    if any(d.state not in AT_PEER | PASSED_OVER for r in reports for d in r.deliveries):
        return released, None
    sent: datetime | None = connection.execute(
        select(func.max(deliveries.c.sent_at)).where(deliveries.c.job_id.in_([r.job.id for r in reports]))
    ).scalar()
    return released, sent

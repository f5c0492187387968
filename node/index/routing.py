"""What the router asks of revisions, and the jobs that it makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select

from node.entities import Instance, Job, SeriesRevision
from node.index import rows
from node.index.store import Store
from node.index.tables import artifacts, associations, carriers, instances, jobs, series
from node.job import JobSpec
from node.states import JobState, SeriesState


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be made: what the worker gets, and what becomes of the result."""

    spec: JobSpec
    rule: str
    send_to: tuple[str, ...]
    retires: tuple[str, ...] = ()  # ids of the jobs whose results a rejection note is to retire


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierJob:
    """A job of an earlier revision of a series, and the series that it produced."""

    job: Job
    revision: int
    result_series: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What came for a revision so far, and whether it may go on coming."""

    arrived: int  # SOP instances, those that were set apart included
    defects: int
    open_associations: int
    last_release_at: datetime | None


class Routing(Store):
    """The router's part of the index."""

    def series_in(self, state: SeriesState) -> list[SeriesRevision]:
        """The revisions in a state, oldest first."""
        with self._read() as connection:
            found = connection.execute(select(series).where(series.c.state == state).order_by(series.c.id))
            return [rows.series_revision(row) for row in found]

    def series_revision(self, id: int) -> SeriesRevision:
        """One revision. Raises sqlalchemy.exc.NoResultFound where there is none of that id."""
        with self._read() as connection:
            return rows.series_revision(connection.execute(select(series).where(series.c.id == id)).one())

    def instances_of(self, series_id: int) -> list[Instance]:
        """A revision's sound instances, those of earlier revisions included, by SOP Instance UID.

        Once the revision is frozen, this list never changes.
        """
        with self._read() as connection:
            found = connection.execute(_frozen(series_id).order_by(instances.c.sop_instance_uid))
            return [rows.instance(row) for row in found]

    def defects_of(self, series_instance_uid: str) -> list[Instance]:
        """What came for a series and was set apart."""
        query = select(instances).where(
            instances.c.series_instance_uid == series_instance_uid, instances.c.defect != ""
        )
        with self._read() as connection:
            return [rows.instance(row) for row in connection.execute(query.order_by(instances.c.id))]

    def earlier_jobs(self, revision: SeriesRevision) -> list[EarlierJob]:
        """The jobs of a series' revisions before this one, oldest first, with the series they produced."""
        query = (
            select(jobs, series.c.revision)
            .join(series)
            .where(
                series.c.series_instance_uid == revision.series_instance_uid,
                series.c.revision < revision.revision,
            )
            .order_by(series.c.revision, jobs.c.created_at, jobs.c.id)
        )
        produced = select(artifacts.c.series_instance_uid).distinct()
        with self._read() as connection:
            return [
                EarlierJob(
                    job=rows.job(row),
                    revision=row.revision,
                    result_series=tuple(
                        connection.execute(produced.where(artifacts.c.job_id == row.id)).scalars()
                    ),
                )
                for row in connection.execute(query)
            ]

    def arrival_of(self, revision: SeriesRevision) -> Arrival:
        """The evidence that the index has of a revision's completeness."""
        uid = revision.series_instance_uid
        of_series = (instances.c.series_instance_uid == uid, instances.c.own_result == revision.own_result)
        carried = select(
            func.count().filter(associations.c.closed_at.is_(None)), func.max(associations.c.closed_at)
        ).join(carriers, carriers.c.association == associations.c.id)
        with self._read() as connection:
            arrived = connection.execute(
                select(func.count(instances.c.sop_instance_uid.distinct())).where(*of_series)
            ).scalar_one()
            defects = connection.execute(
                select(func.count()).select_from(instances).where(*of_series, instances.c.defect != "")
            ).scalar_one()
            still_open, released = connection.execute(
                carried.where(carriers.c.series_id == revision.id)
            ).one()
        return Arrival(
            arrived=arrived, defects=defects, open_associations=still_open, last_release_at=released
        )

    def create_jobs(
        self,
        revision: SeriesRevision,
        new: Sequence[NewJob],
        at: datetime,
        reason: str = "",
        *,
        accession_number: str = "",
    ) -> None:
        """Make a revision's jobs and move it to ROUTED, in one transaction."""
        with self._write() as connection:
            self._move(
                connection, revision, SeriesState.ROUTED, at, reason, accession_number=accession_number
            )
            for job in new:
                row = {
                    "id": job.spec.job_id,
                    "series_id": revision.id,
                    "pipeline": job.spec.pipeline.name,
                    "rule": job.rule,
                    "send_to": list(job.send_to),
                    "state": JobState.QUEUED,
                    "attempts": 0,
                    "created_at": at,
                    "spec": job.spec.to_json(),
                    "priority": int(job.spec.priority),
                    "retires": list(job.retires) or None,
                }
                self._insert_new(connection, jobs, [row])
                self._note(
                    connection,
                    revision.series_instance_uid,
                    "job",
                    job.spec.job_id,
                    JobState.QUEUED,
                    at,
                    f"pipeline {job.spec.pipeline.name} by rule {job.rule!r}",
                )


def _frozen(series_id: int) -> Select[tuple[object, ...]]:
    this, joined = series.alias("this"), series.alias("joined")
    return (
        select(instances)
        .join(this, this.c.series_instance_uid == instances.c.series_instance_uid)
        .join(joined, joined.c.id == instances.c.series_id)
        .where(
            this.c.id == series_id,
            instances.c.defect == "",
            instances.c.own_result == this.c.own_result,
            joined.c.revision <= this.c.revision,
        )
    )

"""What the receiver writes: associations, instances, and the revisions that they open.

A revision belongs to a SeriesInstanceUID, whoever sends it: two peers that send one series
fill one revision, which keeps the AE titles of the association that opened it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Connection, case, func, insert, literal, select, update

from node.entities import Instance
from node.index.store import Store, chunks
from node.index.tables import Instant, artifacts, associations, carriers, instances, series
from node.states import SeriesState

_REBUILD_BATCH = 500


class Receiving(Store):
    """The receiver's part of the index."""

    def open_association(
        self, id: str, *, calling_ae: str, called_ae: str, host: str, receiver: str, at: datetime
    ) -> None:
        """Note an association; `receiver` names the process that serves it."""
        row = {
            "id": id,
            "calling_ae": calling_ae,
            "called_ae": called_ae,
            "host": host,
            "receiver": receiver,
            "opened_at": at,
        }
        with self._write(durable=False) as connection:
            self._insert_new(connection, associations, [row])

    def close_association(self, id: str, at: datetime) -> None:
        """Note an association's release or abort; a second time changes nothing."""
        with self._write(durable=False) as connection:
            connection.execute(
                update(associations)
                .where(associations.c.id == id, associations.c.closed_at.is_(None))
                .values(closed_at=at)
            )

    def close_stale_associations(self, receiver: str, at: datetime) -> int:
        """Close what a receiver left open when it died; called when it starts. How many there were."""
        with self._write(durable=False) as connection:
            closed = connection.execute(
                update(associations)
                .where(associations.c.receiver == receiver, associations.c.closed_at.is_(None))
                .values(closed_at=at)
            )
            return closed.rowcount

    def add_instances(self, batch: Sequence[Instance]) -> None:
        """List instances in one transaction; what is listed already changes nothing.

        A sound instance joins the RECEIVING revision of its series or opens the next one. Own
        results gather in a revision of their own, which is never routed. A defect joins none and
        stands in the timeline of its series. An identical duplicate opens nothing, yet it keeps a
        RECEIVING revision waiting: its sender is still at it.
        """
        if not batch:
            return
        by_series: dict[str, list[Instance]] = {}
        for instance in batch:
            by_series.setdefault(instance.series_instance_uid, []).append(instance)
        with self._write(durable=False) as connection:
            for arrived in by_series.values():
                self._add_to_series(connection, arrived)

    def _add_to_series(self, connection: Connection, arrived: list[Instance]) -> None:
        arrived = _with_own(connection, arrived)
        listed, sound = _listed(connection, arrived)
        joining: dict[bool, list[Instance]] = {}
        repeated: list[Instance] = []
        for instance in arrived:
            key = (instance.sop_instance_uid, instance.sha256)
            if key in listed:
                repeated.append(instance)
                continue
            listed.add(key)
            defect = instance.defect
            if not defect and instance.sop_instance_uid in sound:
                defect = "an instance of this SOP Instance UID with other content came earlier"
            if defect:
                self._add_defect(connection, instance, defect)
                continue
            sound.add(instance.sop_instance_uid)
            joining.setdefault(instance.own_result, []).append(instance)
        for own_result, joiners in joining.items():
            self._join(connection, joiners, own_result)
        self._restored(connection, repeated)
        for own_result in {i.own_result for i in repeated}:
            self._touch(connection, [i for i in repeated if i.own_result == own_result], own_result)

    def _add_defect(self, connection: Connection, instance: Instance, defect: str) -> None:
        connection.execute(insert(instances).values(_row(instance, None) | {"defect": defect}))
        self._note(
            connection,
            instance.series_instance_uid,
            "instance",
            instance.sop_instance_uid,
            "DEFECT",
            instance.received_at,
            defect,
        )

    def _join(self, connection: Connection, joiners: list[Instance], own_result: bool) -> None:
        first, last = joiners[0], max(i.received_at for i in joiners)
        revision = _receiving(connection, first.series_instance_uid, own_result)
        if revision is None:
            revision = self._open_revision(connection, first, own_result)
        connection.execute(insert(instances), [_row(i, revision) for i in joiners])
        connection.execute(
            update(series)
            .where(series.c.id == revision)
            .values(instances=series.c.instances + len(joiners), last_instance_at=_later(last))
        )
        self._carried(connection, revision, joiners)

    def _open_revision(self, connection: Connection, first: Instance, own_result: bool) -> int:
        """Insert the next revision of a series; its count begins with what earlier ones hold."""
        uid = first.series_instance_uid
        number = connection.execute(
            select(func.coalesce(func.max(series.c.revision), 0)).where(series.c.series_instance_uid == uid)
        ).scalar_one()
        earlier = connection.execute(
            select(func.count()).where(
                instances.c.series_instance_uid == uid,
                instances.c.own_result == own_result,
                instances.c.defect == "",
            )
        ).scalar_one()
        revision = connection.execute(
            insert(series)
            .values(
                series_instance_uid=uid,
                study_instance_uid=first.study_instance_uid,
                revision=number + 1,
                state=SeriesState.RECEIVING,
                calling_ae=first.calling_ae,
                called_ae=first.called_ae,
                opened_at=first.received_at,
                last_instance_at=first.received_at,
                instances=earlier,
                own_result=own_result,
            )
            .returning(series.c.id)
        ).scalar_one()
        reason = "own result (loop guard)" if own_result else f"late, after {earlier}" if earlier else ""
        self._note(
            connection,
            uid,
            "series",
            str(revision),
            SeriesState.RECEIVING,
            first.received_at,
            reason,
            {"revision": number + 1, "calling_ae": first.calling_ae},
        )
        return int(revision)

    def _touch(self, connection: Connection, repeated: list[Instance], own_result: bool) -> None:
        """A duplicate of what a RECEIVING revision holds: nothing joins, and its quiet begins anew."""
        revision = _receiving(connection, repeated[0].series_instance_uid, own_result)
        if revision is None:
            return
        last = max(i.received_at for i in repeated)
        connection.execute(
            update(series).where(series.c.id == revision).values(last_instance_at=_later(last))
        )
        self._carried(connection, revision, repeated)

    def _restored(self, connection: Connection, repeated: list[Instance]) -> None:
        """An instance that retention removed came again: its file is back.

        Where a late slice could not be processed for want of it, the series gets its next revision.
        """
        back = [
            instance
            for instance in repeated
            if connection.execute(
                update(instances)
                .where(
                    instances.c.sop_instance_uid == instance.sop_instance_uid,
                    instances.c.sha256 == instance.sha256,
                    instances.c.purged_at.is_not(None),
                )
                .values(purged_at=None, path=str(instance.path))
            ).rowcount
        ]
        if not back:
            return
        newest = connection.execute(
            select(series.c.state)
            .where(series.c.series_instance_uid == back[0].series_instance_uid)
            .order_by(series.c.revision.desc())
        ).scalar()
        if newest == SeriesState.QUARANTINED:
            self._open_revision(connection, back[0], back[0].own_result)

    def _carried(self, connection: Connection, revision: int, batch: Iterable[Instance]) -> None:
        names = sorted({i.association for i in batch})
        self._insert_new(
            connection, carriers, [{"series_id": revision, "association": name} for name in names]
        )

    def known_paths(self, paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
        """Those of the spool's paths that are listed, so that a sweep finds what is not."""
        known: set[PurePosixPath] = set()
        with self._read() as connection:
            for chunk in chunks([str(p) for p in paths]):
                found = connection.execute(select(instances.c.path).where(instances.c.path.in_(chunk)))
                known.update(PurePosixPath(path) for path in found.scalars())
        return known

    def rebuild(self, found: Iterable[Instance]) -> int:
        """List every instance of the spool again after the index was lost; how many were offered.

        Each series becomes one RECEIVING revision and is routed again. That is safe: a result
        folder that is still there is collected as it is, outputs are deterministic, and an archive
        keeps one of each. The history and the timelines are gone. Listing what an index already
        has changes nothing, so a rebuild that was cut short is simply run again.
        """
        offered = 0
        batch: list[Instance] = []
        for instance in found:
            # The spool is walked series by series; a series is listed in one transaction, so that
            # a router running beside this freezes it whole.
            if len(batch) >= _REBUILD_BATCH and instance.series_instance_uid != batch[-1].series_instance_uid:
                self.add_instances(batch)
                batch = []
            batch.append(instance)
            offered += 1
        self.add_instances(batch)
        return offered


def _with_own(connection: Connection, arrived: list[Instance]) -> list[Instance]:
    """Instances, those that are our results by their UID marked: an archive may have taken our mark away."""
    ours: set[str] = set()
    for chunk in chunks(sorted({i.sop_instance_uid for i in arrived if not i.own_result})):
        query = select(artifacts.c.sop_instance_uid).where(artifacts.c.sop_instance_uid.in_(chunk))
        ours.update(connection.execute(query).scalars())
    return (
        [replace(i, own_result=True) if i.sop_instance_uid in ours else i for i in arrived]
        if ours
        else arrived
    )


def _listed(connection: Connection, arrived: list[Instance]) -> tuple[set[tuple[str, str]], set[str]]:
    """Which (SOP Instance UID, sha256) are listed, and which UIDs are sound in this series."""
    uid = arrived[0].series_instance_uid
    listed: set[tuple[str, str]] = set()
    sound: set[str] = set()
    columns = (instances.c.sop_instance_uid, instances.c.sha256, instances.c.series_instance_uid)
    for chunk in chunks(sorted({i.sop_instance_uid for i in arrived})):
        query = select(*columns, instances.c.defect).where(instances.c.sop_instance_uid.in_(chunk))
        for row in connection.execute(query):
            listed.add((row.sop_instance_uid, row.sha256))
            if not row.defect and row.series_instance_uid == uid:
                sound.add(row.sop_instance_uid)
    return listed, sound


def _receiving(connection: Connection, uid: str, own_result: bool) -> int | None:
    query = select(series.c.id).where(
        series.c.series_instance_uid == uid,
        series.c.state == SeriesState.RECEIVING,
        series.c.own_result == own_result,
    )
    return connection.execute(query).scalar()


def _later(at: datetime) -> Any:
    """The later of a revision's last instance and this one; batches of two receivers may cross."""
    column = series.c.last_instance_at
    return case((column > at, column), else_=literal(at, Instant))


def _row(instance: Instance, revision: int | None) -> dict[str, Any]:
    return asdict(instance) | {"path": str(instance.path), "series_id": revision}

"""The database behind the index: connections, transactions, and the one way a state changes.

SQLite runs in WAL mode and a write begins with BEGIN IMMEDIATE; on PostgreSQL it takes one
advisory lock. So writers queue up, and what a transaction reads before it writes stays true.

`synchronous`: a transaction that people or later steps act upon (a move, a collected result)
is on the disk before it returns (FULL). Instance and association rows may be lost with the
machine's power (NORMAL): the spool is the truth about what was received, and the receiver
lists what it lacks again when it starts. A crash of the process loses neither.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DatabaseError

from node.config import Settings
from node.entities import Delivery, Job, SeriesRevision
from node.errors import AenodeError, IllegalTransition
from node.index import tables
from node.index.migrations import HEAD, upgrade, version
from node.states import DeliveryState, JobState, SeriesState, State, require


class LeaseLost(AenodeError):
    """A process that was the active one is not any more; what it was about to write is not written."""


Item = TypeVar("Item")
Entity = SeriesRevision | Job | Delivery
_WRITERS_LOCK = 0x61656E6F  # "aeno": the advisory lock of writers on PostgreSQL
# What a job's row holds while nothing was handed to the broker.
UNSUBMITTED: dict[str, Any] = {"submitted_at": None, "submissions": 0, "lease_until": None}
_BUSY_MILLISECONDS = 30_000
_TABLES: dict[type[State], tuple[str, Table]] = {
    SeriesState: ("series", tables.series),
    JobState: ("job", tables.jobs),
    DeliveryState: ("delivery", tables.deliveries),
}


def chunks(items: Sequence[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """The items in portions that fit the databases' limit on parameters."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Store:
    """One database, used from any number of threads; a forked process opens its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.fence: tuple[str, int] | None = None  # name and token of the lease that writes need

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the index that the settings name, and create or upgrade its tables.

        Several processes may do so at once. Raises AenodeError where a newer release wrote it.
        """
        url = settings.index.url
        if url == "sqlite":
            url = f"sqlite:///{settings.node.data / 'index.sqlite'}"
        # Parameters stay out of the texts of errors: an accession number is one.
        engine = create_engine(url, pool_size=8, max_overflow=64, hide_parameters=True)
        if engine.dialect.name == "sqlite":
            Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            _prepare_sqlite(engine)
        store = cls(engine)
        try:
            store._migrate()
        except AenodeError:
            store.close()
            raise
        except DatabaseError as error:
            store.close()
            where = engine.url.render_as_string(hide_password=True)
            raise AenodeError(f"the index {where} cannot be used: {error.orig}") from error
        return store

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with self._alone(), self._engine.connect() as connection:
            if version(connection) == HEAD:
                return
        with self._alone(), self._write() as connection:
            upgrade(connection)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time looks at the tables; on PostgreSQL the writers' lock is enough."""
        path = self._engine.url.database
        if self._engine.dialect.name != "sqlite" or not path:
            yield
            return
        with Path(path).with_name(Path(path).name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the index and writes nothing."""
        return self._engine.begin()

    @contextmanager
    def _write(self, *, durable: bool = True, fenced: bool = True) -> Iterator[Connection]:
        """A transaction that no other writer runs beside; durable ones are on the disk at its end.

        Raises LeaseLost where this process is fenced off.
        """
        with self._engine.connect() as connection:
            # Set on this connection in place; it returns to the pool without it.
            connection.execution_options(aenode_write="FULL" if durable else "NORMAL")
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))
                if fenced:
                    self._check_fence(connection)
                yield connection

    def _check_fence(self, connection: Connection) -> None:
        """Raise LeaseLost where this process holds a lease that another has taken over."""
        if self.fence is None:
            return
        name, token = self.fence
        newest = connection.execute(
            select(tables.leases.c.token).where(tables.leases.c.name == name)
        ).scalar()
        if newest != token:
            raise LeaseLost(f"another process has taken over ({name}); this one changes nothing any more")

    def _insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows; those whose key is there already are left as they are."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            connection.execute(sqlite_insert(table).on_conflict_do_nothing(), rows)
        else:
            connection.execute(postgresql_insert(table).on_conflict_do_nothing(), rows)

    def move(self, entity: Entity, new: State, at: datetime, reason: str = "", **values: Any) -> None:
        """Change an entity's state, and write the time and the reason to its timeline.

        `values` are further columns of its row to set. Raises IllegalTransition where the states
        do not allow the change, or where the entity is no longer in the state it was read in.
        """
        with self._write() as connection:
            self._move(connection, entity, new, at, reason, **values)

    def _move(
        self,
        connection: Connection,
        entity: Entity,
        new: State,
        at: datetime,
        reason: str = "",
        *,
        details: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        require(entity.state, new)
        name, table = _TABLES[type(entity.state)]
        changed = connection.execute(
            update(table)
            .where(table.c.id == entity.id, table.c.state == entity.state)
            .values(state=new, reason=reason, **values)
        )
        if changed.rowcount != 1:
            found = connection.execute(select(table.c.state).where(table.c.id == entity.id)).scalar()
            raise IllegalTransition(f"{name} {entity.id} is {found or 'gone'}, no longer {entity.state}")
        self._note(
            connection, self._series_uid(connection, entity), name, str(entity.id), new, at, reason, details
        )

    def _series_uid(self, connection: Connection, entity: Entity) -> str:
        """The source series that an entity belongs to."""
        if isinstance(entity, SeriesRevision):
            return entity.series_instance_uid
        query = select(tables.series.c.series_instance_uid).join(tables.jobs)
        job = entity.id if isinstance(entity, Job) else entity.artifact.job_id
        return str(connection.execute(query.where(tables.jobs.c.id == job)).scalar_one())

    def _note(
        self,
        connection: Connection,
        series_uid: str,
        entity: str,
        key: str,
        state: str,
        at: datetime,
        reason: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        """Write one line of the timeline."""
        connection.execute(
            insert(tables.timeline).values(
                at=at,
                series_instance_uid=series_uid,
                entity=entity,
                key=key,
                state=state,
                reason=reason,
                details=details or {},
            )
        )

    def note(self, series: SeriesRevision, at: datetime, reason: str, **details: str | float) -> None:
        """Write a line to a series' timeline that changes no state."""
        with self._write() as connection:
            self._note(
                connection,
                series.series_instance_uid,
                "series",
                str(series.id),
                series.state,
                at,
                reason,
                details,
            )


def _prepare_sqlite(engine: Engine) -> None:
    # isolation_level None: the driver begins nothing by itself, so that BEGIN IMMEDIATE can be ours.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "journal_mode = WAL",
            "foreign_keys = ON",
            "cache_size = -16384",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        durability = connection.get_execution_options().get("aenode_write")
        if durability is None:
            connection.exec_driver_sql("BEGIN")
            return
        connection.exec_driver_sql(f"PRAGMA synchronous = {durability}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

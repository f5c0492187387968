"""Who may do what only one may do at a time.

A *lease* makes one process of many the active one. Whether its holder lives is judged by its beat,
which counts up, and by the judge's own monotonic clock: no clock of the machine or of another machine
matters. Each new holder gets a higher token; a process whose token is no longer the newest is fenced
off: its next write raises LeaseLost and changes nothing.

A *turn* is a lock of PostgreSQL that lives as long as its connection, for several active processes
that must not do the same thing at once. SQLite has one active process, so there a turn is always free.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from node.errors import AenodeError
from node.index.store import Store
from node.index.tables import leases


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as the index holds it. An empty holder has released it."""

    holder: str
    token: int
    beat: int


class Turn:
    """A lock that was taken. `check` raises AenodeError where it is not held any more."""

    def __init__(self, connection: Connection | None, key: int) -> None:
        self._connection = connection
        self._key = key

    def check(self) -> None:
        """Make sure that the connection that holds the lock lives."""
        if self._connection is None:
            return
        try:
            self._connection.execute(select(1))
        except DBAPIError as error:
            raise AenodeError("the connection to the index broke; another process may go on") from error

    def release(self) -> None:
        """Give the lock back."""
        if self._connection is None:
            return
        try:
            self._connection.execute(select(func.pg_advisory_unlock(self._key)))
        except DBAPIError:
            self._connection.invalidate()
        self._connection.close()
        self._connection = None


class Leases(Store):
    """Leases and turns."""

    def lease(self, name: str) -> Lease | None:
        """A lease as it is now; None where nobody ever had it."""
        with self._read() as connection:
            row = connection.execute(select(leases).where(leases.c.name == name)).first()
            return None if row is None else Lease(row.holder, row.token, row.beat)

    def take_lease(self, name: str, holder: str, seen: Lease | None) -> int | None:
        """Take a lease that still is as it was `seen`; its token, or None where another was faster.

        From then on every write of this index is fenced by the token.
        """
        token = 1 if seen is None else seen.token + 1
        with self._write(fenced=False) as connection:
            if seen is None:
                found = connection.execute(select(leases.c.token).where(leases.c.name == name)).scalar()
                if found is not None:
                    return None
                connection.execute(insert(leases).values(name=name, holder=holder, token=token, beat=0))
            else:
                taken = connection.execute(
                    update(leases)
                    .where(leases.c.name == name, leases.c.token == seen.token, leases.c.beat == seen.beat)
                    .values(holder=holder, token=token, beat=0)
                )
                if taken.rowcount != 1:
                    return None
        self.fence = (name, token)
        return token

    def beat_lease(self) -> None:
        """Show that the holder lives. Raises LeaseLost where another holds the lease."""
        assert self.fence is not None
        name, _ = self.fence
        with self._write(durable=False) as connection:
            connection.execute(update(leases).where(leases.c.name == name).values(beat=leases.c.beat + 1))

    def release_lease(self) -> None:
        """Let another take the lease at once. Raises LeaseLost."""
        if self.fence is None:
            return
        name, _ = self.fence
        with self._write() as connection:
            connection.execute(update(leases).where(leases.c.name == name).values(holder=""))
        self.fence = None

    def require_lease(self) -> None:
        """Raise LeaseLost where this process is fenced off."""
        with self._read() as connection:
            self._check_fence(connection)

    def take_turn(self, what: str) -> Turn | None:
        """The lock of that name, or None while another process has it."""
        key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
        if self._engine.dialect.name != "postgresql":
            return Turn(None, key)
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(select(func.pg_try_advisory_lock(key))).scalar():
            return Turn(connection, key)
        connection.close()
        return None

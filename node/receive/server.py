"""The receiver: listens, judges who may associate, and serves each association on its own thread."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from node.audit import Audit, studies_of
from node.config import Peer
from node.config_file import SettingsFile
from node.dimse import negotiation
from node.dimse.negotiation import Titles
from node.dimse.pdu import Connection
from node.dimse.status import (
    LOW_DISK,
    QUOTA,
    STOPPING,
    TOO_MANY_ASSOCIATIONS,
    TOO_MANY_OF_PEER,
    Rejection,
)
from node.dimse.upper_layer import Association, Terms
from node.entities import Instance
from node.index import Index
from node.receive.commitment import CommitmentReports
from node.receive.indexing import Indexing, sweep
from node.receive.listening import Listening
from node.receive.quota import Quotas
from node.receive.storage import InstanceStorage, Space
from node.spool import Inbox, Spool

log = logging.getLogger("aenode.receive")

_LOOK_EVERY_SECONDS = 0.2  # for a stop
_REFRESH_EVERY_SECONDS = 1.0
_UNASSOCIATED = 32  # connections beside the associations: those that are yet to ask, or being rejected
_QUIET_SECONDS = 2.0  # when stopping, an association without a message for so long is ended
_LAST_SECONDS = 5.0  # when time is up, what is under way may take so long more
_INDEX_SECONDS = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


class Server:
    """One receiving process. `run` serves until it is told to stop, and then finishes what runs.

    It binds when it is made, so that the ports are known and a taken address raises OSError at once.
    """

    def __init__(
        self,
        file: SettingsFile,
        index: Index,
        *,
        share_port: bool = False,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        settings = file.settings
        self._file = file
        self._index = index
        self._clock = clock
        self._spool = Spool(settings.node.data)
        self._space = Space(self._spool)
        self._quotas = Quotas(index)
        self._audit = Audit(settings.audit, settings.node.data, settings.node.ae_title)
        self._storages: dict[str, InstanceStorage] = {}
        self._reports = CommitmentReports(index, lambda: file.settings, clock)
        self._inbox = Inbox(self._spool)
        self._lock = threading.Lock()
        self._running: dict[str, Association] = {}
        self._admitted: set[str] = set()
        self._stopping = False
        self._listening = Listening(settings.node, share_port=share_port)
        self.port, self.tls_port = self._listening.port, self._listening.tls_port

    def run(self, stop: threading.Event, tick: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set. `tick` is called about once a second."""
        with self._inbox:
            self._indexing = Indexing(self._index, self._inbox.id, self._clock)
            self._indexing.start()
            sweeper = threading.Thread(target=self._sweep, args=(stop,), name="sweep")
            sweeper.start()
            log.info("%s listens on %s", self._file.settings.node.ae_title, self._listening)
            try:
                self._accept(stop, tick)
            finally:
                self._stopping = True
                self._listening.close()
                stop.set()  # for the sweep, should it still run after an error
                self._finish()
                sweeper.join()
                self._indexing.finish(_INDEX_SECONDS)
                self._audit.close()

    def _accept(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        look_at = 0.0
        while not stop.is_set():
            if (now := time.monotonic()) >= look_at:
                look_at = now + _REFRESH_EVERY_SECONDS
                self._refresh()
                tick()
            try:
                arrived = self._listening.accept(_LOOK_EVERY_SECONDS)
            except OSError as error:  # out of file descriptors, or the peer is gone already
                log.warning("a connection could not be accepted: %s", error)
                stop.wait(_LOOK_EVERY_SECONDS)
                continue
            for connection, host in arrived:
                self._begin(connection, host)

    def _refresh(self) -> None:
        self._listening.refresh()
        if self._file.refresh():
            if self._file.error is None:
                log.info("%s has changed and is in force", self._file.path)
            else:
                log.error("%s is refused, the old settings stay: %s", self._file.path, self._file.error)

    def _begin(self, connection: Connection, host: str) -> None:
        receive = self._file.settings.receive
        if len(self._running) >= receive.max_associations + _UNASSOCIATED:
            log.warning("a connection from %s is closed: too many that have not asked for anything", host)
            connection.close()
            return
        id = uuid.uuid4().hex
        terms = Terms(
            judge=lambda titles: self._judge(id, titles),
            max_pdu=receive.max_pdu,
            acse_seconds=receive.acse_timeout_seconds,
            idle_seconds=receive.idle_timeout_seconds,
            message_seconds=receive.dimse_timeout_seconds,
        )
        association = Association(connection, id, host, terms, self._opened)
        # A daemon, so that a thread that hangs cannot keep the process; what it holds is not acknowledged.
        self._running[id] = association
        threading.Thread(target=self._serve, args=(association,), name=f"assoc-{id[:8]}", daemon=True).start()

    def _judge(self, id: str, titles: Titles) -> Rejection | None:
        settings = self._file.settings
        known = None
        if not settings.receive.accept_unknown_peers:
            known = frozenset(peer.ae_title for peer in settings.peers)
        if why := negotiation.rejected(titles, settings.node.ae_title, known):
            return why
        if self._stopping:
            return STOPPING
        peer = self._peer(titles.calling_ae)
        # A report of storage commitment is what lets retention make room.
        if (peer is None or peer.prove != "commitment") and (why := self._full(peer)):
            return why
        return self._admit(id, peer, titles.calling_ae)

    def _full(self, peer: Peer | None) -> Rejection | None:
        if self._is_low():
            return LOW_DISK
        return QUOTA if self._quotas.is_used_up(peer) else None

    def _admit(self, id: str, peer: Peer | None, calling_ae: str) -> Rejection | None:
        with self._lock:
            if len(self._admitted) >= self._file.settings.receive.max_associations:
                return TOO_MANY_ASSOCIATIONS
            if not self._quotas.enter(peer, calling_ae):
                return TOO_MANY_OF_PEER
            self._admitted.add(id)
        return None

    def _peer(self, ae_title: str) -> Peer | None:
        return next((peer for peer in self._file.settings.peers if peer.ae_title == ae_title), None)

    def _is_low(self) -> bool:
        return self._space.below(self._file.settings.receive.min_free)

    def _no_room(self, calling_ae: str) -> str:
        if self._is_low():
            return "less free space than receive.min_free"
        return "the peer's quota is used up" if self._quotas.is_used_up(self._peer(calling_ae)) else ""

    def _opened(self, association: Association) -> InstanceStorage:
        self._indexing.opened(association)
        calling_ae = association.titles.calling_ae

        def add(instance: Instance) -> None:
            self._indexing.add(instance)
            self._quotas.received(calling_ae, instance.size)

        storage = InstanceStorage(
            association, self._inbox, lambda: self._no_room(calling_ae), add, self._clock, self._reports
        )
        self._storages[association.id] = storage
        return storage

    def _serve(self, association: Association) -> None:
        try:
            association.run()
        finally:
            with self._lock:
                admitted = association.id in self._admitted
                self._admitted.discard(association.id)
                if admitted:
                    self._quotas.leave(association.titles.calling_ae)
            if admitted:
                self._indexing.closed(association)
            self._record(association, self._storages.pop(association.id, None))
            self._running.pop(association.id, None)

    def _record(self, association: Association, storage: InstanceStorage | None) -> None:
        if storage is not None and (storage.kept or association.refused):
            calling_ae, refused = association.titles.calling_ae, association.refused
            studies = studies_of(storage.kept)
            self._audit.received(self._clock(), calling_ae, association.host, studies, refused)

    def _sweep(self, stop: threading.Event) -> None:
        try:
            sweep(self._spool, self._inbox, self._index, self._clock(), stop)
        except Exception:
            log.exception("the spool was not swept; the next start tries again")

    def _finish(self) -> None:
        """Let associations end by themselves for a while, then between two messages."""
        until = time.monotonic() + 0.75 * self._file.settings.receive.idle_timeout_seconds
        while self._running and (now := time.monotonic()) < until + _LAST_SECONDS:
            for association in list(self._running.values()):
                quiet = not association.busy and now - association.idle_since > _QUIET_SECONDS
                if (quiet or now > until) and not association.stopping:
                    association.end()
            time.sleep(0.02)
        for association in list(self._running.values()):
            log.error("%s is cut off: it did not end in time", association)

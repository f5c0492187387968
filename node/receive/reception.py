"""What whatever brings instances goes through: it is admitted, noted, stored, closed and recorded."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from node.audit import Audit, studies_of
from node.config import Peer, Settings
from node.config_file import SettingsFile
from node.dimse import negotiation
from node.dimse.negotiation import Titles
from node.dimse.status import (
    CERTIFICATE_NOT_ITS_OWN,
    LOW_DISK,
    QUOTA,
    STOPPING,
    TOO_MANY_ASSOCIATIONS,
    TOO_MANY_OF_PEER,
    Rejection,
)
from node.dimse.tls import ClientCertificate
from node.entities import Instance
from node.index import Index
from node.receive.commitment import CommitmentReports
from node.receive.indexing import Indexing, sweep
from node.receive.quota import Quotas
from node.receive.recording import Recording
from node.receive.storage import Carrier, InstanceStorage, Space
from node.spool import Inbox, Spool

log = logging.getLogger("aenode.receive")

_INDEX_SECONDS = 10.0


class Reception:
    """Rules and places that associations and STOW-RS requests share. Safe to use from their threads."""

    def __init__(self, file: SettingsFile, index: Index, clock: Callable[[], datetime]) -> None:
        settings = file.settings
        self._file = file
        self._index = index
        self._clock = clock
        self._spool = Spool(settings.node.data)
        self._space = Space(self._spool)
        self._quotas = Quotas(index)
        self._audit = Audit(settings.audit, settings.node.data, settings.node.ae_title)
        self._recording = Recording(self._audit, clock)
        self._reports = CommitmentReports(index, lambda: file.settings, clock)
        self._inbox = Inbox(self._spool)
        self._lock = threading.Lock()
        self._admitted: dict[str, str] = {}  # calling AE title by id
        self._storages: dict[str, InstanceStorage] = {}
        self.stopping = False

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._file.settings

    @contextmanager
    def running(self, stop: threading.Event) -> Iterator[None]:
        """The inbox, the index entries and the sweep; on leaving, what waits for the index is written."""
        with self._inbox:
            self._indexing = Indexing(self._index, self._inbox.id, self._clock)
            self._indexing.start()
            self._recording.start()
            sweeper = threading.Thread(target=self._sweep, args=(stop,), name="sweep")
            sweeper.start()
            try:
                yield
            finally:
                stop.set()  # for the sweep, should it still run after an error
                sweeper.join()
                self._indexing.finish(_INDEX_SECONDS)
                self._recording.finish()
                self._audit.close()

    def judge(self, id: str, titles: Titles, certificate: ClientCertificate | None) -> Rejection | None:
        """Whether an association is taken; None: it is, and counts as admitted."""
        settings = self.settings
        known = None
        if not settings.receive.accept_unknown_peers:
            known = frozenset(peer.ae_title for peer in settings.peers if peer.ae_title)
        if why := negotiation.rejected(titles, settings.node.ae_title, known):
            return why
        peer = next((peer for peer in settings.peers if peer.ae_title == titles.calling_ae), None)
        bound = peer.client_certificate if peer is not None else None
        if bound is not None and not (certificate and certificate.is_named(bound)):
            return CERTIFICATE_NOT_ITS_OWN
        # A report of storage commitment is what lets retention make room.
        reports = peer is not None and peer.prove == "commitment"
        return self.admit(id, peer, titles.calling_ae, needs_room=not reports)

    def admit(
        self, id: str, peer: Peer | None, calling_ae: str, *, needs_room: bool = True
    ) -> Rejection | None:
        """Count an association or request of a peer; a transient reason where it has to wait."""
        if self.stopping:
            return STOPPING
        if needs_room and self._is_low():
            return LOW_DISK
        if needs_room and self._quotas.is_used_up(peer):
            return QUOTA
        with self._lock:
            if len(self._admitted) >= self.settings.receive.max_associations:
                return TOO_MANY_ASSOCIATIONS
            if not self._quotas.enter(peer, calling_ae):
                return TOO_MANY_OF_PEER
            self._admitted[id] = calling_ae
        return None

    def begin(self, carrier: Carrier) -> InstanceStorage:
        """Note what was admitted, and give its instances a place."""
        self._indexing.opened(carrier)
        calling_ae = carrier.titles.calling_ae

        def add(instance: Instance) -> None:
            self._indexing.add(instance)
            self._quotas.received(calling_ae, instance.size)

        storage = InstanceStorage(
            carrier, self._inbox, lambda: self._no_room(calling_ae), add, self._clock, self._reports
        )
        self._storages[carrier.id] = storage
        return storage

    def end(self, carrier: Carrier, *, one_of_many: bool = False) -> None:
        """It is over, admitted or not: its slot is given back, and what it brought is recorded.

        `one_of_many`: it is recorded with others of its peer, and the index need not hurry.
        """
        with self._lock:
            calling_ae = self._admitted.pop(carrier.id, None)
            if calling_ae is not None:
                self._quotas.leave(calling_ae)
        if calling_ae is not None:
            self._indexing.closed(carrier, hurry=not one_of_many)
        storage = self._storages.pop(carrier.id, None)
        if storage is None or not (storage.kept or carrier.refused):
            return
        sent = (carrier.titles.calling_ae, carrier.host, studies_of(storage.kept), carrier.refused)
        if one_of_many:
            self._recording.add(*sent)
        else:
            self._audit.received(self._clock(), *sent)

    def _is_low(self) -> bool:
        return self._space.below(self.settings.receive.min_free)

    def _no_room(self, calling_ae: str) -> str:
        if self._is_low():
            return "less free space than receive.min_free"
        peer = next((peer for peer in self.settings.peers if peer.title == calling_ae), None)
        return "the peer's quota is used up" if self._quotas.is_used_up(peer) else ""

    def _sweep(self, stop: threading.Event) -> None:
        try:
            sweep(self._spool, self._inbox, self._index, self._clock(), stop)
        except Exception:
            log.exception("the spool was not swept; the next start tries again")

"""Reports of storage commitment that a peer brings on an association of its own (PS3.4 J.3.3)."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from node.backoff import delay
from node.config import Settings
from node.dimse.commitment import ReportError, decoded_report
from node.dimse.negotiation import Context
from node.dimse.status import Status
from node.errors import InstanceRefused
from node.index import Index

log = logging.getLogger("aenode.receive")

_LONGEST_REPORT = 16 << 20  # bytes; 100,000 references and more


class CommitmentReports:
    """Writes reports to the index, before they are answered."""

    def __init__(self, index: Index, settings: Callable[[], Settings], clock: Callable[[], datetime]) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock

    def begin(self, calling_ae: str, context: Context) -> "ArrivingReport":
        """Take a report of the peer of that AE title."""
        return ArrivingReport(lambda raw: self._record(raw, calling_ae, context))

    def _record(self, raw: bytes, calling_ae: str, context: Context) -> None:
        try:
            report = decoded_report(raw, context.transfer_syntax)
        except ReportError as error:
            raise InstanceRefused(Status.INVALID_ARGUMENT, str(error)) from error
        settings = self._settings()
        name = self._index.commitment_peer(report.transaction_uid)
        peer = settings.peer(name) if name is not None else None
        # Whoever may say that an instance is safe may have us remove it: only the peer that was asked.
        if peer is None or peer.ae_title != calling_ae:
            log.warning("%s reports a transaction that it was not asked for", calling_ae)
            raise InstanceRefused(Status.INVALID_ARGUMENT, "no such transaction with this peer")
        deliver = settings.deliver
        wait = delay(1, first=deliver.retry_seconds, limit=deliver.retry_max_seconds, seed=peer.name)
        proven, lost = self._index.record_commitment(
            report.transaction_uid,
            report.committed,
            report.failed,
            self._clock(),
            losses=deliver.losses,
            retry_after=timedelta(seconds=wait),
        )
        log.info("%s commits itself to %d instances, not to %d", peer.name, proven, lost)


class ArrivingReport:
    """One report on its way in; small enough to be kept in memory, and bounded."""

    def __init__(self, record: Callable[[bytes], None]) -> None:
        self._record = record
        self._raw = bytearray()

    def write(self, fragment: memoryview) -> None:
        """Append a fragment. Raises InstanceRefused."""
        if len(self._raw) + len(fragment) > _LONGEST_REPORT:
            raise InstanceRefused(Status.INVALID_ARGUMENT, "a report of too many bytes")
        self._raw += fragment

    def finish(self) -> None:
        """Write it to the index. Raises InstanceRefused."""
        try:
            self._record(bytes(self._raw))
        except InstanceRefused:
            raise
        except Exception as error:
            log.exception("a commitment report could not be written; the peer may send it again")
            raise InstanceRefused(Status.PROCESSING_FAILURE, "the index does not take it now") from error

    def discard(self) -> None:
        """The rest will not come."""
        self._raw.clear()

"""From the fragments of a data set to a durable instance, or the status that says why not."""

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from node.dimse.command import Command
from node.dimse.negotiation import Context, Titles
from node.dimse.status import Status
from node.entities import Instance
from node.errors import InstanceRefused
from node.header import HeaderError
from node.receive.commitment import ArrivingReport, CommitmentReports
from node.spool import Inbox, Incoming, Origin, Spool

log = logging.getLogger("aenode.receive")

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
_LOOK_EVERY_SECONDS = 0.5


class Space:
    """Whether the spool's file system is low on free space; it is asked twice a second at most."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._free = 0
        self._asked_at = -_LOOK_EVERY_SECONDS

    def below(self, limit: int) -> bool:
        """Whether less than `limit` bytes are free."""
        now = time.monotonic()
        if now - self._asked_at >= _LOOK_EVERY_SECONDS:
            self._free, self._asked_at = self._spool.free(), now
        return self._free < limit


class Carrier(Protocol):
    """What brings instances in, an association or a STOW-RS request; as text its name for the log."""

    id: str
    host: str
    titles: Titles
    refused: int


class InstanceStorage:
    """Stores the instances of one carrier. `add` hands each to the index; it may refuse."""

    def __init__(
        self,
        carrier: Carrier,
        inbox: Inbox,
        no_room: Callable[[], str],
        add: Callable[[Instance], None],
        clock: Callable[[], datetime],
        reports: CommitmentReports,
    ) -> None:
        self.carrier = carrier
        self.add = add
        self.clock = clock
        self._inbox = inbox
        self._no_room = no_room
        self._reports = reports
        self._own_results = 0
        self.kept: list[tuple[str, str]] = []  # StudyInstanceUID and SOPClassUID of each, for the audit

    def begin_report(self, request: Command, context: Context) -> ArrivingReport:
        """Take a report of storage commitment."""
        return self._reports.begin(self.carrier.titles.calling_ae, context)

    def report(self, instance: Instance) -> None:
        """Say in the log what is odd about an instance that was kept."""
        self.kept.append((instance.study_instance_uid, instance.sop_class_uid))
        uid = instance.sop_instance_uid[:64]
        if instance.defect:
            log.warning("%s: %s is kept and set apart: %s", self.carrier, uid, instance.defect)
        if instance.own_result:
            self._own_results += 1
            if self._own_results == 1:
                log.info("%s brings results of ours; they are kept and not routed", self.carrier)

    def begin(self, request: Command, context: Context) -> "ArrivingInstance":
        """Begin a file for the data set. Raises InstanceRefused."""
        if not request.sop_instance_uid:
            raise InstanceRefused(Status.CANNOT_UNDERSTAND, "no Affected SOP Instance UID")
        return self.begin_instance(
            request.sop_class_uid, request.sop_instance_uid, context.transfer_syntax, Announced("command")
        )

    def begin_instance(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, announced: "Announced"
    ) -> "ArrivingInstance":
        """Begin a file for a data set that was announced by its names. Raises InstanceRefused."""
        if why := self._no_room():
            raise InstanceRefused(Status.OUT_OF_RESOURCES, why)
        titles = self.carrier.titles
        origin = Origin(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae=titles.calling_ae,
            called_ae=titles.called_ae,
            association=self.carrier.id,
        )
        try:
            return ArrivingInstance(self, self._inbox.receive(origin), announced)
        except Exception as error:
            raise refusal(error) from error


@dataclass(frozen=True, slots=True)
class Announced:
    """What told of a data set before it came, and the study that it must be of; empty: any."""

    by: str
    study_instance_uid: str = ""


class ArrivingInstance:
    """One data set on its way to the spool."""

    def __init__(self, storage: InstanceStorage, incoming: Incoming, announced: Announced) -> None:
        self._announced = announced
        self._storage = storage
        self._incoming = incoming

    def write(self, fragment: memoryview) -> None:
        """Append a fragment. Raises InstanceRefused."""
        try:
            self._incoming.write(fragment)
        except OSError as error:
            raise refusal(error) from error

    def finish(self) -> None:
        """Judge the header, make the instance durable, offer it to the index. Raises InstanceRefused."""
        try:
            self._storage.add(self._kept())
        except Exception as error:
            raise refusal(error) from error

    def _kept(self) -> Instance:
        origin, found = self._incoming.origin, self._incoming.header()
        if not found.sop_class_uid or not found.sop_instance_uid:
            raise InstanceRefused(Status.CANNOT_UNDERSTAND, "the data set has no SOP Class or Instance UID")
        if found.sop_class_uid != origin.sop_class_uid:
            raise self._mismatch("SOPClassUID")
        if found.sop_instance_uid != origin.sop_instance_uid:
            raise self._mismatch("SOPInstanceUID")
        study = self._announced.study_instance_uid
        if study and found.study_instance_uid != study:
            raise InstanceRefused(Status.DATA_SET_MISMATCH, "its study is not that of the request")
        instance = self._incoming.keep(found, self._storage.clock())
        self._storage.report(instance)
        return instance

    def _mismatch(self, keyword: str) -> InstanceRefused:
        why = f"{self._announced.by} and data set differ in {keyword}"
        return InstanceRefused(Status.DATA_SET_MISMATCH, why)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._incoming.discard()


def refusal(error: Exception) -> InstanceRefused:
    """What a peer is answered after an error."""
    if isinstance(error, InstanceRefused):
        return error
    if isinstance(error, HeaderError):
        return InstanceRefused(Status.CANNOT_UNDERSTAND, str(error))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return InstanceRefused(Status.OUT_OF_RESOURCES, f"no room: {error.strerror}")
    log.error("an instance could not be stored", exc_info=error)
    return InstanceRefused(Status.PROCESSING_FAILURE, "unexpected failure, see the log of this node")

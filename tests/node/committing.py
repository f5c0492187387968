"""A storage and storage commitment provider that reports as it is told."""

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from node.config import Peer
from node.dimse.contexts import STORAGE_COMMITMENT
from node.dimse.scu import STUDY_ROOT_FIND
from tests.peers import LOOPBACK

INSTANCE = "1.2.840.10008.1.20.1.1"


class CommittingSCP:
    """Stores in memory; `lost` are UIDs that it accepts and does not keep."""

    def __init__(
        self,
        *,
        same_association: bool = True,
        report_to: tuple[str, int] | None = None,
        commits: bool = True,
    ) -> None:
        self.same_association = same_association
        self.report_to = report_to
        self.lost: set[str] = set()
        self.reports = True
        self.stored: list[str] = []
        self.requests: list[Dataset] = []
        self.answered: list[int] = []  # statuses of the answers to reports
        self.ae_title = "COMMITTER"
        self._ae = AE(ae_title=self.ae_title)
        self._ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        self._ae.add_supported_context(STUDY_ROOT_FIND, ImplicitVRLittleEndian)
        if commits:
            self._ae.add_supported_context(STORAGE_COMMITMENT, ImplicitVRLittleEndian)
        self._threads: list[threading.Thread] = []

    def _stored(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        self.requests.append(request)
        if self.reports:
            target = self._report_here if self.same_association else self._report_anew
            thread = threading.Thread(target=target, args=(event.assoc, request))
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def _listed(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for uid in self.stored:
            if uid not in self.lost:
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", uid
                match.SeriesInstanceUID = event.identifier.SeriesInstanceUID
                yield 0xFF00, match

    def report(self, request: Dataset) -> tuple[Dataset, int]:
        """The report on a request, and its event type."""
        kept, lost = [], []
        for item in request.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            if uid in self.lost or uid not in self.stored:
                item.FailureReason = 0x0112
                lost.append(item)
            else:
                kept.append(item)
        ds = Dataset()
        ds.TransactionUID = request.TransactionUID
        if kept:
            ds.ReferencedSOPSequence = kept
        if lost:
            ds.FailedSOPSequence = lost
        return ds, 2 if lost else 1

    def _report_here(self, assoc: object, request: Dataset) -> None:
        ds, kind = self.report(request)
        status, _ = assoc.send_n_event_report(ds, kind, STORAGE_COMMITMENT, INSTANCE)  # type: ignore[attr-defined]  # pynetdicom has no types
        self.answered.append(status.get("Status", -1))

    def _report_anew(self, _assoc: object, request: Dataset) -> None:
        assert self.report_to is not None
        self.answered.append(self.send_report(*self.report(request), *self.report_to))

    def send_report(self, ds: Dataset, kind: int, called: str, port: int, calling: str = "") -> int:
        """Bring a report on an association of our own, with the roles reversed; the status answered."""
        ae = AE(ae_title=calling or self.ae_title)
        ae.add_requested_context(STORAGE_COMMITMENT, ImplicitVRLittleEndian)
        role = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        assoc = ae.associate(LOOPBACK, port, ae_title=called, ext_neg=[role])
        assert assoc.is_established
        status, _ = assoc.send_n_event_report(ds, kind, STORAGE_COMMITMENT, INSTANCE)
        assoc.release()
        return int(status.get("Status", -1))

    def peer(self, name: str = "archive", **settings: object) -> Peer:
        """This provider as a peer of the settings."""
        return Peer.model_validate(
            {
                "name": name,
                "ae_title": self.ae_title,
                "address": f"{LOOPBACK}:{self.port}",
                "prove": "commitment",
                **settings,
            }
        )

    def __enter__(self) -> Self:
        handlers = [(evt.EVT_C_STORE, self._stored), (evt.EVT_N_ACTION, self._asked)]
        handlers.append((evt.EVT_C_FIND, self._listed))
        self._server = self._ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join(20)
        self._server.shutdown()
        self._ae.shutdown()

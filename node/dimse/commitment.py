"""Storage commitment as SCU (PS3.4 J.3): the request, and what a report says.

The peer answers the request at once and reports later: on the same association for as long as we
keep it open, else on one that it opens, where the receiver takes the report.
"""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from node.config import Peer
from node.dimse.contexts import STORAGE_COMMITMENT
from node.dimse.requestor import associated
from node.errors import AenodeError, PeerError

WELL_KNOWN_INSTANCE = UID("1.2.840.10008.1.20.1.1")  # PS3.4 J.3.5
_REQUEST_COMMITMENT = 1  # action type, PS3.4 J.3.2
_SUCCESS, _INVALID_ARGUMENT = 0x0000, 0x0115


class ReportError(AenodeError):
    """A report of storage commitment that cannot be read."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer says of one transaction: UIDs that it keeps, and FailureReasons of others."""

    transaction_uid: str
    committed: tuple[str, ...] = ()
    failed: dict[str, int] = field(default_factory=dict)


def report_of(ds: Dataset) -> Report:
    """A report's data set (PS3.4 table J.3-2). Raises ReportError."""
    try:
        transaction = str(ds.TransactionUID)
        committed = tuple(
            str(item.ReferencedSOPInstanceUID) for item in ds.get("ReferencedSOPSequence") or []
        )
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0x0110)
            for item in ds.get("FailedSOPSequence") or []
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ReportError(f"a commitment report cannot be read: {type(error).__name__}") from error
    return Report(transaction, committed, failed)


def decoded_report(raw: bytes, transfer_syntax: str) -> Report:
    """A report from its encoded data set. Raises ReportError."""
    try:
        ds = pydicom.dcmread(
            BytesIO(_meta(transfer_syntax) + raw), force=True, stop_before_pixels=True, defer_size=None
        )
        return report_of(ds)
    except ReportError:
        raise
    except Exception as error:
        # Whatever a malformed data set runs the codec into is the peer's doing.
        raise ReportError(f"a commitment report cannot be read: {type(error).__name__}") from error


def _meta(transfer_syntax: str) -> bytes:
    """File meta information that makes an encoded data set a Part-10 file."""
    uid = transfer_syntax.encode()
    uid += b"\0" * (len(uid) % 2)
    element = b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little")
    return b"\0" * 128 + b"DICM" + length + element


def request_commitment(
    peer: Peer,
    own_ae: str,
    transaction_uid: str,
    instances: Sequence[tuple[str, str]],
    *,
    wait: float = 5,
    timeout: float = 30,
) -> Report | None:
    """Ask a peer to commit itself to `instances`, pairs of SOP class and instance UID.

    Its report, where it comes on this association within `wait` seconds; else None. Raises PeerError
    where the request is not accepted, NothingAccepted where the peer has no such service.
    """
    reports: queue.SimpleQueue[Report] = queue.SimpleQueue()

    def reported(event: evt.Event) -> tuple[int, None]:
        try:
            reports.put(report_of(event.event_information))
        except ReportError:
            return _INVALID_ARGUMENT, None
        return _SUCCESS, None

    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(*pair) for pair in instances]
    contexts = [
        (STORAGE_COMMITMENT, UID(ImplicitVRLittleEndian)),
        (STORAGE_COMMITMENT, UID(ExplicitVRLittleEndian)),
    ]
    handlers = [(evt.EVT_N_EVENT_REPORT, reported)]
    with associated(peer, own_ae, contexts, timeout, handlers) as assoc:
        answer, _ = assoc.send_n_action(request, _REQUEST_COMMITMENT, STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE)
        if "Status" not in answer:
            raise PeerError(f"{peer.name}: the association ended before N-ACTION was answered")
        if answer.Status != _SUCCESS:
            raise PeerError(f"{peer.name}: storage commitment was refused with 0x{answer.Status:04X}")
        try:
            report = reports.get(timeout=wait) if wait > 0 else reports.get_nowait()
        except queue.Empty:
            return None
    return report if report.transaction_uid == transaction_uid else None


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item

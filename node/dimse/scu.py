"""Associations that we ask for: C-STORE, C-ECHO, and C-FIND for a count.

A file's data set goes out as the bytes that lie on disk, under a presentation context of its
own transfer syntax. Only an uncompressed one is encoded anew, as Implicit VR Little Endian, and
only for a peer that takes nothing else: PS3.5 10.1 makes that syntax everybody's common ground.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pynetdicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from node.config import Peer
from node.dimse.outcome import Outcome, of_status
from node.dimse.requestor import NothingAccepted, associated
from node.errors import PeerError

# Process-wide, and only for paths given to send_c_store: the file's bytes are sent unparsed.
pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True

VERIFICATION = UID("1.2.840.10008.1.1")
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd identifiers from 1 to 255
SLOWEST = 2**18  # bytes a second that a link must carry at least, before an answer is overdue


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of one file. `status` is None where the peer gave no answer to it."""

    path: Path
    outcome: Outcome
    reason: str
    status: int | None = None
    tried: bool = True  # False: the association ended before its turn came


@dataclass(frozen=True, slots=True)
class _Outgoing:
    path: Path
    sop_class: UID
    syntax: UID
    size: int

    @property
    def contexts(self) -> list[tuple[UID, UID]]:
        own = (self.sop_class, self.syntax)
        if self.syntax != ExplicitVRLittleEndian:
            return [own]
        return [own, (self.sop_class, ImplicitVRLittleEndian)]


def store_batch(peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float = 30) -> list[StoreResult]:
    """Send Part-10 files over one association; one result a file, in their order.

    `timeout` is in seconds, for connecting, negotiating and each answer. An association that
    ends early leaves RETRY for what it did not carry. Raises PeerError when there is none at all.
    """
    results: list[StoreResult] = []
    try:
        results.extend(store_each(peer, own_ae, files, timeout=timeout))
    except PeerError as error:
        if not results:
            raise
        outcome = Outcome.REFUSED if error.permanent else Outcome.RETRY
        results += [StoreResult(f, outcome, str(error), tried=False) for f in files[len(results) :]]
    return results


def store_each(
    peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float = 30
) -> Generator[StoreResult, None, None]:
    """As `store_batch`, but each result as soon as it is known; closing the iterator ends the association.

    Files of more than 128 pairs of SOP class and transfer syntax take several associations.
    """
    described = [_describe(path) for path in files]
    while described:
        batch, contexts = _fitting(described)
        described = described[len(batch) :]
        if not contexts:
            yield from (file for file in batch if isinstance(file, StoreResult))
            continue
        try:
            with associated(peer, own_ae, contexts, timeout) as assoc:
                yield from _store_over(assoc, peer, batch, timeout)
        except NothingAccepted:
            for file in batch:
                yield file if isinstance(file, StoreResult) else _unacceptable(file, peer)


def count_instances(
    peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
) -> int | None:
    """How many instances of a series the peer says it holds; None where it does not say.

    C-FIND, Study Root, SERIES level, NumberOfSeriesRelatedInstances (PS3.4 C.6.2.1). Many peers
    answer only when `study_uid` is given, which that level demands. Raises PeerError.
    """
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    identifier.SeriesInstanceUID = series_uid
    identifier.NumberOfSeriesRelatedInstances = None
    count: int | None = None
    try:
        with associated(peer, own_ae, [(STUDY_ROOT_FIND, ImplicitVRLittleEndian)], timeout) as assoc:
            for answer, match in assoc.send_c_find(identifier, STUDY_ROOT_FIND):
                status = _status_of(answer)
                if status is None:
                    raise PeerError(f"{peer.name}: the association ended before C-FIND was answered")
                if status in (0xFF00, 0xFF01):
                    count = _count(match, series_uid) or count
                elif status != 0x0000:
                    outcome, _ = of_status(status)
                    raise PeerError(
                        f"{peer.name}: C-FIND failed with status 0x{status:04X}",
                        permanent=outcome is Outcome.REFUSED,
                    )
    except NothingAccepted:
        return None
    return count


def echo(peer: Peer, own_ae: str, *, timeout: float = 30) -> None:
    """Ask the peer for a C-ECHO (PS3.4 A). Raises PeerError when it does not answer with Success."""
    with associated(peer, own_ae, [(VERIFICATION, ImplicitVRLittleEndian)], timeout) as assoc:
        status = _status_of(assoc.send_c_echo())
    if status is None:
        raise PeerError(f"{peer.name}: the association ended before C-ECHO was answered")
    if status != 0x0000:
        raise PeerError(f"{peer.name}: C-ECHO was answered with status 0x{status:04X}")


def _describe(path: Path) -> _Outgoing | StoreResult:
    """What the file's meta information says it is, or why it cannot be sent."""
    try:
        meta = read_file_meta_info(path)
        size = path.stat().st_size
    except OSError as error:
        return StoreResult(path, Outcome.RETRY, f"the file cannot be read: {error.strerror}")
    except (InvalidDicomError, ValueError, EOFError) as error:
        return StoreResult(path, Outcome.REFUSED, f"not a DICOM file: {type(error).__name__}")
    needed = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    if missing := [keyword for keyword in needed if not meta.get(keyword)]:
        return StoreResult(path, Outcome.REFUSED, f"the file's meta information lacks {', '.join(missing)}")
    return _Outgoing(path, meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID, size)


def _fitting(
    files: Sequence[_Outgoing | StoreResult],
) -> tuple[list[_Outgoing | StoreResult], list[tuple[UID, UID]]]:
    """The first of `files` that one association can carry, and the contexts for them."""
    batch: list[_Outgoing | StoreResult] = []
    contexts: dict[tuple[UID, UID], None] = {}
    for file in files:
        if isinstance(file, _Outgoing):
            more = [pair for pair in file.contexts if pair not in contexts]
            if len(contexts) + len(more) > MAX_CONTEXTS:
                break
            contexts.update(dict.fromkeys(more))
        batch.append(file)
    return batch, list(contexts)


def _store_over(
    assoc: Association, peer: Peer, batch: Sequence[_Outgoing | StoreResult], timeout: float
) -> Iterator[StoreResult]:
    accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
    ended = False
    for number, file in enumerate(batch):
        if isinstance(file, StoreResult):
            yield file
        elif not accepted.intersection(file.contexts):
            yield _unacceptable(file, peer)
        elif ended:
            reason = f"{peer.name}: the association ended at an earlier instance"
            yield StoreResult(file.path, Outcome.RETRY, reason, tried=False)
        else:
            assoc.dimse_timeout = timeout + file.size / SLOWEST
            try:
                yield _store_one(assoc, peer, file, number % 65535 + 1, file.contexts[0] in accepted)
            except _Ended as end:
                ended = True
                yield StoreResult(file.path, Outcome.RETRY, str(end), tried=end.tried)


class _Ended(PeerError):
    """The association ended; `tried` where it was with this instance."""

    def __init__(self, message: str, *, tried: bool) -> None:
        self.tried = tried
        super().__init__(message)


def _store_one(
    assoc: Association, peer: Peer, file: _Outgoing, message_id: int, as_it_is: bool
) -> StoreResult:
    try:
        data = file.path if as_it_is else pydicom.dcmread(file.path)
        answer = assoc.send_c_store(data, msg_id=message_id)
    except OSError as error:
        assoc.abort()  # half of the message may be with the peer
        raise _Ended(f"the file cannot be read: {error.strerror}", tried=True) from error
    except RuntimeError:
        raise _Ended(f"{peer.name}: the association ended between instances", tried=False) from None
    except (InvalidDicomError, ValueError, AttributeError, EOFError) as error:
        reason = f"the data set cannot be encoded for {peer.name}: {type(error).__name__}"
        return StoreResult(file.path, Outcome.REFUSED, reason)
    status = _status_of(answer)
    if status is None:
        reason = f"{peer.name}: aborted, closed or out of time before the instance was answered"
        raise _Ended(reason, tried=True)
    outcome, reason = of_status(status)
    return StoreResult(file.path, outcome, reason, status)


def _unacceptable(file: _Outgoing, peer: Peer) -> StoreResult:
    reason = f"{peer.name} accepts no {file.sop_class.name} in {file.syntax.name}"
    return StoreResult(file.path, Outcome.REFUSED, reason)


def _status_of(answer: pydicom.Dataset) -> int | None:
    """The status of an answer; None where the association ended instead."""
    return int(answer.Status) if "Status" in answer else None


def _count(match: pydicom.Dataset | None, series_uid: str) -> int | None:
    # Some peers ignore the key they should match, so the answer must be about this series.
    if match is None or match.get("SeriesInstanceUID") != series_uid:
        return None
    try:
        return int(match.get("NumberOfSeriesRelatedInstances"))
    except (TypeError, ValueError):
        return None

"""Associations that we ask for: C-STORE, C-ECHO, and C-FIND for a count.

Each transfer syntax that a file may go in (`outgoing`) has a presentation context of its own, so that
the peer's answer says of each whether it is accepted: the negotiation is the only probe that counts.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pydicom
import pynetdicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.association import Association

from node.config import Peer
from node.dimse.outcome import Outcome, of_status
from node.dimse.outgoing import Outgoing, StoreResult, describe
from node.dimse.requestor import NothingAccepted, associated
from node.errors import PeerError
from node.transcoding import CannotTranscode

# Process-wide, and only for paths given to send_c_store: the file's bytes are sent unparsed.
pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True

VERIFICATION = UID("1.2.840.10008.1.1")
STUDY_ROOT_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
MAX_CONTEXTS = 128  # PS3.8 9.3.2.2: odd identifiers from 1 to 255
SLOWEST = 2**18  # bytes a second that a link must carry at least, before an answer is overdue


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
    described = [describe(path, peer) for path in files]
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
                yield file if isinstance(file, StoreResult) else file.unsupported(peer)


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
                        permanent=outcome.final,
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


def _fitting(
    files: Sequence[Outgoing | StoreResult],
) -> tuple[list[Outgoing | StoreResult], list[tuple[UID, UID]]]:
    """The first of `files` that one association can carry, and the contexts for them."""
    batch: list[Outgoing | StoreResult] = []
    contexts: dict[tuple[UID, UID], None] = {}
    for file in files:
        if isinstance(file, Outgoing):
            more = [pair for pair in file.contexts if pair not in contexts]
            if len(contexts) + len(more) > MAX_CONTEXTS:
                break
            contexts.update(dict.fromkeys(more))
        batch.append(file)
    return batch, list(contexts)


def _store_over(
    assoc: Association, peer: Peer, batch: Sequence[Outgoing | StoreResult], timeout: float
) -> Iterator[StoreResult]:
    accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
    ended = False
    for number, file in enumerate(batch):
        if isinstance(file, StoreResult):
            yield file
        elif not accepted.intersection(file.contexts):
            yield file.unsupported(peer)
        elif ended:
            reason = f"{peer.name}: the association ended at an earlier instance"
            yield StoreResult(file.path, Outcome.RETRY, reason, tried=False)
        else:
            assoc.dimse_timeout = timeout + file.size / SLOWEST
            try:
                syntaxes = [syntax for sop_class, syntax in file.contexts if (sop_class, syntax) in accepted]
                yield _store_one(assoc, peer, file, number % 65535 + 1, syntaxes)
            except _Ended as end:
                ended = True
                yield StoreResult(file.path, Outcome.RETRY, str(end), tried=end.tried)


class _Ended(PeerError):
    """The association ended; `tried` where it was with this instance."""

    def __init__(self, message: str, *, tried: bool) -> None:
        self.tried = tried
        super().__init__(message)


def _store_one(
    assoc: Association, peer: Peer, file: Outgoing, message_id: int, syntaxes: Sequence[UID]
) -> StoreResult:
    """Send a file in the first of the accepted `syntaxes` that its pixels can be had in."""
    try:
        sent = file.encoded(syntaxes)
        answer = assoc.send_c_store(sent.data, msg_id=message_id)
    except CannotTranscode as error:
        reason = f"{peer.name} accepts no uncompressed {file.sop_class.name}, and {error}"
        return StoreResult(file.path, Outcome.UNSUPPORTED, reason)
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
    return StoreResult(file.path, outcome, f"{reason}{file.told(sent, peer)}", status)


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

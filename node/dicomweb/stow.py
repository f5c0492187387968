"""STOW-RS (PS3.18 10.5): one request an instance, streamed from its file unless it is encoded anew."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import requests
from pydicom.uid import UID

from node.config import Peer
from node.dicomweb.session import base_url, said_by, session_with
from node.dimse.outcome import Outcome, of_status
from node.dimse.outgoing import Encoded, Outgoing, StoreResult, describe
from node.dimse.scu import SLOWEST
from node.errors import PeerError

_BOUNDARY = "aenode-6f1d1f5e4c0b4b0f9d2c0d0a1b7e8c55"
_HEADERS = {
    "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
    "Accept": "application/dicom+json",
}
_CHUNK = 1 << 20
_ANSWERED = frozenset({200, 202, 409})  # with a data set that says what became of each instance
_REFUSED = frozenset({400, 406, 411, 413, 415, 422})  # what was sent is at fault, not the way
_NO_REASON = 0x0110
_UNSUPPORTED_MEDIA_TYPE, _SYNTAX_NOT_SUPPORTED = 415, 0xC122  # PS3.18 10.5.3, the status and the reason


def store_each(
    peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float = 30
) -> Generator[StoreResult, None, None]:
    """As `node.dimse.scu.store_each`. Raises PeerError where the peer cannot be reached or lets nobody in.

    A transfer syntax that the peer refuses once is not tried again, and the file goes as it lies.
    """
    known = _Known()
    with session_with(peer) as session:
        for path in files:
            file = describe(path, peer)
            if isinstance(file, StoreResult):
                yield file
            else:
                yield _store_as_taken(session, peer, file, known, timeout)


@dataclass(slots=True)
class _Known:
    """What the peer has shown of itself over a session."""

    refused: set[tuple[UID, UID]] = field(default_factory=set)  # SOP class and transfer syntax
    reads_parameters: bool = True  # of a part's Content-Type; Orthanc 1.10 passes over a part that has one


def _store_as_taken(
    session: requests.Session, peer: Peer, file: Outgoing, known: _Known, timeout: float
) -> StoreResult:
    """Store a file in the first syntax of those wanted that the peer takes, else as it lies."""
    wanted = [s for s in file.wanted if s in file.offered and (file.sop_class, s) not in known.refused]
    try:
        sent = file.encoded([*wanted, file.syntax])
        anew = sent.syntax != file.syntax
        answer = _post(session, peer, sent, file.size, timeout, says_syntax=anew and known.reads_parameters)
    except OSError as error:
        if isinstance(error, requests.RequestException):
            raise
        return StoreResult(file.path, Outcome.RETRY, f"the file cannot be read: {error.strerror}")
    result = _judged(file, peer, answer)
    if anew and (answer.status_code == _UNSUPPORTED_MEDIA_TYPE or result.status == _SYNTAX_NOT_SUPPORTED):
        known.refused.add((file.sop_class, sent.syntax))
    elif anew and known.reads_parameters and result.outcome is Outcome.RETRY and result.status is None:
        known.reads_parameters = False
    else:
        return replace(result, reason=f"{result.reason}{file.told(sent, peer)}")
    return _store_as_taken(session, peer, file, known, timeout)


def _post(
    session: requests.Session, peer: Peer, sent: Encoded, size: int, timeout: float, *, says_syntax: bool
) -> requests.Response:
    with ExitStack() as stack:
        if isinstance(sent.data, Path):
            file: BinaryIO = stack.enter_context(sent.data.open("rb"))
        else:
            file = BytesIO()
            pydicom.dcmwrite(file, sent.data, enforce_file_format=True)
            size = file.tell()
            file.seek(0)
        return session.post(
            f"{base_url(peer)}/studies",
            data=_Body(file, size, sent.syntax if says_syntax else None),
            headers=_HEADERS,
            timeout=(timeout, timeout + size / SLOWEST),
            allow_redirects=False,
        )


def _judged(file: Outgoing, peer: Peer, answer: requests.Response) -> StoreResult:
    if answer.status_code in _REFUSED:
        return StoreResult(file.path, Outcome.REFUSED, f"{peer.name} {said_by(answer)}")
    if answer.status_code not in _ANSWERED:
        raise PeerError(f"{peer.name}: {said_by(answer)}")
    return _result(file.path, str(file.sop_instance), peer, answer)


def answers(peer: Peer, *, timeout: float = 30) -> None:
    """Ask by a request without instances, of which nothing is stored. Raises PeerError where it is not taken.

    A server that knows STOW-RS answers it with 200, or with 400 or 409 because there is nothing to store;
    what answers with a page is another kind of server.
    """
    with session_with(peer) as session:
        answer = session.post(
            f"{base_url(peer)}/studies",
            data=f"--{_BOUNDARY}--\r\n".encode(),
            headers=_HEADERS,
            timeout=timeout,
            allow_redirects=False,
        )
    status = answer.status_code
    if status in (404, 405, 501):
        raise PeerError(f"{peer.name}: has no STOW-RS at {peer.dicomweb} (HTTP {status})")
    page = "text/html" in answer.headers.get("Content-Type", "").lower()
    if page or not (200 <= status < 300 or status in (400, 409)):
        raise PeerError(f"{peer.name}: {said_by(answer)}")


class _Body:
    """The multipart body of one file. Its length is known beforehand: some servers take no other."""

    _TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()

    def __init__(self, file: BinaryIO, size: int, syntax: UID | None) -> None:
        # PS3.18 8.7.3: without the parameter it is Explicit VR Little Endian.
        kind = "application/dicom" if syntax is None else f"application/dicom; transfer-syntax={syntax}"
        self._head = f"--{_BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode()
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._TAIL)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        while chunk := self._file.read(_CHUNK):
            yield chunk
        yield self._TAIL


def _result(path: Path, uid: str, peer: Peer, answer: requests.Response) -> StoreResult:
    """What the answer's data set (PS3.18 table 10.5.3-3) says of an instance."""
    ds = _data_set(answer)
    if ds is None:
        reason = f"{peer.name} {said_by(answer)} and not what became of the instance"
        return StoreResult(path, Outcome.RETRY, reason)
    for item in ds.get("FailedSOPSequence") or []:
        if item.get("ReferencedSOPInstanceUID", uid) == uid:
            status = int(item.get("FailureReason") or _NO_REASON)
            return StoreResult(path, *of_status(status), status)
    for item in ds.get("ReferencedSOPSequence") or []:
        if item.get("ReferencedSOPInstanceUID") == uid:
            status = int(item.get("WarningReason") or 0x0000)
            return StoreResult(path, *of_status(status), status)
    return StoreResult(path, Outcome.RETRY, f"{peer.name}: its answer does not name the instance")


def _data_set(answer: requests.Response) -> pydicom.Dataset | None:
    try:
        found: Any = answer.json()
        # Some servers put the data set into an array, as QIDO-RS has it.
        return pydicom.Dataset.from_json(json.dumps(found[0] if isinstance(found, list) else found))
    except Exception:  # noqa: BLE001 - whatever a malformed answer runs the codec into
        return None

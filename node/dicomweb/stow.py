"""STOW-RS (PS3.18 10.5): each file goes as the bytes that lie on disk, one request an instance."""

import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import requests
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from node.config import Peer
from node.dicomweb.session import base_url, said_by, session_with
from node.dimse.outcome import Outcome, of_status
from node.dimse.scu import SLOWEST, StoreResult
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


def store_each(
    peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float = 30
) -> Generator[StoreResult, None, None]:
    """As `node.dimse.scu.store_each`. Raises PeerError where the peer cannot be reached or lets nobody in."""
    url = f"{base_url(peer)}/studies"
    with session_with(peer) as session:
        for path in files:
            yield _store_one(session, peer, url, path, timeout)


def _store_one(session: requests.Session, peer: Peer, url: str, path: Path, timeout: float) -> StoreResult:
    try:
        uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as error:
        return StoreResult(path, Outcome.RETRY, f"the file cannot be read: {error.strerror}")
    except (InvalidDicomError, AttributeError, ValueError, EOFError) as error:
        return StoreResult(path, Outcome.REFUSED, f"not a DICOM file: {type(error).__name__}")
    with file:
        answer = session.post(
            url,
            data=_Body(file, size),
            headers=_HEADERS,
            timeout=(timeout, timeout + size / SLOWEST),
            allow_redirects=False,
        )
    if answer.status_code in _REFUSED:
        return StoreResult(path, Outcome.REFUSED, f"{peer.name} {said_by(answer)}")
    if answer.status_code not in _ANSWERED:
        raise PeerError(f"{peer.name}: {said_by(answer)}")
    return _result(path, uid, peer, answer)


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

    _HEAD = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    _TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return len(self._HEAD) + self._size + len(self._TAIL)

    def __iter__(self) -> Iterator[bytes]:
        yield self._HEAD
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

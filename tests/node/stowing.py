"""A receiver that takes STOW-RS, and requests to it: well formed, by `requests`, or raw, byte by byte."""

import io
import socket
from collections.abc import Iterable
from pathlib import Path

import requests
from pydicom.dataset import Dataset
from pydicom.filewriter import write_file_meta_info

from node.dicomweb.store_response import STATUSES
from node.index import Index
from node.states import SeriesState
from tests.node.receiver import Receiver, encoded
from tests.peers import LOOPBACK

TOKEN = "s3cret-of-the-cloud"
BOUNDARY = "a-boundary-of-ours"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
CLOUD = """
[dicomweb]
bind = "127.0.0.1:0"
{web}
[[peers]]
name = "cloud"
receive_token_file = "cloud.token"
{peer}
"""


def receiver(folder: Path, *, web: str = "", peer: str = "", node: str = "", **receive: object) -> Receiver:
    """With one peer of DICOMweb alone, which has TOKEN."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cloud.token").write_text(f"{TOKEN}\n")
    return Receiver(folder, node, CLOUD.format(web=web, peer=peer), **receive)


def file_of(ds: Dataset) -> bytes:
    """A data set as a Part-10 file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def as_told(ds: Dataset) -> bytes:
    """A file whose meta information says what it is told, true or not."""
    buffer = io.BytesIO()
    buffer.write(bytes(128) + b"DICM")
    write_file_meta_info(buffer, ds.file_meta)
    return buffer.getvalue() + encoded(ds, ds.file_meta.TransferSyntaxUID)


def multipart(parts: Iterable[bytes], boundary: str = BOUNDARY) -> bytes:
    """The body of a request."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


def post(
    receiver: Receiver, body: object, path: str = "/studies", **headers: str | None
) -> requests.Response:
    """Send a request with the token; underscores of header names are hyphens, None leaves one out."""
    given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": TYPE, "Accept": "application/dicom+json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://{LOOPBACK}:{receiver.server.web_port}{path}"
    answer = requests.post(url, data=body, headers=given, timeout=30)  # type: ignore[arg-type]
    assert answer.status_code in STATUSES  # the conformance statement's
    return answer


def head(path: str = "/studies", **headers: object) -> bytes:
    """The head of a raw request."""
    given = {"Host": LOOPBACK, "Authorization": f"Bearer {TOKEN}", "Content-Type": TYPE}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode()


def raw(receiver: Receiver, *pieces: bytes, shut: bool = False, seconds: float = 10) -> bytes:
    """All that is answered to these bytes, until the node closes."""
    with socket.create_connection((LOOPBACK, receiver.server.web_port or 0), seconds) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    assert not answer or int(answer.split(b" ", 2)[1]) in STATUSES
    return answer


def said(answer: requests.Response) -> Dataset:
    """The Store Instances Response Module."""
    assert answer.headers["Content-Type"] == "application/dicom+json"
    return Dataset.from_json(answer.text)


def referenced(ds: Dataset, keyword: str = "ReferencedSOPSequence") -> list[str]:
    """SOP Instance UIDs of a sequence of it."""
    return [str(item.ReferencedSOPInstanceUID) for item in ds.get(keyword) or []]


def reasons(ds: Dataset, keyword: str = "FailedSOPSequence") -> list[int]:
    """Failure reasons of a sequence of it."""
    return [int(item.FailureReason) for item in ds.get(keyword) or []]


def revision_of(index: Index) -> tuple[str, int, int]:
    """Calling AE, instances and open associations of the one series that is being received."""
    [revision] = index.series_in(SeriesState.RECEIVING)
    arrival = index.arrival_of(revision)
    return revision.calling_ae, len(index.instances_of(revision.id)), arrival.open_associations

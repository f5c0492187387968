"""STOW-RS as provider: what is stored, what each request is answered, and what hostile ones come to."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from tests.node.receiver import Receiver, encoded
from tests.node.stowing import (
    BOUNDARY,
    TOKEN,
    TYPE,
    as_told,
    file_of,
    head,
    multipart,
    post,
    raw,
    reasons,
    receiver,
    referenced,
    revision_of,
    said,
)
from tests.peers import LOOPBACK, wait_for
from tests.series import series, uid


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


def test_instances_are_durable_byte_for_byte_and_wait_as_one_series(node: Receiver) -> None:
    """200; the data set's bytes are those of the file; the request counts as an association of the peer."""
    images = series(5, 32)
    answer = post(node, multipart(map(file_of, images)))
    assert answer.status_code == 200
    uids = [str(ds.SOPInstanceUID) for ds in images]
    assert referenced(said(answer)) == uids
    assert said(answer)["RetrieveURL"].is_empty
    found = node.wait_indexed(5)
    assert {i.sop_instance_uid: node.data_set(i) for i in found} == {
        u: encoded(ds) for u, ds in zip(uids, images, strict=True)
    }
    assert {(i.calling_ae, i.called_ae) for i in found} == {("cloud", "AENODE")}
    wait_for(lambda: revision_of(node.index) == ("cloud", 5, 0), what="the request to be closed")
    assert post(node, multipart([file_of(images[0])])).status_code == 200  # again, unchanged
    assert len(node.spooled()) == 5
    (record,) = (node.spool.data / "audit").iterdir()
    assert 'UserID="cloud"' in record.read_text()


def test_one_connection_serves_many_requests_in_any_pieces(node: Receiver) -> None:
    """Kept alive; chunked or with a length, cut anywhere, with a preamble, an epilogue and no part headers."""
    images = series(4, 16)
    bodies: list[object] = [multipart([file_of(ds)]) for ds in images]
    plain = bytes(bodies[1])  # type: ignore[call-overload]
    bodies[1] = (plain[at : at + 7] for at in range(0, len(plain), 7))
    bodies[2] = b"to be ignored\r\n" + bytes(bodies[2]) + b"and this"  # type: ignore[call-overload]
    bodies[3] = f"--{BOUNDARY}  \r\n\r\n".encode() + file_of(images[3]) + f"\r\n--{BOUNDARY}--".encode()
    with requests.Session() as session:
        session.headers.update({"Authorization": f"bearer {TOKEN}", "Content-Type": TYPE})
        for body in bodies:
            url = f"http://{LOOPBACK}:{node.server.web_port}/studies/"
            answer = session.post(url, data=body, timeout=30)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            assert "Connection" not in answer.headers
    assert len(node.wait_indexed(4)) == 4


def test_each_instance_has_its_reason(node: Receiver) -> None:
    """202 where some are stored; each failure by its code, those without a name apart."""
    good, other_class, other_syntax, lying = series(4, 16)
    other_class.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    other_syntax.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    lying.file_meta.MediaStorageSOPInstanceUID = uid("another")
    parts = [as_told(ds) for ds in (good, lying, other_class, other_syntax)]
    whole = parts[0]
    cut = whole[: len(whole) - len(encoded(good)) + 60]
    parts += [b"<html>", b"", b"x" * 500, whole[:100], whole[:200], cut]
    answer = post(node, multipart(parts))
    assert answer.status_code == 202
    assert referenced(said(answer)) == [str(good.SOPInstanceUID)]
    failed = dict(zip(referenced(said(answer), "FailedSOPSequence"), reasons(said(answer)), strict=True))
    assert failed.pop(uid("another")) == 0xA900
    assert failed.pop(str(other_class.SOPInstanceUID)) == 0x0122
    assert failed.pop(str(other_syntax.SOPInstanceUID)) == 0xC122
    assert set(failed.values()) <= {0xC000}
    assert set(reasons(said(answer), "OtherFailuresSequence")) == {0xC000}
    assert len(node.spooled()) == 1
    assert not list((node.spool.root / "incoming").rglob("*.part"))


def test_a_study_that_is_not_the_path_s_is_a_conflict(node: Receiver) -> None:
    """409 and 0xA900; under its own path it is stored; implicit VR too."""
    (ds,) = series(1, 16)
    answer = post(node, multipart([file_of(ds)]), f"/studies/{uid('another study')}")
    assert answer.status_code == 409
    assert reasons(said(answer)) == [0xA900]
    assert node.spooled() == []
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert post(node, multipart([as_told(ds)]), f"/studies/{ds.StudyInstanceUID}").status_code == 200
    assert node.data_set(node.wait_indexed(1)[0]) == encoded(ds, ImplicitVRLittleEndian)

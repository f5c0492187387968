"""STOW-RS as provider: what is stored, who gets in, and what each request is answered."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    TwelveLeadECGWaveformStorage,
)

from node.cli import aenode
from node.entities import CONTRIBUTING_MANUFACTURER
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
    wait_for((node.spool.data / "audit").exists, what="the audit record")
    (record,) = (node.spool.data / "audit").iterdir()
    assert 'UserID="cloud"' in record.read_text()


def test_one_connection_serves_many_requests_in_any_pieces(node: Receiver) -> None:
    """Kept alive; chunked or with a length, cut anywhere, with a preamble and no part headers."""
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
    other_class.file_meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
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


def test_only_peers_get_in(node: Receiver, tmp_path: Path) -> None:
    """401 without a peer's token, whatever is asked; a renewed one is taken up, a lost one lets nobody in."""
    (ds,) = series(1, 16)
    body = multipart([file_of(ds)])
    for given in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN} x", "Bearer ä"):
        answer = post(node, body, Authorization=given and given.encode("latin-1"))  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert post(node, body, "/nowhere", Authorization=None).status_code == 401
    (tmp_path / "cloud.token").write_text("renewed")
    assert post(node, body).status_code == 401
    assert post(node, body, Authorization="Bearer renewed").status_code == 200
    for lost in ("", "\n"):
        (tmp_path / "cloud.token").write_text(lost)
        assert post(node, body, Authorization="Bearer ").status_code == 401
    (tmp_path / "cloud.token").unlink()
    assert post(node, body, Authorization="Bearer ").status_code == 401


def test_check_says_which_token_is_missing(tmp_path: Path) -> None:
    """`aenode check` reads them as the receiver does."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[dicomweb]\nbind = "127.0.0.1:8081"\n[[peers]]\nname = "cloud"\nreceive_token_file = "cloud.token"\n'
    )
    done = CliRunner().invoke(aenode, ["check", "--config", str(config)])
    assert done.exit_code == 1
    assert f"peer cloud: the token in {tmp_path / 'cloud.token'} cannot be read" in done.output
    (tmp_path / "cloud.token").write_text("x")
    assert CliRunner().invoke(aenode, ["check", "--config", str(config)]).exit_code == 0


def test_our_own_results_are_kept_and_not_routed(node: Receiver) -> None:
    """The loop guard holds for this way in too."""
    (ds,) = series(1, 16)
    item = Dataset()
    item.Manufacturer = CONTRIBUTING_MANUFACTURER
    ds.ContributingEquipmentSequence = [item]
    assert post(node, multipart([file_of(ds)])).status_code == 200
    [found] = node.wait_indexed(1)
    assert found.own_result


def test_a_rejection_note_is_kept(node: Receiver) -> None:
    """A key object selection comes along when a PACS forwards a study; it lacks pixels and nothing else."""
    (ds,) = series(1, 16, series="note")
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    ds.Modality = "KO"
    del ds.PixelData
    assert post(node, multipart([file_of(ds)])).status_code == 200
    [found] = node.wait_indexed(1)
    assert (found.sop_class_uid, found.defect) == (KeyObjectSelectionDocumentStorage, "")


def test_what_is_asked_wrongly_is_answered_so(node: Receiver) -> None:
    """404, 405, 415, 406 and 400, each before the body is read."""
    body = multipart([file_of(series(1, 16)[0])])
    assert post(node, body, "/series").status_code == 404
    assert post(node, body, "/studies/1.2/series").status_code == 404
    assert post(node, body, "/studies/..%2F").status_code == 400
    for kind in (
        "application/dicom",
        'multipart/related; type="application/dicom+json"; boundary=x',
        f"multipart/form-data; boundary={BOUNDARY}",
        "",
    ):
        answer = post(node, body, Content_Type=kind)
        assert answer.status_code == 415
        assert answer.headers["Accept-Post"] == 'multipart/related; type="application/dicom"'
    assert post(node, body, Content_Encoding="gzip").status_code == 415
    assert post(node, body, Accept="application/dicom+xml").status_code == 406
    assert post(node, body, Content_Type='multipart/related; type="application/dicom"').status_code == 400
    for accept in ("*/*", "text/html, application/json;q=0.5", None):
        assert post(node, multipart([]), Accept=accept).status_code == 400  # no part at all
    url = f"http://{LOOPBACK}:{node.server.web_port}/studies"
    known = {"Authorization": f"Bearer {TOKEN}"}
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = requests.request(method, url, headers=known, timeout=10)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")
    answer = requests.options(url, headers=known, timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (200, "OPTIONS, POST")
    assert node.spooled() == []


def test_where_there_is_no_room_the_sender_waits(tmp_path: Path) -> None:
    """503 with Retry-After: low disk, the peer's quota, its limit of requests; within a request 0xA700."""
    images = series(4, 32)
    body = multipart(map(file_of, images))
    with receiver(tmp_path / "low", min_free="1000 TiB") as node:
        answer = post(node, body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        assert node.spooled() == []
    with receiver(tmp_path / "quota", peer='quota = "5 KiB"\nmax_associations = 1') as node:
        with socket.create_connection((LOOPBACK, node.server.web_port or 0)) as slow:
            slow.sendall(head(Content_Length=10_000_000) + body[:3000])
            wait_for(lambda: list((node.spool.root / "incoming").rglob("*.part")), what="a slow request")
            assert post(node, body).status_code == 503
        wait_for(lambda: not node.server._running, what="the slot")
        answer = post(node, body)
        assert answer.status_code == 202
        stored = referenced(said(answer))
        assert 1 <= len(stored) < 4
        assert set(reasons(said(answer))) == {0xA700}
        assert post(node, body).status_code == 503
        assert {i.sop_instance_uid for i in node.spooled()} == set(stored)

"""Real senders against the receiver: what it accepts, what it refuses and how, and that nothing is lost."""

import sqlite3
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RawDataStorage,
)
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

from node.dimse import contexts
from tests import series
from tests.node.hostile import Peer, associate_rq, p_data, pdv, store_rq
from tests.node.receiver import ENVIRONMENT, Receiver, data_set_of, encoded, send
from tests.peers import LOOPBACK, dcmtk, wait_for

CT = (CTImageStorage, [ExplicitVRLittleEndian])


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver shared by the tests that send series of their own."""
    with Receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


def associate(port: int, *pairs: tuple[UID, UID]) -> Association:
    """An association of pynetdicom as SENDER."""
    ae = AE("SENDER")
    built = [build_context(*pair) for pair in pairs or [(contexts.VERIFICATION, ImplicitVRLittleEndian)]]
    return ae.associate(LOOPBACK, port, contexts=built, ae_title="AENODE")


def test_echo(receiver: Receiver) -> None:
    """DCMTK's echoscu is answered."""
    command = [dcmtk("echoscu"), "-aet", "SENDER", "-aec", "AENODE", LOOPBACK, str(receiver.port)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
@pytest.mark.parametrize("longest", [4096, 16384, 131072])
def test_series(receiver: Receiver, tmp_path: Path, tool: str, longest: int) -> None:
    """A series of DCMTK's senders arrives whole and unchanged, whatever the PDU length."""
    images = series.series(4, 128, series=(tool, longest))
    series.write(tmp_path, images)
    sent = send(receiver.port, "--max-send-pdu", str(longest), "+sd", tmp_path, tool=tool)
    assert sent.returncode == 0, sent.stderr
    kept = {ds.SOPInstanceUID: ds for ds in map(dcmread, receiver.files_of(images))}
    assert len(kept) == 4
    for ds in images:
        assert kept[ds.SOPInstanceUID] == Dataset(ds)


def test_implicit(receiver: Receiver, tmp_path: Path) -> None:
    """What a sender transcodes is kept in the syntax that it came in."""
    images = series.series(2, 32, series="implicit")
    series.write(tmp_path, images)
    assert send(receiver.port, "-xi", "+sd", tmp_path).returncode == 0
    syntaxes = {dcmread(path).file_meta.TransferSyntaxUID for path in receiver.files_of(images)}
    assert syntaxes == {ImplicitVRLittleEndian}


@pytest.mark.filterwarnings("ignore")
def test_every_syntax_byte_for_byte(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real files of every class and syntax that we list are kept byte for byte; the rest is refused."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # raw bytes, not encoded again
    files: dict[Path, tuple[UID, UID]] = {}
    for path in sorted((data_dir / "dicom-variety").iterdir()):
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                continue
        meta = dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
        if "MediaStorageSOPInstanceUID" in meta and "TransferSyntaxUID" in meta:
            files[path] = UID(meta.MediaStorageSOPClassUID), meta.TransferSyntaxUID
    syntaxes = {syntax.uid for syntax in contexts.STORAGE_SYNTAXES}
    with Receiver(tmp_path) as receiver:
        assoc = associate(receiver.port, *sorted(set(files.values())))
        assert assoc.is_established
        accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}
        listed = {(c, t) for c, t in files.values() if c in contexts.STORAGE_UIDS and t in syntaxes}
        assert accepted == listed
        sent = []
        for path, pair in files.items():
            ds = dcmread(path, stop_before_pixels=True)
            alike = ds.get("SOPInstanceUID") == ds.file_meta.MediaStorageSOPInstanceUID
            if pair not in accepted or not alike or ds.get("SOPClassUID") != pair[0]:
                continue
            assert assoc.send_c_store(path).Status == 0, path.name
            sent.append(data_set_of(path))
        assoc.release()
        kept = [receiver.data_set(instance) for instance in receiver.spooled()]
    assert len(sent) > 70
    assert {t for _, t in accepted} >= syntaxes - {"1.2.840.10008.1.2.4.202"}
    assert sorted(set(sent)) == sorted(kept)


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        (["-aet", "STRANGER"], "Calling AE Title Not Recognized"),
        (["-aec", "SOMEBODY"], "Called AE Title Not Recognized"),
    ],
)
def test_unknown_titles(receiver: Receiver, tmp_path: Path, titles: list[str], said: str) -> None:
    """An unknown AE is rejected with a reason that its log shows."""
    series.write(tmp_path, series.series(1, 16))
    sent = send(receiver.port, *titles, "+sd", tmp_path)
    assert sent.returncode != 0
    assert said in sent.stderr + sent.stdout


def test_unknown_peers_accepted(tmp_path: Path) -> None:
    """With accept_unknown_peers any calling AE title may send."""
    images = series.series(1, 16)
    series.write(tmp_path / "in", images)
    with Receiver(tmp_path, accept_unknown_peers=True) as receiver:
        assert send(receiver.port, "-aet", "STRANGER", "+sd", tmp_path / "in").returncode == 0
        assert receiver.wait_indexed(1)[0].calling_ae == "STRANGER"


def test_refused_syntax(receiver: Receiver) -> None:
    """A transfer syntax that no codec decodes is refused at negotiation."""
    mpeg = (CTImageStorage, UID("1.2.840.10008.1.2.4.102"))
    assoc = associate(receiver.port, mpeg, (contexts.VERIFICATION, ImplicitVRLittleEndian))
    assert [cx.result for cx in assoc.rejected_contexts] == [4]
    assert assoc.send_c_echo().Status == 0
    assoc.release()


def test_refused_class(receiver: Receiver, tmp_path: Path) -> None:
    """Raw data finds no presentation context, and its sender says so."""
    raw = series.image(1, series.body(1, 8)[0], series="raw")
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = RawDataStorage
    del raw.PixelData
    series.write(tmp_path, [raw])
    sent = send(receiver.port, "-R", "+sd", tmp_path)
    assert "No Acceptable Presentation Contexts" in sent.stderr + sent.stdout


def test_association_limit(tmp_path: Path) -> None:
    """One association too many is rejected as transient, and welcome when another has ended."""
    with Receiver(tmp_path, max_associations=2) as receiver:
        first, second = associate(receiver.port), associate(receiver.port)
        with Peer(receiver.port) as third:
            third.send(associate_rq([CT]))
            assert third.rejected() == (2, 3, 2)
        first.release()
        wait_for(lambda: (again := associate(receiver.port)).is_established and (again.release() or True))
        assert second.send_c_echo().Status == 0
        second.release()


def test_parallel_senders(receiver: Receiver, tmp_path: Path) -> None:
    """Series that come at once do not disturb one another."""
    sent = {name: series.series(6, 128, series=name) for name in "abcd"}
    senders = []
    for name, images in sent.items():
        series.write(tmp_path / name, images)
        command = [dcmtk("storescu"), "-aet", "SENDER", "-aec", "AENODE", LOOPBACK, str(receiver.port)]
        senders.append(subprocess.Popen([*command, "+sd", str(tmp_path / name)], env=ENVIRONMENT))
    assert [sender.wait(60) for sender in senders] == [0] * 4
    for images in sent.values():
        kept = {ds.SOPInstanceUID: ds for ds in map(dcmread, receiver.files_of(images))}
        assert all(kept[ds.SOPInstanceUID] == Dataset(ds) for ds in images)


def test_memory_is_bounded(receiver: Receiver) -> None:
    """A large instance goes to the disk as it comes, not into memory."""
    ds = series.series(1, 16, series="large")[0]
    ds.PixelData = bytes(48 << 20)
    raw = encoded(ds)
    fragments = [p_data(pdv(1, 0, raw[at : at + 100_000])) for at in range(0, len(raw), 100_000)]
    with Peer(receiver.port) as peer:
        peer.associate([CT])
        peer.send(p_data(pdv(1, 3, store_rq(CTImageStorage, ds.SOPInstanceUID))))
        tracemalloc.start()
        for fragment in fragments:
            peer.send(fragment)
        peer.send(p_data(pdv(1, 2, b"")))
        assert peer.status() == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        peer.release()
    assert peak < 4 << 20
    assert [data_set_of(path) for path in receiver.files_of([ds])] == [raw]


def test_small_own_maximum(tmp_path: Path) -> None:
    """A receiver with a small max_pdu gets the same bytes."""
    images = series.series(2, 64)
    series.write(tmp_path / "in", images)
    with Receiver(tmp_path, max_pdu=4096) as receiver:
        assert send(receiver.port, "+sd", tmp_path / "in").returncode == 0
        found = receiver.wait_indexed(2)
        assert {receiver.data_set(i) for i in found} == {encoded(ds) for ds in images}


def test_low_disk(tmp_path: Path) -> None:
    """Below min_free new associations are rejected as transient, and instances under way get 0xA700."""
    ds = series.series(1, 16)[0]
    with Receiver(tmp_path) as receiver, Peer(receiver.port, seconds=20) as early:
        early.associate([CT])
        assert early.store(1, CTImageStorage, ds.SOPInstanceUID, encoded(ds)) == 0
        receiver.configure({"min_free": "1000 TiB"})
        wait_for(lambda: associate(receiver.port).is_rejected, what="a rejection", every=0.1)
        assert early.store(1, CTImageStorage, ds.SOPInstanceUID, encoded(ds)) == 0xA700
        receiver.configure({"min_free": "1 MiB"})
        wait_for(lambda: early.store(1, CTImageStorage, ds.SOPInstanceUID, encoded(ds)) == 0, every=0.1)
        early.release()


def test_bad_settings_leave_the_old_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A settings file that breaks while the receiver runs is refused aloud, and peers may still send."""
    with Receiver(tmp_path) as receiver:
        receiver.configure({"min_free": "much"})
        wait_for(lambda: "is refused" in caplog.text, what="the refusal")
        assert associate(receiver.port).is_established


def test_index_busy(receiver: Receiver, tmp_path: Path) -> None:
    """Instances are acknowledged while the index is locked, and listed when it is free again."""
    images = series.series(3, 16, series="busy")
    series.write(tmp_path, images)
    lock = sqlite3.connect(receiver.spool.data / "index.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert send(receiver.port, "+sd", tmp_path).returncode == 0
    found = [i for i in receiver.spooled() if i.series_instance_uid == images[0].SeriesInstanceUID]
    assert len(found) == 3 and not receiver.indexed(found)
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: receiver.indexed(found), what="the index")

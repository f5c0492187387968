import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import AllStoragePresentationContexts

from node.config import Peer
from node.dimse.outcome import Outcome
from node.dimse.scu import STUDY_ROOT_FIND, count_instances, echo, store_batch, store_each
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import PeerError
from tests.node.scripted import ScriptedSCP
from tests.peers import LOOPBACK, Orthanc, StoreSCP, free_port
from tests.series import series, uid, write

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
CT = [(CTImageStorage, NATIVE)]


def peer_at(port: int, **settings: object) -> Peer:
    return Peer.model_validate(
        {"name": "archive", "ae_title": "ARCHIVE", "address": f"{LOOPBACK}:{port}", **settings}
    )


@contextmanager
def find_provider(
    answer: Callable[[evt.Event], Iterator[tuple[int, pydicom.Dataset | None]]],
) -> Iterator[int]:
    """A C-FIND provider; gives its port."""
    ae = AE()
    ae.add_supported_context(STUDY_ROOT_FIND)
    server = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "files", series(5))


def data_set_bytes(path: Path) -> bytes:
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


# --- what is stored ---


def test_a_batch_arrives_in_orthanc_and_can_be_counted(orthanc: Orthanc, files: list[Path]) -> None:
    """Every file is stored, and a C-FIND tells how many there are."""
    peer = peer_at(orthanc.port)
    echo(peer, "AENODE")
    assert [r.outcome for r in store_batch(peer, "AENODE", files)] == [Outcome.STORED] * 5
    assert len(orthanc.instances()) == 5
    series_uid, study_uid = uid("study", "series"), uid("study")
    assert count_instances(peer, "AENODE", series_uid, study_uid=study_uid) == 5
    assert count_instances(peer, "AENODE", uid("another"), study_uid=study_uid) is None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_the_bytes_on_the_disk_are_the_bytes_on_the_wire(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    """A data set goes out as it lies in its file, compressed or not."""
    images = series(2)
    for ds in images:
        if syntax.is_compressed:
            ds.compress(syntax, generate_instance_uid=False)
    paths = write(tmp_path / "files", images)
    with ScriptedSCP([(CTImageStorage, [syntax])]) as scp:
        results = store_batch(scp.peer(), "AENODE", paths)
    assert [r.status for r in results] == [0x0000, 0x0000]
    assert [data for _, data in scp.received] == [data_set_bytes(path) for path in paths]


def test_a_peer_that_takes_implicit_vr_only_gets_the_same_pixels(tmp_path: Path, files: list[Path]) -> None:
    """Where Explicit VR is refused, an uncompressed data set is encoded anew without loss."""
    with StoreSCP(tmp_path / "scp", "--implicit", "+B") as scp:
        results = store_batch(peer_at(scp.port), "AENODE", files)
        assert [r.outcome for r in results] == [Outcome.STORED] * 5
    for path in files:
        sent = pydicom.dcmread(path)
        came = pydicom.dcmread(next(scp.received.glob(f"*{sent.SOPInstanceUID}")))
        assert came.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert came == sent


def test_more_classes_than_one_association_can_propose_take_two(tmp_path: Path) -> None:
    """128 contexts are the limit of an association, not of a batch."""
    classes = [cx.abstract_syntax for cx in AllStoragePresentationContexts[:70]]
    images = series(70, 8)
    for ds, sop_class in zip(images, classes, strict=True):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    paths = write(tmp_path / "files", images)
    with ScriptedSCP([(sop_class, NATIVE) for sop_class in classes]) as scp:
        results = store_batch(scp.peer(), "AENODE", paths)
    assert [r.status for r in results] == [0x0000] * 70
    assert scp.associations == 2


def test_the_peer_is_told_who_calls(files: list[Path]) -> None:
    """Our AE title and our implementation, not that of a library."""
    with ScriptedSCP(CT) as scp:
        store_batch(scp.peer(), "AENODE", files[:1])
    assert scp.caller == ("AENODE", IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


# --- what is answered ---


ANSWERS = {
    0xB000: Outcome.WARNING,
    0xB006: Outcome.WARNING,
    0xB007: Outcome.WARNING,
    0x0111: Outcome.WARNING,
    0xA700: Outcome.RETRY,
    0xA7F3: Outcome.RETRY,
    0x0110: Outcome.RETRY,
    0xA900: Outcome.REFUSED,
    0xC000: Outcome.REFUSED,
    0xC123: Outcome.REFUSED,
    0x0122: Outcome.UNSUPPORTED,
    0x0124: Outcome.REFUSED,
    0x0000: Outcome.STORED,
}


def test_each_status_has_its_outcome_and_the_next_instance_goes_on(tmp_path: Path) -> None:
    """What a peer answers to one instance says nothing of the others."""
    paths = write(tmp_path / "files", series(len(ANSWERS), 8))
    with ScriptedSCP(CT, lambda number, _: list(ANSWERS)[number - 1]) as scp:
        results = store_batch(scp.peer(), "AENODE", paths)
    assert {r.status: r.outcome for r in results} == ANSWERS
    assert all(f"0x{r.status:04X}" in r.reason for r in results)
    assert scp.associations == 1


def test_a_class_that_the_peer_does_not_accept_is_refused_and_the_others_are_stored(tmp_path: Path) -> None:
    """One refused presentation context costs only the instances that need it."""
    mixed = [*series(2), *series(2, modality="MR", series="mr")]
    paths = write(tmp_path / "files", [mixed[2], mixed[0], mixed[3], mixed[1]])
    with ScriptedSCP(CT) as scp:
        results = store_batch(scp.peer(), "AENODE", paths)
        refused = store_batch(scp.peer(), "AENODE", [paths[0]])
    assert [r.outcome for r in results] == [Outcome.UNSUPPORTED, Outcome.STORED] * 2
    assert results[0].reason.startswith("archive accepts no MR Image Storage in any transfer syntax")
    assert [r.outcome for r in refused] == [Outcome.UNSUPPORTED]
    assert len(scp.received) == 2


def test_a_compressed_file_is_not_sent_to_a_peer_that_cannot_take_it(tmp_path: Path) -> None:
    """Nothing is decompressed behind a person's back; the sentence names the syntax."""
    ds = series(1)[0]
    ds.compress(RLELossless, generate_instance_uid=False)
    with ScriptedSCP(CT) as scp:
        (result,) = store_batch(scp.peer(), "AENODE", write(tmp_path / "files", [ds]))
    assert result.outcome is Outcome.UNSUPPORTED
    assert "RLE Lossless" in result.reason


# --- what breaks ---


def test_an_abort_in_the_middle_tells_what_was_stored_what_failed_and_what_never_went(
    files: list[Path],
) -> None:
    """The instance under way counts as tried, those behind it do not."""
    with ScriptedSCP(CT) as scp:
        scp.aborts_at = 3
        results = store_batch(scp.peer(), "AENODE", files, timeout=10)
    assert [r.outcome.value for r in results] == ["STORED", "STORED", "RETRY", "RETRY", "RETRY"]
    assert [r.tried for r in results] == [True, True, True, False, False]
    assert results[2].status is None


@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
def test_dcmtk_aborting_at_the_first_instance_leaves_all_for_another_try(
    tmp_path: Path, files: list[Path], option: str
) -> None:
    """An A-ABORT is noticed at once and never counts as stored."""
    with StoreSCP(tmp_path / "scp", option) as scp:
        results = store_batch(peer_at(scp.port), "AENODE", files, timeout=10)
    assert {r.outcome for r in results} == {Outcome.RETRY}
    assert [r.tried for r in results] == [True, False, False, False, False]


def test_a_peer_that_answers_too_late_is_left(tmp_path: Path, files: list[Path]) -> None:
    """The timeout bounds the wait for each answer."""
    with StoreSCP(tmp_path / "scp", "--sleep-during", "5") as scp:
        results = store_batch(peer_at(scp.port), "AENODE", files, timeout=0.5)
    assert {r.outcome for r in results} == {Outcome.RETRY}


def test_a_peer_that_stops_reading_does_not_hold_us(tmp_path: Path) -> None:
    """Sending is bounded as well: a stalled peer with a full window ends as a failed attempt."""
    small, large = series(2, 64)
    large.add_new(0x00190010, "LO", "PRIVATE")
    large.add_new(0x00191001, "OB", bytes(20_000_000))
    paths = write(tmp_path / "files", [small, large])
    with StoreSCP(tmp_path / "scp") as scp:
        assert scp._child is not None
        results = store_each(peer_at(scp.port), "AENODE", paths, timeout=1)
        assert next(results).outcome is Outcome.STORED
        os.kill(scp._child.pid, signal.SIGSTOP)
        try:
            assert next(results).outcome is Outcome.RETRY
        finally:
            os.kill(scp._child.pid, signal.SIGCONT)


def test_files_that_cannot_be_sent_do_not_hold_up_the_others(tmp_path: Path, files: list[Path]) -> None:
    """A missing file is tried again, one that is not DICOM never."""
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM here")
    with ScriptedSCP(CT) as scp:
        results = store_batch(scp.peer(), "AENODE", [files[0], tmp_path / "gone.dcm", text, files[1]])
    assert [r.outcome.value for r in results] == ["STORED", "RETRY", "REFUSED", "STORED"]
    assert results[1].reason == "the file cannot be read: No such file or directory"


def test_nothing_that_names_a_patient_is_logged(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """Even at the level of debug."""
    caplog.set_level(logging.DEBUG)
    with ScriptedSCP(CT, lambda _n, _uid: 0xC000) as scp:
        store_batch(scp.peer(), "AENODE", files)
    ds = pydicom.dcmread(files[0])
    assert caplog.text
    for value in (ds.PatientID, str(ds.PatientName), "Person", ds.PatientBirthDate, ds.AccessionNumber):
        assert value not in caplog.text


# --- when there is no association ---


def test_a_peer_that_does_not_listen_is_worth_another_try(files: list[Path]) -> None:
    """A refused connection is a transient error that names the address."""
    peer = peer_at(free_port())
    with pytest.raises(PeerError, match=str(peer.address)) as error:
        store_batch(peer, "AENODE", files)
    assert not error.value.permanent


def test_a_name_that_cannot_be_resolved_is_worth_another_try() -> None:
    """A name server that is away comes back."""
    peer = Peer(name="archive", ae_title="A", address="no-such-host.invalid:104")
    with pytest.raises(PeerError, match="cannot be found") as error:
        echo(peer, "AENODE", timeout=5)
    assert not error.value.permanent


def test_a_peer_without_an_address_cannot_be_called() -> None:
    """A peer that only sends is no destination."""
    with pytest.raises(PeerError, match="no address") as error:
        echo(Peer(name="ct", ae_title="CT1"), "AENODE")
    assert error.value.permanent


def test_dcmtk_refusing_for_good_is_not_tried_again(tmp_path: Path, files: list[Path]) -> None:
    """A permanent rejection is told from a transient one, however fast the peer hangs up."""
    with StoreSCP(tmp_path / "scp", "--refuse") as scp:
        for _ in range(10):
            with pytest.raises(PeerError, match="Rejected Permanent") as error:
                store_batch(peer_at(scp.port), "AENODE", files)
            assert error.value.permanent


@pytest.mark.parametrize(
    ("rejection", "permanent", "words"),
    [
        ((1, 1, 7), True, "Called AE title not recogni"),
        ((1, 1, 3), True, "Calling AE title not recogni"),
        ((2, 3, 2), False, "Local limit exceeded"),
        ((2, 3, 1), False, "Temporary congestion"),
    ],
)
def test_a_rejection_says_why_and_whether_to_try_again(
    files: list[Path], rejection: tuple[int, int, int], permanent: bool, words: str
) -> None:
    """Result, source and reason of PS3.8 9.3.4 in words."""
    with ScriptedSCP(CT) as scp:
        scp.rejects = rejection
        with pytest.raises(PeerError, match=words) as error:
            store_batch(scp.peer(), "AENODE", files)
    assert error.value.permanent is permanent


def test_a_peer_that_never_answers_the_request_is_left(files: list[Path]) -> None:
    """A port that accepts connections and says nothing costs the timeout, no more."""
    with socket.create_server((LOOPBACK, 0)) as silent:
        peer = peer_at(silent.getsockname()[1])
        with pytest.raises(PeerError, match=r"not answered in 0\.3 s") as error:
            store_batch(peer, "AENODE", files, timeout=0.3)
    assert not error.value.permanent


# --- counting ---


def test_a_peer_without_c_find_does_not_say(tmp_path: Path) -> None:
    """None, not an error: completion then goes by its quiet period."""
    with StoreSCP(tmp_path / "scp") as scp:
        assert count_instances(peer_at(scp.port), "AENODE", uid("x")) is None


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([(uid("x"), "312")], 312),
        ([(uid("other"), "7"), (uid("x"), "3")], 3),
        ([(uid("x"), None)], None),
        ([], None),
    ],
)
def test_only_what_the_peer_says_of_this_series_counts(
    answers: list[tuple[str, str | None]], count: int | None
) -> None:
    """The key is optional, and some peers do not match on the series."""

    def found(_: evt.Event) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        for series_uid, number in answers:
            match = pydicom.Dataset()
            match.SeriesInstanceUID, match.NumberOfSeriesRelatedInstances = series_uid, number
            yield 0xFF00, match

    with find_provider(found) as port:
        assert count_instances(peer_at(port), "AENODE", uid("x"), study_uid=uid("study")) == count


def test_a_failed_query_is_an_error() -> None:
    """A status of failure is not the same as no answer."""

    def failed(_: evt.Event) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        yield 0xA700, None

    with find_provider(failed) as port, pytest.raises(PeerError, match="0xA700") as error:
        count_instances(peer_at(port), "AENODE", uid("x"))
    assert not error.value.permanent

"""Odd instances: kept and set apart, or refused with the status that says why; the rest goes on."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from node.entities import CONTRIBUTING_MANUFACTURER
from node.header import MISSING_PIXELS
from node.spool import CONFLICT
from node.states import SeriesState
from tests import series
from tests.node.hostile import Peer
from tests.node.receiver import Receiver, data_set_of, encoded, send

CT = (CTImageStorage, [ExplicitVRLittleEndian])


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver shared by the tests that send series of their own."""
    with Receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


def store(receiver: Receiver, ds: Dataset, raw: bytes, **said: str) -> int:
    """Send raw bytes as SENDER; `said` replaces what the command says of them."""
    with Peer(receiver.port) as peer:
        peer.associate([CT, (MRImageStorage, [ExplicitVRLittleEndian])])
        sop_class = said.get("sop_class", ds.SOPClassUID)
        context = 1 if sop_class == CTImageStorage else 3
        status = peer.store(context, sop_class, said.get("sop_instance", ds.SOPInstanceUID), raw)
        peer.release()
    return status


def test_disagreement(receiver: Receiver) -> None:
    """Command and data set that disagree on class or instance are answered with 0xA900, and not kept."""
    ds = series.series(1, 16, series="disagree")[0]
    assert store(receiver, ds, encoded(ds), sop_instance="1.2.3.4") == 0xA900
    assert store(receiver, ds, encoded(ds), sop_class=MRImageStorage) == 0xA900
    assert receiver.files_of([ds]) == []


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_nameless(receiver: Receiver, keyword: str) -> None:
    """A data set without its SOP UIDs is answered with 0xC000."""
    ds = series.series(1, 16, series="nameless")[0]
    assert store(receiver, ds, without(ds, keyword)) == 0xC000


@pytest.mark.parametrize("raw", [b"\0\1\2\3" * 200, b"\x08\0\x16\0UI\x40\0" + b"1" * 20])
def test_undecodable(receiver: Receiver, raw: bytes) -> None:
    """A header that cannot be decoded is answered with 0xC000, and the association lives on."""
    ds = series.series(1, 16, series="noise")[0]
    with Peer(receiver.port) as peer:
        peer.associate([CT])
        assert peer.store(1, CTImageStorage, ds.SOPInstanceUID, raw) == 0xC000
        assert peer.store(1, CTImageStorage, ds.SOPInstanceUID, encoded(ds)) == 0
        peer.release()


def without(ds: Dataset, *keywords: str) -> bytes:
    bare = copy.deepcopy(ds)
    for keyword in keywords:
        del bare[keyword]
    return encoded(bare)


@pytest.mark.parametrize(
    ("what", "defect"),
    [
        ("cut", "it was cut short in element (7FE0,0010)"),
        ("StudyInstanceUID", "StudyInstanceUID is missing"),
        ("SeriesInstanceUID", "SeriesInstanceUID is missing"),
        ("PixelData", MISSING_PIXELS),
    ],
)
def test_odd_instances_are_kept(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, what: str, defect: str
) -> None:
    """An odd instance is kept, listed with its defect and left out of its series; the rest goes on."""
    odd, sound = series.series(2, 16, series=("odd", what))
    raw = encoded(odd)[:-100] if what == "cut" else without(odd, what)
    with caplog.at_level(logging.WARNING, "aenode.receive"):
        assert store(receiver, odd, raw) == 0
    assert defect in caplog.text and odd.SOPInstanceUID in caplog.text
    assert store(receiver, sound, encoded(sound)) == 0
    paths = receiver.files_of([odd, sound])
    assert raw in [data_set_of(path) for path in paths]
    uid = "" if what == "SeriesInstanceUID" else odd.SeriesInstanceUID
    assert [i.defect for i in receiver.index.defects_of(uid)] == [defect]
    uid = sound.SeriesInstanceUID
    receiving = receiver.index.series_in(SeriesState.RECEIVING)
    [revision] = [s for s in receiving if s.series_instance_uid == uid]
    assert [i.sop_instance_uid for i in receiver.index.instances_of(revision.id)] == [sound.SOPInstanceUID]


def test_duplicates_and_conflict(receiver: Receiver, tmp_path: Path) -> None:
    """A second send of a series stores nothing; other content under a UID is kept and set apart."""
    images = series.series(3, 16, series="twice")
    series.write(tmp_path, images)
    for _ in range(2):
        assert send(receiver.port, "+sd", tmp_path).returncode == 0
    assert len(receiver.files_of(images)) == 3
    other = series.image(1, series.body(1, 16, seed=9)[0], series="twice")
    assert store(receiver, other, encoded(other)) == 0
    assert len(receiver.files_of(images)) == 4
    assert [i.defect for i in receiver.index.defects_of(images[0].SeriesInstanceUID)] == [CONFLICT]


def test_own_result(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Our own result is accepted and marked, so that the router leaves it alone, and the log says so."""
    ds = series.series(1, 16, series="own")[0]
    item = Dataset()
    item.Manufacturer = CONTRIBUTING_MANUFACTURER
    ds.ContributingEquipmentSequence = [item]
    with caplog.at_level(logging.INFO, "aenode.receive"):
        assert store(receiver, ds, encoded(ds)) == 0
    assert "results of ours; they are kept and not routed" in caplog.text
    [instance] = [i for i in receiver.spooled() if i.sop_instance_uid == ds.SOPInstanceUID]
    assert instance.own_result


def test_no_patient_in_the_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the patient's name nor the ID reaches the log, whatever goes wrong."""
    ds = series.series(1, 16, series="secret")[0]
    ds.PatientName, ds.PatientID = "Secret^Person", "SECRET-7"
    raw = encoded(ds)
    with caplog.at_level(logging.DEBUG):
        for sent in (raw, raw[:-9], raw[:300], raw.replace(b"UI", b"??")):
            store(receiver, ds, sent)
    assert ds.SOPInstanceUID in caplog.text
    assert "ecret" not in caplog.text and "SECRET" not in caplog.text

"""The spool keeps what was received, byte for byte, whatever its sender calls it."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.header import Header
from node.spool import CONFLICT, Inbox, Origin, Spool, SpoolError
from tests import series
from tests.node.receiver import data_set_of, encoded

NOW = datetime(2026, 1, 2, 10, 20, 30, 456, tzinfo=UTC)
PATH = re.compile(r"spool/[0-9a-f]{2}/[0-9a-f]{32}/[0-9a-f]{32}(\.[0-9a-f]{16})?\.dcm")
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def origin(ds: Dataset, syntax: UID = ExplicitVRLittleEndian, **changes: str) -> Origin:
    words = {
        "sop_class_uid": ds.SOPClassUID,
        "sop_instance_uid": ds.SOPInstanceUID,
        "transfer_syntax_uid": syntax,
        "calling_ae": "SENDER",
        "called_ae": "AENODE",
        "association": "f" * 32,
    }
    return Origin(**{**words, **changes})


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@given(
    pixels=st.binary(max_size=3000).map(lambda b: b + b"\0" * (len(b) % 2)),
    syntax=st.sampled_from(SYNTAXES),
    calling=st.from_regex(r"[ -\[\]-~]{0,15}[!-\[\]-~]", fullmatch=True),
    at=st.datetimes(timezones=st.just(UTC)),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(tmp_path: Path, pixels: bytes, syntax: UID, calling: str, at: datetime) -> None:
    """The bytes come back unchanged, pydicom reads the file, and the index can be rebuilt from it."""
    spool = Spool(tmp_path)
    ds = series.series(1, 4, series=(pixels, syntax, calling, at))[0]
    ds.PixelData = pixels
    raw = encoded(ds, syntax)
    kept = spool.store(raw, origin(ds, syntax, calling_ae=calling.strip()), at)
    path = spool.data / kept.path
    assert data_set_of(path) == raw
    assert spool.read(kept.path) == kept
    assert kept.size == path.stat().st_size
    assert kept.defect == ""
    meta = dcmread(path, stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == syntax
    assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert meta.SendingApplicationEntityTitle == calling.strip()
    assert meta.ReceivingApplicationEntityTitle == "AENODE"


def test_duplicate(spool: Spool) -> None:
    """An identical instance is stored once, and the later receipt is reported."""
    ds = series.series(1, 8)[0]
    first = spool.store(encoded(ds), origin(ds), NOW)
    later = datetime(2026, 1, 3, tzinfo=UTC)
    again = spool.store(encoded(ds), origin(ds, association="e" * 32), later)
    assert (again.path, again.sha256, again.size, again.defect) == (first.path, first.sha256, first.size, "")
    assert (again.association, again.received_at) == ("e" * 32, later)
    assert list(spool.walk()) == [first]


def test_conflict(spool: Spool) -> None:
    """Other content under the same UID is kept beside the first, with a defect, and once."""
    one, other = series.series(1, 8)[0], series.series(1, 8, seed=1)[0]
    first = spool.store(encoded(one), origin(one), NOW)
    second = spool.store(encoded(other), origin(other), NOW)
    assert second.defect == CONFLICT
    assert second.path != first.path
    assert spool.store(encoded(other), origin(other), NOW) == second
    assert spool.store(encoded(one), origin(one), NOW) == first
    assert data_set_of(spool.data / first.path) == encoded(one)
    assert data_set_of(spool.data / second.path) == encoded(other)
    assert sorted(spool.walk(), key=lambda i: i.defect) == [first, second]


def test_sound_after_defective(spool: Spool) -> None:
    """A whole instance is sound though the same one came cut short before."""
    ds = series.series(1, 8)[0]
    cut = spool.store(encoded(ds)[:-10], origin(ds), NOW)
    assert "cut short" in cut.defect
    whole = spool.store(encoded(ds), origin(ds), NOW)
    assert whole.defect == ""
    assert sorted(spool.walk(), key=lambda i: i.defect) == [whole, cut]


@given(
    uids=st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=300)] * 2),
    titles=st.tuples(*[st.text(max_size=16)] * 2),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_names(tmp_path: Path, uids: tuple[str, str], titles: tuple[str, str]) -> None:
    """Nothing that a peer says becomes part of a path, however it is called."""
    instance_uid, series_uid = uids
    said = origin(
        series.series(1, 4)[0], sop_instance_uid=instance_uid, calling_ae=titles[0], called_ae=titles[1]
    )
    with Inbox(Spool(tmp_path)) as inbox, inbox.receive(said) as incoming:
        incoming.write(b"data")
        kept = incoming.keep(Header("1.2", instance_uid, "1.3", series_uid), NOW)
    assert PATH.fullmatch(str(kept.path))
    assert data_set_of(tmp_path / kept.path) == b"data"
    assert {path.name for path in tmp_path.iterdir()} == {"spool"}


@pytest.mark.parametrize("uid", ["../../../../etc/passwd", "/etc/passwd", "..", "a\0b", "1.2\n3", "x" * 5000])
def test_traversal(spool: Spool, uid: str) -> None:
    """UIDs that try to leave the spool are stored inside it."""
    ds = series.series(1, 4)[0]
    kept = spool.store(encoded(ds), origin(ds, sop_instance_uid=uid), NOW)
    assert PATH.fullmatch(str(kept.path))
    assert (spool.data / kept.path).resolve().is_relative_to(spool.root.resolve())


def test_synchronised_before_it_returns(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synchronised before it gets its name, and the folder after, before keep returns."""
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'folder'}")

    def watched_link(source: Path, target: Path) -> None:
        link(source, target)
        done.append(f"link {target.suffix}")

    ds = series.series(1, 4)[0]
    with Inbox(spool) as inbox, inbox.receive(origin(ds)) as incoming:
        incoming.write(encoded(ds))
        found = incoming.header()
        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "link", watched_link)
        kept = incoming.keep(found, NOW)
    assert done == ["fsync folder"] * 3 + ["fsync .part", "link .dcm", "fsync folder"]
    assert (spool.data / kept.path).exists()


def test_same_uid_from_many_threads(spool: Spool) -> None:
    """Of contents that arrive at once under one UID none is lost, and exactly one is sound."""
    images = [series.series(1, 8, seed=seed)[0] for seed in range(4)] * 2
    start = threading.Barrier(len(images))
    with Inbox(spool) as inbox:

        def keep(ds: Dataset) -> None:
            with inbox.receive(origin(ds)) as incoming:
                incoming.write(encoded(ds))
                found = incoming.header()
                start.wait()
                incoming.keep(found, NOW)

        threads = [threading.Thread(target=keep, args=(ds,)) for ds in images]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    kept = list(spool.walk())
    assert {data_set_of(spool.data / i.path) for i in kept} == {encoded(ds) for ds in images}
    assert len(kept) == 4
    assert sum(not i.defect for i in kept) == 1


KILLED = """
import sys
from pathlib import Path
from node.spool import Inbox, Origin, Spool
with Inbox(Spool(Path(sys.argv[1]))) as inbox:
    said = Origin(sop_class_uid="1", sop_instance_uid="2", transfer_syntax_uid="3", calling_ae="A",
                  called_ae="B", association="C")
    with inbox.receive(said) as incoming:
        incoming.write(b"half of it")
        print(inbox.id, flush=True)
        sys.stdin.read()
"""


def test_killed_while_receiving(spool: Spool) -> None:
    """What a killed receiver left is swept, its id is known until it is buried; a living one's stays."""
    ds = series.series(1, 4)[0]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(spool.data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    name = child.stdout.readline().strip()
    incoming = spool.root / "incoming"
    with Inbox(spool) as living, living.receive(origin(ds)) as part:
        part.write(b"begun")
        with Inbox(spool) as other:
            assert other.dead == ()
        child.send_signal(signal.SIGKILL)
        child.wait()
        with child.stdin, child.stdout:
            pass
        assert len(list(incoming.glob("*/*.part"))) == 2
        with Inbox(spool) as other:
            assert other.dead == (name,)
            assert [p.parent.name for p in incoming.glob("*/*.part")] == [living.id]
        with Inbox(spool) as other:
            assert other.dead == (name,), "not buried yet"
            other.bury()
        with Inbox(spool) as other:
            assert other.dead == ()
    assert list(incoming.iterdir()) == []
    assert list(spool.walk()) == []


def test_discarded(spool: Spool) -> None:
    """An instance that is not kept leaves nothing behind."""
    with Inbox(spool) as inbox:
        with inbox.receive(origin(series.series(1, 4)[0])) as incoming:
            incoming.write(b"some")
        assert list(spool.root.glob("incoming/*/*.part")) == []


def test_damaged_file(spool: Spool) -> None:
    """A file of the spool that lost its end is named, and not taken for sound."""
    ds = series.series(1, 8)[0]
    kept = spool.store(encoded(ds), origin(ds), NOW)
    path = spool.data / kept.path
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"\0" * 128 + b"DICM"):
        path.write_bytes(damaged)
        with pytest.raises(SpoolError, match=re.escape(str(kept.path))):
            list(spool.walk())


@pytest.mark.parametrize("keep", [-1, 200, 0])
def test_damaged_file_is_mended(spool: Spool, keep: int) -> None:
    """A second receipt takes the place of a file that was damaged meanwhile; that one is set aside."""
    ds = series.series(1, 8)[0]
    kept = spool.store(encoded(ds), origin(ds), NOW)
    path = spool.data / kept.path
    path.write_bytes(path.read_bytes()[:keep])
    assert spool.store(encoded(ds), origin(ds), NOW) == kept
    assert data_set_of(path) == encoded(ds)
    assert path.with_suffix(".damaged").exists()
    assert list(spool.walk()) == [kept]


def test_folder_removed_meanwhile(spool: Spool) -> None:
    """A series folder that was removed is made again."""
    first, second = series.series(2, 8)
    with Inbox(spool) as inbox:
        for ds in (first, second):
            with inbox.receive(origin(ds)) as incoming:
                incoming.write(encoded(ds))
                kept = incoming.keep(incoming.header(), NOW)
            path = spool.data / kept.path
            assert path.exists()
            path.unlink()
            path.parent.rmdir()


def test_no_space(spool: Spool) -> None:
    """A file that cannot be written any further raises OSError and leaves nothing behind."""
    ds = series.series(1, 4)[0]
    with Inbox(spool) as inbox, pytest.raises(OSError) as caught, inbox.receive(origin(ds)) as incoming:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, incoming._file.fileno())
        os.close(full)
        incoming.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    assert list(spool.root.rglob("*.part")) == []


def test_free(spool: Spool) -> None:
    """The free space is that of the spool's file system."""
    space = os.statvfs(spool.data)
    assert abs(spool.free() - space.f_bavail * space.f_frsize) < 1 << 30


def test_paths_leave_others_out(spool: Spool) -> None:
    """Only instances are walked, series by series."""
    for name in ("b", "a"):
        for ds in series.series(3, 4, series=name):
            spool.store(encoded(ds), origin(ds), NOW)
    found = list(spool.paths())
    (spool.data / found[0]).with_suffix(".txt").write_bytes(b"")
    (spool.root / "notes").mkdir()
    assert list(spool.paths()) == found
    folders = [path.parent for path in found]
    assert len(found) == 6 and len(set(folders)) == 2 and folders == sorted(folders)

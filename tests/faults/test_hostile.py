"""Peers that mean harm or are broken: the receiver goes on, in bounded memory and time."""

import os
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from node import header
from node.header import HeaderError
from tests.node.hostile import Peer, associate_rq, p_data, pdv, store_rq
from tests.node.receiver import Receiver, encoded, send
from tests.peers import wait_for
from tests.series import series, uid, write

CT = [(CTImageStorage, [ExplicitVRLittleEndian])]
CONNECTIONS = int(os.environ.get("AENODE_CONNECTIONS", "3000"))
ROOM = 48 << 20  # bytes that the receiver may grow by under attack


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(tmp_path, acse_timeout_seconds=2, dimse_timeout_seconds=1, max_associations=8) as running:
        yield running


def resident() -> int:
    """Bytes of memory of this process, in which the receiver runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def still_receives(receiver: Receiver, folder: Path) -> None:
    """An honest sender is served."""
    name = str(time.monotonic_ns())
    write(folder / name, series(1, 16, series=name))
    wait_for(lambda: send(receiver.port, "+sd", folder / name).returncode == 0, seconds=30, every=0.2)


def store(receiver: Receiver, raw: bytes, syntax: str, sop_instance: str = "1.2.3") -> int:
    """The status that a data set is answered with."""
    with Peer(receiver.port, 60) as peer:
        peer.associate([(CTImageStorage, [syntax])])
        return peer.store(1, CTImageStorage, sop_instance, raw)


@pytest.mark.parametrize(
    "attack",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\0\xff\xff\xff\xff",
        b"\x04\0\xff\xff\xff\xff" + b"\0" * 100,
        associate_rq(CT) + b"\x04\0\xff\xff\xff\xff",
        associate_rq(CT) + p_data(b"\xff\xff\xff\xff\x01\x03"),
        associate_rq(CT) + p_data(pdv(1, 3, b"\xff" * 4000)),
        associate_rq(CT)[:50],
    ],
)
def test_garbage_and_lengths_of_4_gib_end_the_association(
    receiver: Receiver, tmp_path: Path, attack: bytes
) -> None:
    """Nothing is allocated for what a length promises."""
    before = resident()
    for _ in range(20):
        with Peer(receiver.port) as peer:
            peer.send(attack)
    still_receives(receiver, tmp_path)
    assert resident() - before < ROOM


def test_connections_that_are_opened_and_left_cost_nothing_lasting(
    receiver: Receiver, tmp_path: Path
) -> None:
    """So many at once as the limit lets in, thousands in all; memory and threads are given back."""
    before = resident()
    for _ in range(CONNECTIONS):
        with Peer(receiver.port) as peer:
            peer.send(associate_rq(CT)[:40])
    wait_for(lambda: not receiver.server._running, what="all to be gone")
    assert resident() - before < ROOM
    still_receives(receiver, tmp_path)


def test_a_peer_that_drips_bytes_has_its_slot_for_a_bounded_time(receiver: Receiver) -> None:
    """An instance must be whole in time, however lively its sender looks."""
    began = time.monotonic()
    with Peer(receiver.port) as peer:
        peer.associate(CT)
        peer.send(p_data(pdv(1, 3, store_rq(CTImageStorage, "1.2.3"))))
        ended = False
        while not ended and time.monotonic() - began < 8:
            try:
                peer.send(p_data(pdv(1, 0, b"\0" * 8)))
            except OSError:
                ended = True
            time.sleep(0.1)  # the drip is the attack
    assert time.monotonic() - began < 5
    wait_for(lambda: not receiver.server._running, what="the slot")
    assert not list((receiver.spool.root / "incoming").rglob("*.part"))


def test_a_quota_and_a_limit_bind_one_peer_and_no_other(tmp_path: Path) -> None:
    """A transient rejection for who took its share; the others are served."""
    receiver = Receiver(tmp_path)
    text = receiver.config.read_text()
    quota = 'ae_title = "SENDER"\nquota = "3 KiB"\nmax_associations = 1'
    receiver.config.write_text(text.replace('ae_title = "SENDER"', quota))
    receiver.file.refresh()
    with receiver:
        with Peer(receiver.port) as first, Peer(receiver.port) as second:
            first.associate(CT)
            second.send(associate_rq(CT))
            assert second.rejected() == (2, 3, 2)
        wait_for(lambda: not receiver.server._running)
        write(tmp_path / "in", series(4, 32))
        assert send(receiver.port, "+sd", tmp_path / "in").returncode != 0
        assert 1 <= len(receiver.spooled()) < 4
        with Peer(receiver.port) as again:
            again.send(associate_rq(CT))
            assert again.rejected() == (2, 3, 2)
        done = send(receiver.port, "-aet", "MODALITY", "+sd", tmp_path / "in")
        assert done.returncode == 0, done.stderr


def test_data_sets_made_to_hurt_are_answered_and_cost_little(receiver: Receiver, tmp_path: Path) -> None:
    """Deep nesting, a deflate bomb, 65,535 × 65,535 pixels that are not there, UIDs like paths, lies."""
    before = resident()
    ds = series(1, 16)[0]
    nested = b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    assert store(receiver, nested, ExplicitVRLittleEndian) == 0xC000
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeeze.compress(encoded(ds)[:200]) + b"".join(
        squeeze.compress(bytes(1 << 20)) for _ in range(600)
    )
    assert store(receiver, bomb + squeeze.flush(), DeflatedExplicitVRLittleEndian) in (0x0000, 0xA900, 0xC000)
    ds.Rows = ds.Columns = 65535
    assert store(receiver, encoded(ds), ExplicitVRLittleEndian, ds.SOPInstanceUID) == 0x0000
    ds.SOPInstanceUID = uid("path")
    series_uid = str(ds.SeriesInstanceUID).encode()
    path = b"../" * 6 + b"etc/cron.d/".ljust(len(series_uid) - 18, b"x")
    raw = encoded(ds).replace(series_uid, path)
    assert path in raw
    assert store(receiver, raw, ExplicitVRLittleEndian, uid("path")) == 0x0000
    assert store(receiver, raw, ExplicitVRLittleEndian, uid("another")) == 0xA900
    root = receiver.spool.root.resolve()
    assert all(path.resolve().is_relative_to(root) for path in root.rglob("*"))
    assert resident() - before < ROOM
    still_receives(receiver, tmp_path)


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """0xA700 while it is full, every acknowledged instance whole, and on again when there is room."""
    disk = tmp_path / "node" / "data"
    disk.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that needs the right to mount")
    try:
        with Receiver(tmp_path / "node", min_free="0 B") as receiver:
            ballast = disk / "ballast"
            write(tmp_path / "in", series(40, 128))  # 32 KiB each
            ballast.write_bytes(bytes(3 << 20))
            done = send(receiver.port, "-v", "+sd", tmp_path / "in")
            assert done.returncode != 0
            acknowledged = (done.stdout + done.stderr).count("Received Store Response (Success)")
            held = receiver.spooled()
            assert 0 < acknowledged == len(held) < 40
            assert not list((receiver.spool.root / "incoming").rglob("*.part"))
            ballast.unlink()
            done = send(receiver.port, "+sd", tmp_path / "in")
            assert done.returncode == 0, done.stderr
            assert len(receiver.wait_indexed(40)) == 40
    finally:
        subprocess.run(["umount", disk], check=True)


_WHOLE = encoded(series(1, 16)[0])


@settings(max_examples=150, deadline=None)
@example(cut=10, at=0, flip=b"")
@given(
    cut=st.integers(0, len(_WHOLE)),
    at=st.integers(0, len(_WHOLE) - 1),
    flip=st.binary(max_size=12),
)
def test_no_header_raises_anything_but_a_header_error(cut: int, at: int, flip: bytes) -> None:
    """Cut short, and with bytes overwritten anywhere."""
    raw = bytearray(_WHOLE)
    raw[at : at + len(flip)] = flip
    for syntax in (ExplicitVRLittleEndian, "1.2.840.10008.1.2", DeflatedExplicitVRLittleEndian):
        try:
            header.read(bytes(raw[: len(raw) - cut]), syntax)
        except HeaderError:
            continue

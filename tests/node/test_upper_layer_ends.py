"""Peers that fall silent, break off or send noise: the association ends, and nothing is half stored."""

import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dimse import contexts
from tests import series
from tests.node.hostile import ABORT, RELEASE, Peer, associate_rq, echo_rq, p_data, pdv, store_rq
from tests.node.receiver import Receiver, encoded
from tests.peers import wait_for

VERIFICATION = (contexts.VERIFICATION, [ImplicitVRLittleEndian])
BOTH = [VERIFICATION, (CTImageStorage, [ExplicitVRLittleEndian])]
PROVIDER, NOT_SPECIFIED = 2, 0


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One receiver for all hostile peers of this module: what one does must not harm the next."""
    folder = tmp_path_factory.mktemp("receiver")
    with Receiver(folder, max_pdu=8192, acse_timeout_seconds=0.6, idle_timeout_seconds=0.8) as running:
        yield running


@pytest.fixture
def peer(receiver: Receiver) -> Iterator[Peer]:
    with Peer(receiver.port) as connected:
        yield connected


@pytest.fixture(autouse=True)
def still_serves(receiver: Receiver) -> Iterator[None]:
    """After each test the receiver answers a well-behaved peer, and holds no unfinished file."""
    yield
    with Peer(receiver.port) as good:
        good.associate([VERIFICATION])
        good.send(p_data(pdv(1, 3, echo_rq())))
        assert good.status() == 0
        good.release()
    wait_for(lambda: not list(receiver.spool.root.glob("incoming/*/*.part")), what="unfinished files to go")


@pytest.mark.parametrize("ending", [ABORT, RELEASE, b""])
def test_ends_within_an_instance(peer: Peer, receiver: Receiver, ending: bytes) -> None:
    """An abort, a release or a lost connection within an instance leaves nothing of it behind."""
    peer.associate(BOTH)
    ds = series.series(1, 32, series=("half", ending))[0]
    raw = encoded(ds)
    peer.send(p_data(pdv(3, 3, store_rq(CTImageStorage, ds.SOPInstanceUID)), pdv(3, 0, raw[:900])))
    wait_for(lambda: list(receiver.spool.root.glob("incoming/*/*.part")), what="the unfinished file")
    peer.send(ending)
    if ending == RELEASE:
        assert peer.read()[0] == 6
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.closed()
    assert ds.SOPInstanceUID not in [i.sop_instance_uid for i in receiver.spooled()]


@pytest.mark.parametrize("sent", [b"", b"\x01\0\0\0", associate_rq(BOTH)[:100]])
def test_silent_before_the_request(peer: Peer, sent: bytes) -> None:
    """A connection that asks for nothing in time is aborted (ARTIM)."""
    peer.send(sent)
    begun = time.monotonic()
    assert peer.aborted() == (PROVIDER, NOT_SPECIFIED)
    assert 0.4 < time.monotonic() - begun < 3


@pytest.mark.parametrize("sent", [b"", b"\x04\0\0", p_data(pdv(3, 3, store_rq(CTImageStorage, "1.2.3")))])
def test_silent_within_the_association(peer: Peer, sent: bytes) -> None:
    """An association that falls silent is aborted after the idle time, half a PDU or message or none."""
    peer.associate(BOTH)
    peer.send(sent)
    begun = time.monotonic()
    assert peer.aborted() == (PROVIDER, NOT_SPECIFIED)
    assert 0.5 < time.monotonic() - begun < 4


def test_dribbling_pdu(peer: Peer) -> None:
    """A PDU that comes byte by byte for ever does not hold its association for ever."""
    peer.associate(BOTH)
    begun = time.monotonic()
    peer.send(b"\x04\0\0\0\x10\0")
    with pytest.raises(OSError):
        while time.monotonic() - begun < 10:
            peer.send(b"\0")
            time.sleep(0.05)
    assert time.monotonic() - begun < 5


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise(receiver: Receiver, parts: list[bytes], associated: bool) -> None:
    """Whatever bytes come, the association ends and nothing of it is stored."""
    before = len(list(receiver.spool.paths()))
    with Peer(receiver.port) as peer:
        if associated:
            peer.associate(BOTH)
        try:
            for part in parts:
                peer.send(part)
            peer.socket.shutdown(socket.SHUT_WR)
            while True:
                peer.read()
        except (OSError, EOFError):
            pass
    assert len(list(receiver.spool.paths())) == before


def test_no_pixel_of_this_module_is_half_stored(receiver: Receiver) -> None:
    """After all that, each file of the spool is whole."""
    assert all(not instance.defect for instance in receiver.spooled())

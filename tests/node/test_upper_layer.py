"""The upper layer against peers that break the rules: each is answered by the book, none harms another."""

import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.pdu import A_ASSOCIATE_AC

from node.dimse import contexts
from node.dimse.pdu import p_data as response_pdus
from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests import series
from tests.node.hostile import (
    RELEASE,
    Peer,
    associate_rq,
    command_set,
    echo_rq,
    p_data,
    pdv,
    store_rq,
)
from tests.node.receiver import Receiver, encoded
from tests.peers import wait_for

VERIFICATION = (contexts.VERIFICATION, [ImplicitVRLittleEndian])
CT = (CTImageStorage, [ExplicitVRLittleEndian])
BOTH = [VERIFICATION, CT]
PROVIDER = 2
NOT_SPECIFIED, UNRECOGNIZED, UNEXPECTED, UNEXPECTED_PARAMETER, INVALID = 0, 1, 2, 5, 6


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


def test_answer_to_a_request(peer: Peer) -> None:
    """The A-ASSOCIATE-AC says who we are, our maximum, and accepts or refuses each context for a reason."""
    offered = [
        VERIFICATION,
        CT,
        (CTImageStorage, ["1.2.840.10008.1.2.4.100"]),
        ("1.2.3.4.5", [ImplicitVRLittleEndian]),
    ]
    body = peer.associate(offered)
    answer = A_ASSOCIATE_AC()
    answer.decode(b"\x02\0" + struct.pack(">I", len(body)) + body)
    results = {cx.context_id: cx.result for cx in answer.presentation_context}
    assert results == {1: 0, 3: 0, 5: 4, 7: 3}
    assert answer.user_information is not None
    assert answer.user_information.maximum_length == 8192
    assert answer.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert answer.user_information.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    peer.release()
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.closed()


def test_protocol_version(peer: Peer) -> None:
    """A request that does not offer version 1 of the protocol is rejected for that."""
    rq = bytearray(associate_rq(BOTH))
    rq[7] = 2
    peer.send(bytes(rq))
    assert peer.rejected() == (1, 2, 2)


def test_application_context(peer: Peer) -> None:
    """Another application context is rejected for that."""
    peer.send(associate_rq(BOTH).replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"))
    assert peer.rejected() == (1, 1, 2)


@pytest.mark.parametrize(("who", "why"), [({"called": "OTHER"}, 7), ({"calling": "STRANGER"}, 3)])
def test_titles(peer: Peer, who: dict[str, str], why: int) -> None:
    """A wrong called and an unknown calling AE title are rejected permanently, by the user."""
    peer.send(associate_rq(BOTH, **who))  # type: ignore[arg-type]  # only titles are given
    assert peer.rejected() == (1, 1, why)


def test_titles_that_are_not_text(peer: Peer) -> None:
    """AE titles of arbitrary bytes are unknown AE titles."""
    rq = bytearray(associate_rq(BOTH))
    rq[26:42] = bytes(range(0xF0, 0x100))
    peer.send(bytes(rq))
    assert peer.rejected() == (1, 1, 3)


def test_short_request(peer: Peer) -> None:
    """An A-ASSOCIATE-RQ without its fixed fields is aborted."""
    peer.send(struct.pack(">BxI", 1, 20) + bytes(20))
    assert peer.aborted() == (PROVIDER, INVALID)


@pytest.mark.parametrize("at", [78, 80, 110, 130])
def test_malformed_items(peer: Peer, at: int) -> None:
    """An A-ASSOCIATE-RQ with a broken item length is aborted or answered, and closes."""
    rq = bytearray(associate_rq(BOTH))
    rq[at : at + 2] = b"\xff\xff"
    peer.send(bytes(rq))
    kind, body = peer.read()
    assert (kind, body[2:4]) == (7, bytes([PROVIDER, INVALID])) or kind in (2, 3)


@pytest.mark.parametrize("first", [p_data(pdv(1, 3, echo_rq())), RELEASE, b"\x06\0\0\0\0\x04\0\0\0\0"])
def test_pdu_before_the_association(peer: Peer, first: bytes) -> None:
    """Any PDU but a request before an association is unexpected."""
    peer.send(first)
    assert peer.aborted() == (PROVIDER, UNEXPECTED)


def test_second_request(peer: Peer) -> None:
    """A second request within an association is unexpected."""
    peer.associate(BOTH)
    peer.send(associate_rq(BOTH))
    assert peer.aborted() == (PROVIDER, UNEXPECTED)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc"]
)
def test_another_protocol(peer: Peer, garbage: bytes) -> None:
    """HTTP and TLS on the DICOM port are no PDUs."""
    peer.send(garbage)
    assert peer.aborted() == (PROVIDER, UNRECOGNIZED)


def test_garbage_within_an_association(peer: Peer) -> None:
    """An unknown PDU type within an association aborts it."""
    peer.associate(BOTH)
    peer.send(b"\x99" * 64)
    assert peer.aborted() == (PROVIDER, UNRECOGNIZED)


@pytest.mark.parametrize(
    "header", [b"\x01\0\xff\xff\xff\xff", b"\x04\0\x7f\xff\xff\xff", b"\x05\0\0\1\0\0", b"\x04\0\0\0\x20\x20"]
)
def test_oversized_pdu(peer: Peer, header: bytes) -> None:
    """A PDU that claims to be longer than its kind may be is aborted, and none of it is awaited."""
    if header[0] != 1:
        peer.associate(BOTH)
    peer.send(header)
    assert peer.aborted() == (PROVIDER, INVALID)


def test_largest_pdu(peer: Peer) -> None:
    """A P-DATA of exactly the negotiated maximum is taken."""
    peer.associate(BOTH)
    ds = series.series(1, 64)[0]
    raw = encoded(ds)
    peer.send(p_data(pdv(3, 3, store_rq(CTImageStorage, ds.SOPInstanceUID))))
    room = 8192 - 6
    parts = [raw[at : at + room] for at in range(0, len(raw), room)]
    for part in parts[:-1]:
        peer.send(p_data(pdv(3, 0, part)))
    assert len(parts[0]) == room
    peer.send(p_data(pdv(3, 2, parts[-1])))
    assert peer.status() == 0
    peer.release()


def test_tiny_fragments(peer: Peer, receiver: Receiver) -> None:
    """Command and data set may come in PDVs of one byte, many in one PDU, and bytes may dribble in."""
    peer.associate(BOTH)
    ds = series.series(1, 4, series="tiny")[0]
    raw, rq = encoded(ds), store_rq(CTImageStorage, ds.SOPInstanceUID)
    stream = p_data(*[pdv(3, 1, rq[k : k + 1]) for k in range(len(rq) - 1)], pdv(3, 3, rq[-1:]))
    stream += p_data(*[pdv(3, 0, raw[k : k + 1]) for k in range(len(raw) - 1)])
    stream += p_data(pdv(3, 0, b""), pdv(3, 2, raw[-1:]))
    for at in range(0, len(stream), 97):
        peer.send(stream[at : at + 97])
    assert peer.status() == 0
    assert raw in [receiver.data_set(i) for i in receiver.spooled()]
    peer.release()


@pytest.mark.parametrize("max_pdu", [0, 7, 20, 128, 1 << 20])
def test_peers_maximum(peer: Peer, max_pdu: int) -> None:
    """Our responses obey the peer's maximum, however small; 0 means none."""
    peer.associate(BOTH, max_pdu=max_pdu)
    peer.send(p_data(pdv(1, 3, echo_rq(513))))
    answer = peer.response()
    assert answer[0x0120] == struct.pack("<H", 513)
    assert answer[0x0100] == b"\x30\x80"


@given(st.binary(min_size=1, max_size=300), st.integers(7, 400))
def test_response_pdus(data: bytes, max_pdu: int) -> None:
    """A response in PDUs of a bounded length holds the same bytes, the last fragment marked."""
    stream, found, controls = response_pdus(5, data, max_pdu), b"", []
    while stream:
        kind, length = struct.unpack_from(">BxI", stream)
        assert kind == 4 and length <= max_pdu
        assert struct.unpack_from(">IB", stream, 6) == (length - 4, 5)
        controls.append(stream[11])
        found += stream[12 : 6 + length]
        stream = stream[6 + length :]
    assert found == data
    assert controls == [1] * (len(controls) - 1) + [3]


@pytest.mark.parametrize(
    ("pdvs", "reason"),
    [
        ([pdv(9, 3, echo_rq())], INVALID),  # no such context
        ([pdv(1, 2, b"data first")], UNEXPECTED_PARAMETER),
        ([pdv(1, 1, echo_rq()[:9]), pdv(3, 3, echo_rq()[9:])], UNEXPECTED_PARAMETER),  # context changes
        ([pdv(3, 3, store_rq(CTImageStorage, "1.2")), pdv(3, 3, echo_rq())], UNEXPECTED_PARAMETER),
        ([pdv(1, 3, b"not a command set")], INVALID),
        ([pdv(1, 3, command_set(e0100=0x8030, e0120=1, e0800=0x0101, e0900=0))], UNEXPECTED_PARAMETER),
        ([struct.pack(">IBB", 5000, 1, 3)], INVALID),  # the PDV is longer than its PDU
        ([struct.pack(">IBB", 1, 1, 3)], INVALID),  # a PDV without its own header
        ([b"\0\0"], INVALID),
    ],
)
def test_malformed_message(peer: Peer, pdvs: list[bytes], reason: int) -> None:
    """PDVs that make no message abort the association, with a reason that fits."""
    peer.associate(BOTH)
    peer.send(p_data(*pdvs))
    assert peer.aborted() == (PROVIDER, reason)


def test_endless_command(peer: Peer) -> None:
    """A command set without end is aborted, not collected."""
    peer.associate(BOTH)
    with pytest.raises((ConnectionError, EOFError)):
        for _ in range(1000):
            peer.send(p_data(pdv(1, 1, bytes(8000))))
            time.sleep(0)
        peer.read()
        peer.read()


def test_unknown_operation(peer: Peer) -> None:
    """A C-FIND is an unrecognized operation; its data set is thrown away, and the association lives."""
    peer.associate(BOTH)
    rq = command_set(e0002=CTImageStorage, e0100=0x0020, e0110=3, e0700=0, e0800=0)
    peer.send(p_data(pdv(3, 3, rq)) + p_data(pdv(3, 0, b"query")) + p_data(pdv(3, 2, b"rest")))
    answer = peer.response()
    assert (answer[0x0100], answer[0x0900]) == (b"\x20\x80", b"\x11\x02")
    peer.send(p_data(pdv(1, 3, echo_rq())))
    assert peer.status() == 0


def test_cancel_is_ignored(peer: Peer) -> None:
    """A C-CANCEL gets no answer."""
    peer.associate(BOTH)
    cancel = command_set(e0100=0x0FFF, e0120=1, e0800=0x0101)
    peer.send(p_data(pdv(3, 3, cancel)) + p_data(pdv(1, 3, echo_rq(11))))
    assert peer.response()[0x0120] == b"\x0b\0"


def test_store_on_the_verification_context(peer: Peer) -> None:
    """C-STORE on a context of another service is an unrecognized operation."""
    peer.associate(BOTH)
    peer.send(p_data(pdv(1, 3, store_rq(CTImageStorage, "1.2.3")), pdv(1, 2, b"data")))
    assert peer.status() == 0x0211


def test_store_of_another_class(peer: Peer) -> None:
    """A C-STORE of a class that its context was not negotiated for is refused."""
    peer.associate(BOTH)
    peer.send(p_data(pdv(3, 3, store_rq(MRImageStorage, "1.2.3")), pdv(3, 2, b"data")))
    assert peer.status() == 0x0122


def test_store_without_data_set(peer: Peer) -> None:
    """A C-STORE that announces no data set cannot be understood."""
    peer.associate(BOTH)
    rq = command_set(e0002=CTImageStorage, e0100=1, e0110=3, e0700=0, e0800=0x0101, e1000="1.2.3")
    peer.send(p_data(pdv(3, 3, rq)))
    assert peer.status() == 0xC000

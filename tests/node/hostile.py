"""A scripted peer on a raw socket: sends what it is told, well formed or not, and reads PDUs."""

import socket
import struct
from collections.abc import Sequence
from typing import Self

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from node.dimse import pdu
from tests.peers import LOOPBACK

RELEASE = b"\x05\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
Contexts = Sequence[tuple[str, Sequence[str]]]


def associate_rq(
    contexts: Contexts, *, calling: str = "SENDER", called: str = "AENODE", max_pdu: int = 16384
) -> bytes:
    """An A-ASSOCIATE-RQ; context ids are 1, 3, 5, …"""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    built = []
    for number, (abstract, syntaxes) in enumerate(contexts):
        context = build_context(abstract, list(syntaxes))
        context.context_id = 2 * number + 1
        built.append(context)
    primitive.presentation_context_definition_list = built
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID("1.2.3.4")
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    """One PDV. Control: 1 command, 2 last."""
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    """One P-DATA-TF."""
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def command_set(**elements: int | str) -> bytes:
    """A command set; keywords are of the form e0100=0x0001, text makes a UI."""
    body = b""
    for name, value in sorted(elements.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        else:
            raw = value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, int(name[1:], 16), len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store_rq(sop_class: str, sop_instance: str, message_id: int = 1) -> bytes:
    """The command set of a C-STORE-RQ."""
    return command_set(
        e0002=sop_class, e0100=0x0001, e0110=message_id, e0700=0, e0800=0x0000, e1000=sop_instance
    )


def echo_rq(message_id: int = 7) -> bytes:
    """The command set of a C-ECHO-RQ."""
    return command_set(e0002="1.2.840.10008.1.1", e0100=0x0030, e0110=message_id, e0800=0x0101)


class Peer:
    """A connection to a receiver."""

    def __init__(self, port: int, seconds: float = 10) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def read(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; EOFError at the end of the stream."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def closed(self) -> bool:
        """Whether the other side closes now, without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def aborted(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that comes next, after which the other side closes."""
        kind, body = self.read()
        assert kind == pdu.PDUType.ABORT, kind
        self.socket.shutdown(socket.SHUT_WR)
        assert self.closed()
        return body[2], body[3]

    def rejected(self) -> tuple[int, int, int]:
        """Result, source and reason of the A-ASSOCIATE-RJ that comes next."""
        kind, body = self.read()
        assert kind == pdu.PDUType.ASSOCIATE_RJ, kind
        return body[1], body[2], body[3]

    def associate(self, contexts: Contexts, **words: str | int) -> bytes:
        """Associate; returns the body of the A-ASSOCIATE-AC."""
        self.send(associate_rq(contexts, **words))  # type: ignore[arg-type]  # words are associate_rq's own
        kind, body = self.read()
        assert kind == pdu.PDUType.ASSOCIATE_AC, kind
        return body

    def response(self) -> dict[int, bytes]:
        """The elements of the next response's command set, by element number."""
        data, control = b"", 0
        while not control & 2:
            kind, body = self.read()
            assert kind == pdu.PDUType.P_DATA, kind
            at = 0
            while at < len(body):
                length = int.from_bytes(body[at : at + 4], "big")
                control = body[at + 5]
                data += body[at + 6 : at + 4 + length]
                at += 4 + length
        elements, at = {}, 0
        while at < len(data):
            _, element, length = struct.unpack_from("<HHI", data, at)
            elements[element] = data[at + 8 : at + 8 + length]
            at += 8 + length
        return elements

    def status(self) -> int:
        """The status of the next response."""
        return int.from_bytes(self.response()[0x0900], "little")

    def store(self, context_id: int, sop_class: str, sop_instance: str, raw: bytes) -> int:
        """Send a data set by C-STORE, in PDUs of at most 4096 bytes; returns the status."""
        self.send(p_data(pdv(context_id, 3, store_rq(sop_class, sop_instance))))
        for at in range(0, len(raw), 4000):
            self.send(p_data(pdv(context_id, 2 if at + 4000 >= len(raw) else 0, raw[at : at + 4000])))
        return self.status()

    def release(self) -> None:
        """Release the association in order."""
        self.send(RELEASE)
        kind, _ = self.read()
        assert kind == pdu.PDUType.RELEASE_RP, kind

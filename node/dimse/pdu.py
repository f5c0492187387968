"""Protocol data units on a connection (PS3.8 9.3): framing, limits, and the short ones we send."""

import struct
import time
from enum import IntEnum
from typing import Protocol

from node.dimse.status import AbortReason, AbortSource, Rejection
from node.errors import AenodeError

_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
HEADER_BYTES = 6
PDV_HEADER_BYTES = 6
LONGEST_ASSOCIATE = 1 << 20  # 128 presentation contexts, each with all known syntaxes, need a quarter
# Some peers count the headers of PDU and PDV out of the maximum length; that harms nobody.
_TOLERANCE = HEADER_BYTES + PDV_HEADER_BYTES
_ROOM = 64 << 10  # beside one longest P-DATA, so that a read can take the next one's beginning along


class PDUType(IntEnum):
    """PS3.8 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


_TYPES = frozenset(int(kind) for kind in PDUType)


class ProtocolViolation(AenodeError):
    """The peer breaks the protocol; the association is aborted with `reason` (PS3.8 9.3.8)."""

    def __init__(self, reason: AbortReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class ConnectionClosed(AenodeError):
    """The peer closed its side of the connection, or the network did."""


class Connection(Protocol):
    """A connected socket, plain or wrapped for TLS. Reads and writes raise TimeoutError in time."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read what is there into the buffer; 0 at the end of the stream."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Write all of the data."""
        ...

    def shutdown(self, how: int, /) -> None:
        """Called from another thread with SHUT_RD: a read that waits returns 0."""
        ...

    def settimeout(self, value: float | None, /) -> None:
        """Seconds that a read or a write may take."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class PDUReader:
    """Splits a connection's stream into PDUs, without copying them and without trusting their lengths."""

    def __init__(self, connection: Connection, max_pdu: int) -> None:
        self._connection = connection
        self._longest = max_pdu + _TOLERANCE
        self._buffer = memoryview(bytearray(HEADER_BYTES + self._longest + _ROOM))
        self._start = self._end = 0

    def read(self, seconds: float) -> tuple[int, memoryview]:
        """The type and the body of the next PDU. The body is valid until the next call.

        A PDU must be whole within `seconds`, twice that where its last bytes come in time. Raises
        TimeoutError, ConnectionClosed, and ProtocolViolation for a type or length that cannot be.
        """
        deadline = 0.0
        while True:
            have = self._end - self._start
            need = HEADER_BYTES
            if have >= HEADER_BYTES:
                kind, length = _HEADER.unpack_from(self._buffer, self._start)
                need += self._checked(kind, length)
                if have >= need:
                    body = self._buffer[self._start + HEADER_BYTES : self._start + need]
                    self._start += need
                    return kind, body
            self._make_room(have, need)
            got = self._connection.recv_into(self._buffer[self._end :])
            if got == 0:
                raise ConnectionClosed("the peer closed the connection" + (" within a PDU" if have else ""))
            self._end += got
            # The clock is asked only where a PDU comes in pieces.
            now = time.monotonic()
            deadline = deadline or now + seconds
            if now > deadline:
                raise TimeoutError(f"a PDU was not whole within {seconds:g} s")

    def _checked(self, kind: int, length: int) -> int:
        if kind not in _TYPES:
            raise ProtocolViolation(AbortReason.UNRECOGNIZED_PDU, f"PDU of type 0x{kind:02X}")
        if kind == PDUType.P_DATA:
            limit = self._longest
        elif kind in (PDUType.ASSOCIATE_RQ, PDUType.ASSOCIATE_AC):
            limit = LONGEST_ASSOCIATE
        else:
            limit = 4
        if length > limit:
            sentence = f"PDU of type 0x{kind:02X} with {length} bytes, at most {limit} are allowed"
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, sentence)
        return length

    def _make_room(self, have: int, need: int) -> None:
        size = len(self._buffer)
        if have == 0:
            self._start = self._end = 0
        elif self._start + need > size or self._end == size:
            left = bytes(self._buffer[self._start : self._end])
            if need > size:
                self._buffer = memoryview(bytearray(need + _ROOM))
            self._buffer[:have] = left
            self._start, self._end = 0, have


def rejection(why: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return struct.pack(">BxIxBBB", PDUType.ASSOCIATE_RJ, 4, why.result, why.source, why.reason)


def release_response() -> bytes:
    """An A-RELEASE-RP (PS3.8 9.3.7)."""
    return struct.pack(">BxI4x", PDUType.RELEASE_RP, 4)


def abort(source: AbortSource, reason: AbortReason) -> bytes:
    """An A-ABORT (PS3.8 9.3.8)."""
    return struct.pack(">BxIxxBB", PDUType.ABORT, 4, source, reason)


def p_data(context_id: int, command: bytes, max_pdu: int) -> bytes:
    """A command set as P-DATA-TF PDUs (PS3.8 9.3.5), none longer than the peer's maximum (0: no maximum)."""
    room = max(max_pdu - PDV_HEADER_BYTES, 1) if max_pdu else len(command)
    pdus = []
    for at in range(0, len(command), room):
        part = command[at : at + room]
        control = 0x03 if at + room >= len(command) else 0x01
        pdus.append(_HEADER.pack(PDUType.P_DATA, len(part) + PDV_HEADER_BYTES))
        pdus.append(_PDV_HEADER.pack(len(part) + 2, context_id, control))
        pdus.append(part)
    return b"".join(pdus)

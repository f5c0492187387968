"""Command sets (PS3.7 6.3.1 and E): read and written directly, as they are a handful of short elements.

pydicom's codec does the same in a millisecond, which would be a third of the cost of an instance;
a test holds this one against it.
"""

import re
import struct
from dataclasses import dataclass

from node.dimse.status import Status
from node.errors import AenodeError

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x0030, 0x0FFF, 0x0100
RESPONSE = 0x8000  # added to a request's field
NO_DATA_SET = 0x0101

_HEADER = struct.Struct("<HHI")
_US = struct.Struct("<H")
_SOP_CLASS, _FIELD, _MESSAGE_ID, _DATA_SET_TYPE = 0x0002, 0x0100, 0x0110, 0x0800
_REQUESTED_SOP_CLASS, _SOP_INSTANCE = 0x0003, 0x1000
_COMMENT_CHARACTERS = 64  # (0000,0902) is an LO


class CommandError(AenodeError):
    """Bytes that are no command set, or one without an element it must have."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request: what it asks for, its number, and what it is about."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def decode(data: bytes | bytearray) -> Command:
    """Read a command set, implicit VR little endian. Raises CommandError."""
    values: dict[int, bytes] = {}
    at, end = 0, len(data)
    while at < end:
        if at + 8 > end:
            raise CommandError("a command set that is cut short")
        group, element, length = _HEADER.unpack_from(data, at)
        at += 8
        if group != 0 or length > end - at:
            raise CommandError(f"element ({group:04X},{element:04X}) of {length} bytes in a command set")
        values[element] = bytes(data[at : at + length])
        at += length
    field = _number(values, _FIELD)
    # Only C-CANCEL and responses have no MessageID.
    needs_id = field != C_CANCEL_RQ and not field & RESPONSE
    return Command(
        field,
        _number(values, _MESSAGE_ID) if needs_id else 0,
        _uid(values.get(_SOP_CLASS) or values.get(_REQUESTED_SOP_CLASS, b"")),
        _uid(values.get(_SOP_INSTANCE, b"")),
        _number(values, _DATA_SET_TYPE) != NO_DATA_SET,
    )


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise CommandError(f"a command set without (0000,{element:04X})")
    return int(_US.unpack(value)[0])


def _uid(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace").strip(" \0")


def response(request: Command, status: Status, comment: str = "") -> bytes:
    """The command set that answers a request, without a data set (PS3.7 9.3 and 10.3)."""
    elements = [
        (_FIELD, _US.pack(request.field | RESPONSE)),
        (0x0120, _US.pack(request.message_id)),
        (_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        (0x0900, _US.pack(status)),
    ]
    if request.sop_class_uid:
        elements.insert(0, (_SOP_CLASS, _padded(request.sop_class_uid, b"\0")))
    if comment:
        printable = re.sub(r"[^ -\[\]-~]", "?", comment)  # an LO holds neither controls nor backslashes
        elements.append((0x0902, _padded(printable[:_COMMENT_CHARACTERS], b" ")))
    if request.sop_instance_uid:
        elements.append((_SOP_INSTANCE, _padded(request.sop_instance_uid, b"\0")))
    body = b"".join(_HEADER.pack(0, element, len(value)) + value for element, value in elements)
    return _HEADER.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding if len(value) % 2 else value

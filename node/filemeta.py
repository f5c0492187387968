"""The Part-10 preamble and file meta information of a spooled instance (PS3.10 7.1).

Beside what the standard asks for, the private information (0002,0102) holds what the index needs
to be rebuilt: association, time of receipt, size and SHA-256 of the data set. All of it has a fixed
length, so the data set can be written first and the meta information put before it afterwards.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from struct import Struct

from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import AenodeError
from node.header import Encoded, HeaderError, elements

_PREAMBLE = bytes(128) + b"DICM"
_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_FIRST = len(_PREAMBLE) + len(_GROUP_LENGTH) + 4  # offset of the element after the group length
_PRIVATE_BYTES = 256
_LONGEST = 1 << 20
_SHORT, _LONG, _UINT32 = Struct("<HH2sH"), Struct("<HH2sHI"), Struct("<I")


class FileMetaError(AenodeError):
    """A file of the spool is none that the spool wrote, or is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What the head of a spooled file says of it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    association: str  # at most 64 characters
    received_at: datetime
    size: int  # bytes of the data set
    sha256: str  # of the data set

    def encode(self) -> bytes:
        """Preamble, prefix and file meta information. The length depends on the UIDs and AE titles alone."""
        receipt = {
            "association": self.association[:64],
            "received_at": self.received_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "size": self.size,
            "sha256": self.sha256,
        }
        private = json.dumps(receipt, separators=(",", ":")).encode("ascii")
        if len(private) > _PRIVATE_BYTES:
            raise FileMetaError("the receipt is too long for its place in the file meta information")
        group = b"".join(
            (
                _LONG.pack(2, 0x0001, b"OB", 0, 2) + b"\0\x01",
                _element(0x0002, b"UI", self.sop_class_uid),
                _element(0x0003, b"UI", self.sop_instance_uid),
                _element(0x0010, b"UI", self.transfer_syntax_uid),
                _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
                _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
                _element(0x0016, b"AE", self.calling_ae),
                _element(0x0017, b"AE", self.calling_ae),
                _element(0x0018, b"AE", self.called_ae),
                _element(0x0100, b"UI", IMPLEMENTATION_CLASS_UID),
                _LONG.pack(2, 0x0102, b"OB", 0, _PRIVATE_BYTES) + private.ljust(_PRIVATE_BYTES),
            )
        )
        return _PREAMBLE + _GROUP_LENGTH + _UINT32.pack(len(group)) + group


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "backslashreplace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(2, number, vr, len(value)) + value


def decode(head: Encoded) -> tuple[FileMeta, int]:
    """The file meta information that a file begins with, and the offset of its data set.

    Raises FileMetaError where it is not one that `FileMeta.encode` made.
    """
    values: dict[int, bytes] = {}
    try:
        if bytes(head[: _FIRST - 4]) != _PREAMBLE + _GROUP_LENGTH:
            raise FileMetaError("no preamble and file meta information as the spool writes them")
        (length,) = _UINT32.unpack_from(head, _FIRST - 4)
        end = _FIRST + length
        if length > _LONGEST or end > len(head):
            raise FileMetaError("the file meta information is cut short")
        for element in elements(head, _FIRST, end, implicit=False):
            values[element.tag & 0xFFFF] = bytes(head[element.start : element.start + element.length])
        receipt = json.loads(values[0x0102])
        return FileMeta(
            sop_class_uid=_text(values[0x0002]),
            sop_instance_uid=_text(values[0x0003]),
            transfer_syntax_uid=_text(values[0x0010]),
            calling_ae=_text(values[0x0017]),
            called_ae=_text(values[0x0018]),
            association=str(receipt["association"]),
            received_at=datetime.fromisoformat(receipt["received_at"]),
            size=int(receipt["size"]),
            sha256=str(receipt["sha256"]),
        ), end
    except (HeaderError, KeyError, ValueError, TypeError) as error:
        raise FileMetaError(f"the file meta information cannot be read: {error!r}") from None


def _text(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace").strip(" \0")

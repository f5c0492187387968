"""The beginning of a DICOM file that comes in pieces: its file meta information (PS3.10 7.1)."""

import re
from dataclasses import dataclass
from struct import Struct

from node.errors import AenodeError

_PREAMBLE_BYTES = 128
_LONGEST = 1 << 20
_LONG_VRS = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV"})
_SHORT, _UINT32 = Struct("<HH2sH"), Struct("<I")
_GROUP_LENGTH, _SOP_CLASS, _SOP_INSTANCE, _SYNTAX = 0x0000, 0x0002, 0x0003, 0x0010


class NotPart10(AenodeError):
    """Bytes are no DICOM file: no preamble, or no file meta information that can be read."""


@dataclass(frozen=True, slots=True)
class Named:
    """What the file meta information says of a file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class FileHead:
    """Gathers the head of one file, at most a mebibyte."""

    def __init__(self) -> None:
        self._gathered = bytearray()
        self._at = _PREAMBLE_BYTES + 4
        self._end: int | None = None  # as the group length says
        self._values: dict[int, bytes] = {}

    def add(self, data: memoryview) -> tuple[Named, bytes] | None:
        """The file's names and the first bytes of its data set, once they are there. Raises NotPart10."""
        self._gathered += data
        if len(self._gathered) < self._at:
            return None
        if self._gathered[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
            raise NotPart10("it has no preamble with DICM")
        while not self._is_over():
            element = self._element()
            if element is None:
                if len(self._gathered) > _LONGEST:
                    raise NotPart10(f"its file meta information has more than {_LONGEST} bytes")
                return None
            number, start, length = element
            self._values[number] = bytes(self._gathered[start : start + length])
            self._at = start + length
            if number == _GROUP_LENGTH and length == 4:
                self._end = self._at + _UINT32.unpack(self._values[number])[0]
        return self._named(), bytes(self._gathered[self._at :])

    def _is_over(self) -> bool:
        # By the group length, or, where that is absent or wrong, by the first element of another group.
        group = self._gathered[self._at : self._at + 2]
        return self._at == self._end or (len(group) == 2 and group != b"\2\0")

    def _element(self) -> tuple[int, int, int] | None:
        """Element number, offset and length of the next value, where it is there as a whole."""
        start = self._at + _SHORT.size
        if len(self._gathered) < start:
            return None
        _, number, vr, length = _SHORT.unpack_from(self._gathered, self._at)
        if not (vr.isalpha() and vr.isupper()):
            raise NotPart10("its file meta information is not in explicit VR")
        if vr in _LONG_VRS:
            if len(self._gathered) < start + 4:
                return None
            (length,) = _UINT32.unpack_from(self._gathered, start)
            start += 4
        if length > _LONGEST:
            raise NotPart10(f"its file meta information has more than {_LONGEST} bytes")
        return (number, start, length) if len(self._gathered) >= start + length else None

    def _named(self) -> Named:
        uids = []
        for number in (_SOP_CLASS, _SOP_INSTANCE, _SYNTAX):
            uid = self._values.get(number, b"").decode("ascii", "replace").strip(" \0")
            if not re.fullmatch(r"[0-9.]{1,64}", uid):
                raise NotPart10(f"its file meta information has no UID in (0002,{number:04X})")
            uids.append(uid)
        return Named(*uids)

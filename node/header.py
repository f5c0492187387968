"""What the index must know of a data set, read from its encoded bytes without decoding values.

The elements are walked by their lengths alone (PS3.5 7.1 and 7.5), from the first to the last, so
that a data set that was cut short is noticed. That takes a tenth of a millisecond for a CT slice.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import mmap

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.entities import CONTRIBUTING_MANUFACTURER
from node.errors import AenodeError
from node.sop_classes import COMPANION_UIDS

Encoded = bytes | bytearray | memoryview | mmap

SOP_CLASS_UID, SOP_INSTANCE_UID = 0x0008_0016, 0x0008_0018
STUDY_INSTANCE_UID, SERIES_INSTANCE_UID = 0x0020_000D, 0x0020_000E
_UIDS = {
    SOP_CLASS_UID: "SOPClassUID",
    SOP_INSTANCE_UID: "SOPInstanceUID",
    STUDY_INSTANCE_UID: "StudyInstanceUID",
    SERIES_INSTANCE_UID: "SeriesInstanceUID",
}
_IDENTIFYING = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
_MANUFACTURER, _CONTRIBUTING_EQUIPMENT = 0x0008_0070, 0x0018_A001
_PIXEL_DATA = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
_DEEPEST = 32  # levels of nested sequences; the IODs need fewer than ten
# PS3.5 7.1.2: these value representations have a 4-byte length after 2 reserved bytes.
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_INFLATED_HEADER = 4 << 20  # bytes of a deflated data set that are kept to read its header from
_DEFLATED_PORTION, _INFLATED_PORTION = 64 << 10, 1 << 20  # bytes in and out at a time
_INFLATED_LIMIT = 512 << 20  # bytes after which a deflated data set is not checked further for its end

MISSING_PIXELS = "it has no pixel data"


class HeaderError(AenodeError):
    """The header of a data set cannot be decoded."""


class _CutShortError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Header:
    """The UIDs of a data set (empty where it has none), whose it is, and what is wrong with it."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    own_result: bool = False
    defect: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """Where the value of one element lies. `length` is that of the whole value, delimiters included."""

    tag: int  # group × 65536 + element
    vr: bytes  # empty where it is implicit
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Syntax:
    implicit: bool
    big_endian: bool = False


_IMPLICIT, _EXPLICIT, _BIG = _Syntax(True), _Syntax(False), _Syntax(False, big_endian=True)


def elements(
    data: Encoded, at: int, end: int, *, implicit: bool, big_endian: bool = False
) -> Iterator[Element]:
    """The elements between two offsets, in their order; sequences are stepped over.

    Raises HeaderError where no element can be made out. An element whose value runs past `end` is
    yielded, and raises when the next one is asked for.
    """
    try:
        yield from _walk(data, at, end, _Syntax(implicit, big_endian), 0)
    except _CutShortError as error:
        raise HeaderError(str(error)) from None


def read(data: Encoded, transfer_syntax_uid: str) -> Header:
    """Read the header of an encoded data set and look for its end. Raises HeaderError."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return _read_deflated(data)
    if transfer_syntax_uid == ImplicitVRLittleEndian:
        return _read(data, _IMPLICIT)
    return _read(data, _BIG if transfer_syntax_uid == ExplicitVRBigEndian else _EXPLICIT)


def _read(data: Encoded, syntax: _Syntax, *, whole: bool = True) -> Header:
    """`whole` is False where `data` is only the beginning, so that its end says nothing."""
    uids: dict[int, str] = {}
    own, pixels, cut = False, not whole, ""
    try:
        for element in _walk(data, 0, len(data), syntax, 0):
            tag = element.tag
            if tag in _UIDS:
                uids.setdefault(tag, _text(data, element))
            elif tag == _CONTRIBUTING_EQUIPMENT:
                own = _is_own(data, element, syntax)
            elif tag in _PIXEL_DATA:
                pixels = True
    except _CutShortError as error:
        if whole and SOP_INSTANCE_UID not in uids:
            raise HeaderError(f"the header cannot be decoded: {error}") from None
        cut = str(error) if whole else ""
    except HeaderError:
        # The bytes are kept; whether the rest of them can be read is for the reader of the series to say.
        if SERIES_INSTANCE_UID not in uids:
            raise
        pixels = True
    defects = [cut] if cut else []
    defects += [f"{_UIDS[tag]} {fault}" for tag in _IDENTIFYING if (fault := _fault(uids.get(tag, "")))]
    if not pixels and not cut and uids.get(SOP_CLASS_UID, "") not in COMPANION_UIDS:
        defects.append(MISSING_PIXELS)
    return Header(
        uids.get(SOP_CLASS_UID, ""),
        uids.get(SOP_INSTANCE_UID, ""),
        uids.get(STUDY_INSTANCE_UID, ""),
        uids.get(SERIES_INSTANCE_UID, ""),
        own,
        "; ".join(defects),
    )


def _fault(uid: str) -> str:
    # Components with a leading zero break PS3.5 9.1, are common, and disturb nobody.
    return "" if re.fullmatch(r"[0-9.]{1,64}", uid) else "is not a UID" if uid else "is missing"


def _read_deflated(data: Encoded) -> Header:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    head, size = b"", 0
    try:
        for at in range(0, len(data), _DEFLATED_PORTION):
            left: Encoded = data[at : at + _DEFLATED_PORTION]
            while left and not inflater.eof and size < _INFLATED_LIMIT:
                inflated = inflater.decompress(left, _INFLATED_PORTION)
                left = inflater.unconsumed_tail
                size += len(inflated)
                if len(head) < _INFLATED_HEADER:
                    head += inflated
    except zlib.error as error:
        raise HeaderError(f"the data set cannot be inflated: {error}") from None
    if inflater.eof or size >= _INFLATED_LIMIT:
        return _read(head, _EXPLICIT, whole=size == len(head))
    header = _read(head, _EXPLICIT, whole=False)
    if not header.sop_instance_uid:
        raise HeaderError("the deflated data set ends before its header does")
    return replace(header, defect="it was cut short: its deflated bytes have no end")


def _walk(data: Encoded, at: int, end: int, syntax: _Syntax, depth: int) -> Iterator[Element]:
    """Elements from `at` to `end`, or to an item delimiter inside a sequence (`depth` > 0)."""
    order = ">" if syntax.big_endian else "<"
    tag_and_length = struct.Struct(order + "HHI").unpack_from
    short_length, long_length = struct.Struct(order + "H").unpack_from, struct.Struct(order + "I").unpack_from
    implicit = syntax.implicit
    vr = b""
    while at + 8 <= end:
        group, number, length = tag_and_length(data, at)
        tag = group << 16 | number
        if group == 0xFFFE or tag == 0:
            if depth == 0 and tag != 0:
                raise HeaderError(f"an item tag at byte {at}, outside of a sequence")
            break
        start = at + 8
        if not implicit:
            vr = bytes(data[at + 4 : at + 6])
            if vr in _LONG:
                if at + 12 > end:
                    raise _CutShortError(_cut(tag))
                (length,) = long_length(data, at + 8)
                start = at + 12
            elif vr.isalpha() and vr.isupper():
                (length,) = short_length(data, at + 6)
            else:
                raise HeaderError(
                    f"no value representation at byte {at + 4}, element ({group:04X},{number:04X})"
                )
        if length == _UNDEFINED:
            # PS3.5 6.2.2: UN of undefined length is a sequence in implicit VR little endian.
            inner = _IMPLICIT if vr == b"UN" else syntax
            length = _end_of_items(data, start, end, inner, depth + 1, tag) - start
        yield Element(tag, vr, start, length)
        at = start + length
        if at > end:
            raise _CutShortError(_cut(tag))
    if depth == 0 and any(data[at : min(end, at + 4096)]):  # what is left may be padding
        raise _CutShortError(f"it was cut short: {end - at} bytes after its last element")


def _cut(tag: int) -> str:
    return f"it was cut short in element ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _end_of_items(data: Encoded, at: int, end: int, syntax: _Syntax, depth: int, parent: int) -> int:
    """The offset behind the delimiter of a sequence, or of encapsulated pixel data (PS3.5 7.5, A.4)."""
    if depth > _DEEPEST:
        raise HeaderError(f"sequences more than {_DEEPEST} levels deep")
    header = struct.Struct(">HHI" if syntax.big_endian else "<HHI")
    while at + 8 <= end:
        group, number, length = header.unpack_from(data, at)
        tag = group << 16 | number
        at += 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise HeaderError(f"({group:04X},{number:04X}) where an item should begin, at byte {at - 8}")
        if length != _UNDEFINED:
            at += length
            continue
        for element in _walk(data, at, end, syntax, depth):
            at = element.start + element.length
        if at + 8 > end or header.unpack_from(data, at)[:2] != (_ITEM_END >> 16, _ITEM_END & 0xFFFF):
            raise _CutShortError(_cut(parent))
        at += 8
    if at == end and parent in _PIXEL_DATA:
        return at  # every fragment is there; only the delimiter was left out
    raise _CutShortError(_cut(parent))


def _is_own(data: Encoded, sequence: Element, syntax: _Syntax) -> bool:
    """Whether an item of the ContributingEquipmentSequence is ours (PS3.3 C.12.1)."""
    try:
        return CONTRIBUTING_MANUFACTURER in _manufacturers(data, sequence, syntax)
    except (HeaderError, _CutShortError):
        return False


def _manufacturers(data: Encoded, sequence: Element, syntax: _Syntax) -> Iterator[str]:
    inner = _IMPLICIT if sequence.vr == b"UN" else syntax
    header = struct.Struct(">HHI" if inner.big_endian else "<HHI")
    at, end = sequence.start, sequence.start + sequence.length
    while at + 8 <= end:
        group, number, length = header.unpack_from(data, at)
        at += 8
        if group << 16 | number != _ITEM:
            break
        until = end if length == _UNDEFINED else min(end, at + length)
        for element in _walk(data, at, until, inner, 1):
            if element.tag == _MANUFACTURER:
                yield _text(data, element)
            at = element.start + element.length
        at = at + 8 if length == _UNDEFINED else until


def _text(data: Encoded, element: Element) -> str:
    value = bytes(data[element.start : element.start + min(element.length, 256)])
    return value.decode("ascii", "backslashreplace").strip(" \0")

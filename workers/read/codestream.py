"""What a compressed frame says of itself, so that a header that lies is found before the decoder runs.

A decoder that is handed 256×128 where the header says 128×256 returns as many bytes as expected,
and every line of the picture is in the wrong place.
"""

from dataclasses import dataclass

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

_JPEG_SOI = b"\xff\xd8"
_J2K_SOC_SIZ = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
# Frame headers: SOF0..15 of ITU-T T.81 less DHT, JPG and DAC; SOF55 of T.87 (JPEG-LS)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_SOS = 0xDA
_EOI = b"\xff\xd9"  # cannot occur within entropy-coded data, where 0xFF is stuffed
_TRAILER = 64  # bytes at the end, among which EOI must be; fragments are padded
# What may come before the first scan: DHT, DAC, DQT, DNL, DRI, APPn, JPEG-LS parameters, COM
_SEGMENTS = _SOF | {0xC4, 0xCC, _SOS, *range(0xDB, 0xDE), *range(0xE0, 0xF0), 0xF8, 0xFE}


@dataclass(frozen=True, slots=True)
class FrameSize:
    """The size of the picture in a codestream, and its samples."""

    rows: int
    columns: int
    components: int
    precision: int  # bits a sample
    signed: bool | None  # None where the codestream cannot say


def frame_size(frame: bytes, syntax: UID) -> FrameSize | None:
    """The frame's own header; None for RLE, which has none.

    Raises ValueError where a JPEG, JPEG-LS or JPEG 2000 codestream has no readable header.
    """
    if syntax in JPEG2000TransferSyntaxes:  # HTJ2K among them
        return _siz(frame)
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return _sof(frame)
    return None


def _sof(frame: bytes) -> FrameSize:
    """Walk the marker segments to the first scan: decoders crash over a broken chain, or never return."""
    if frame[:2] != _JPEG_SOI:
        raise ValueError("no SOI marker")
    at, size = 2, None
    while frame[at : at + 1] == b"\xff" and at + 4 <= len(frame):
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker not in _SEGMENTS or length < 2 or at + 2 + length > len(frame):
            raise ValueError("a marker segment that cannot be")
        if marker == _SOS and size:
            if _EOI not in frame[max(at, len(frame) - _TRAILER) :]:
                raise ValueError("no EOI marker at the end")  # and CharLS may search for one for minutes
            return size
        if marker in _SOF:
            body = frame[at + 4 : at + 10]
            size = FrameSize(
                rows=int.from_bytes(body[1:3], "big"),
                columns=int.from_bytes(body[3:5], "big"),
                components=body[5],
                precision=body[0],
                signed=None,
            )
        at += 2 + length
    raise ValueError("no frame and scan header")


def _siz(frame: bytes) -> FrameSize:
    # some writers wrap the codestream in a JP2 file against PS3.5 A.4.4
    at = frame.find(_J2K_SOC_SIZ, 0, 4096) if frame.startswith(_JP2_SIGNATURE) else 0
    if at < 0 or frame[at : at + 4] != _J2K_SOC_SIZ or len(frame) < at + 43:
        raise ValueError("no SOC and SIZ markers")
    # after SIZ: Lsiz(2) Rsiz(2) Xsiz Ysiz XOsiz YOsiz XTsiz YTsiz XTOsiz YTOsiz (4 each) Csiz(2) Ssiz(1)
    x, y, x0, y0 = (int.from_bytes(frame[at + k : at + k + 4], "big") for k in (8, 12, 16, 20))
    depth = frame[at + 42]
    return FrameSize(
        rows=y - y0,
        columns=x - x0,
        components=int.from_bytes(frame[at + 40 : at + 42], "big"),
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
    )

"""Pixels encoded anew without loss, for a peer that asks for them so.

The SOP Instance UID stays: PS3.3 C.7.6.1.1.5 asks for another only where the encoding lost something. So
nothing leaves unless its pixels, decoded again, are the bytes that the file holds.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGLSLossless

from node.errors import AenodeError

_HTJ2K = frozenset({HTJ2KLossless, HTJ2KLosslessRPCL})
_COLOURS = {1: ("MONOCHROME1", "MONOCHROME2"), 3: ("RGB",)}  # what we write, by samples a pixel
_BASIC_OFFSETS = 2**32 - 1  # bytes that a Basic Offset Table reaches (PS3.5 A.4)
# The marker segment of the image's size, and where in it the depth is (ISO 15444-1 A.5.1).
_SIZ, _SSIZ_AT = b"\xff\x51", 40


class CannotTranscode(AenodeError):
    """The pixels cannot be had in that transfer syntax; the message says why, for a person."""


@cache
def can_encode(syntax: UID) -> bool:
    """Whether an encoder for a lossless transfer syntax is installed."""
    return find_spec("imagecodecs") is not None if syntax in _HTJ2K else get_encoder(syntax).is_available


def transcode(path: Path, syntax: UID) -> Dataset:
    """The data set of a file in Explicit VR Little Endian, its Pixel Data in a lossless `syntax`.

    8 or 16 bits allocated, 1 or 3 samples, any number of frames; all other elements stay as they are,
    but for RGB, which JPEG 2000 codes as YBR_RCT (PS3.5 8.2.4). Raises CannotTranscode, OSError.
    """
    try:
        ds = pydicom.dcmread(path)
        frames = list(_frames(ds))
        if syntax != JPEGLSLossless and ds.PhotometricInterpretation == "RGB":
            ds.PhotometricInterpretation = "YBR_RCT"
        if syntax in _HTJ2K:
            _encapsulate(ds, [_htj2k(ds, frame) for frame in frames], syntax)
        else:
            ds.compress(syntax, generate_instance_uid=False)
        decoder = get_decoder(syntax)
        same = all(
            decoder.as_array(ds, index=number, raw=True)[0].tobytes() == frame.tobytes()
            for number, frame in enumerate(frames)
        )
    except (OSError, CannotTranscode):
        raise
    except Exception as error:  # whatever an odd header runs the codecs into: the file goes as it is
        raise CannotTranscode(f"{syntax.name}: {type(error).__name__}") from error
    if not same:
        raise CannotTranscode(f"{syntax.name} would not give the same pixels back")
    return ds


def _frames(ds: Dataset) -> Iterator[NDArray[np.integer]]:
    """The frames as they are stored, (rows, columns) or (rows, columns, 3)."""
    if ds.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian or "PixelData" not in ds:
        raise CannotTranscode("it has no uncompressed Pixel Data")
    bits, samples = ds.BitsAllocated, ds.SamplesPerPixel
    if ds.PhotometricInterpretation not in _COLOURS.get(samples, ()):
        raise CannotTranscode("its pixels are neither grey nor RGB")
    if bits not in (8, 16) or ds.get("PlanarConfiguration", 0):
        raise CannotTranscode(f"{bits} bits are allocated, or the samples lie by plane")
    kind = np.dtype(f"{'i' if ds.PixelRepresentation else 'u'}{bits // 8}").newbyteorder("<")
    shape = (ds.Rows, ds.Columns) if samples == 1 else (ds.Rows, ds.Columns, samples)
    count, length = int(ds.get("NumberOfFrames") or 1), int(np.prod(shape)) * kind.itemsize
    if len(ds.PixelData) - count * length not in (0, 1):
        raise CannotTranscode("its Pixel Data has another length than its header says")
    for number in range(count):
        yield np.frombuffer(ds.PixelData, kind, int(np.prod(shape)), number * length).reshape(shape)


def _encapsulate(ds: Dataset, encoded: list[bytes], syntax: UID) -> None:
    """Put encoded frames into a data set (PS3.5 A.4)."""
    if sum(map(len, encoded)) + 8 * len(encoded) > _BASIC_OFFSETS:
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(encoded)
    else:
        ds.PixelData = encapsulate(encoded)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax


def _htj2k(ds: Dataset, frame: NDArray[np.integer]) -> bytes:
    """A codestream for both syntaxes: RPCL with TLM, a base resolution of 64 or less (PS3.5 10.18)."""
    import imagecodecs  # noqa: PLC0415 - an extra of the distribution

    levels = max(1, int(np.ceil(np.log2(max(ds.Rows, ds.Columns) / 64))))
    depth, allocated, signed = ds.BitsStored, ds.BitsAllocated, bool(ds.PixelRepresentation)
    narrow = depth < allocated == 16
    if narrow and not signed:
        # Centred about zero, as the encoder itself would do if it could be told the depth.
        frame = (frame.astype(np.int32) - (1 << (depth - 1))).astype(np.int16)
    stream = bytearray(imagecodecs.htj2k_encode(frame, resolutions=levels, tlm=True, reversible=True))
    if narrow:
        # The encoder knows whole bytes only; the depth that is written has to be Bits Stored (PS3.5 8.2.14).
        at = stream.index(_SIZ) + _SSIZ_AT
        stream[at] = (0x80 if signed else 0) | (depth - 1)
    return bytes(stream)

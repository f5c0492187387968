"""Pixel data of one file → stored words, by one named codec for each transfer syntax.

The codec is named so that the same file gives the same pixels on every machine, whatever else is
installed beside.
"""

from pathlib import Path

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from node.errors import SeriesRefused
from workers.read.codestream import FrameSize, frame_size
from workers.read.header import refusing, syntax_of, text_of
from workers.read.image import Image

NATIVE: frozenset[UID] = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
CODECS: dict[UID, str] = {
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",  # by pylibjpeg-openjpeg
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pydicom",  # pylibjpeg-rle is faster, but panics over damaged segments
}
_LOSSY: frozenset[UID] = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K})


def is_lossy(image: Image) -> bool:
    """True where the pixels are not the scanner's own, by transfer syntax or by what the header admits."""
    return syntax_of(image.header) in _LOSSY or text_of(image.header, "LossyImageCompression") == "01"


def decode(image: Image) -> tuple[NDArray[np.integer], str]:
    """The words of the image's one frame, (Y, X), 8 or 16 bits signed as PixelRepresentation says.

    Bits above HighBit are as the file or codec left them. The text is a note, or empty. Raises
    SeriesRefused where pixel data are missing, too short, too long, undecodable or of another size.
    """
    if image.words is not None:
        return image.words, ""
    with refusing(f"Image {image.uid}: the file cannot be read to its end."):
        ds = pydicom.dcmread(image.path)
        value = ds.get("PixelData")
    if not value:
        raise SeriesRefused(f"Image {image.uid}: PixelData is missing.")
    syntax = syntax_of(image.header)
    note, size = "", None
    if syntax in NATIVE:
        note = _require_length(image, ds, value)
    else:
        size = _require_size(image, ds, value, syntax)
    with refusing(f"Image {image.uid}: PixelData cannot be decoded as {syntax.name}."):
        words = (
            twelve_bit_jpeg(image.path, image.rows, image.columns)
            if needs_gdcm_itself(syntax, ds)
            else _by_plugin(ds, syntax)
        )
    if words.shape != (image.rows, image.columns):
        raise SeriesRefused(
            f"Image {image.uid}: PixelData holds {_by(words.shape)} pixels, "
            f"Rows×Columns is {image.rows}×{image.columns}."
        )
    if size and size.signed and ds.PixelRepresentation == 0 and words.max() >> (size.precision - 1):
        raise SeriesRefused(
            f"Image {image.uid}: its codestream has negative values, PixelRepresentation 0 denies them."
        )
    return words, note


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)


def _require_length(image: Image, ds: Dataset, value: bytes) -> str:
    expected = image.rows * image.columns * (ds.BitsAllocated // 8)
    if len(value) < expected:
        raise SeriesRefused(
            f"Image {image.uid}: PixelData is truncated, {len(value)} of {expected} bytes are there."
        )
    if any(excess := value[expected:]):
        raise SeriesRefused(
            f"Image {image.uid}: PixelData is {len(excess)} bytes longer than "
            f"Rows×Columns {image.rows}×{image.columns} needs."
        )
    return "" if len(excess) <= 1 else "PixelData was padded with zeros after its last pixel"


def _require_size(image: Image, ds: Dataset, value: bytes, syntax: UID) -> FrameSize | None:
    with refusing(f"Image {image.uid}: PixelData is no readable {syntax.name} codestream."):
        frames = list(generate_frames(value, number_of_frames=1))
        size = frame_size(frames[0], syntax) if len(frames) == 1 else None
    if len(frames) != 1:
        raise SeriesRefused(f"Image {image.uid}: PixelData holds {len(frames)} frames, not one.")
    if size is not None:
        require_agreement(f"Image {image.uid}", image.rows, image.columns, ds, size)
    return size


def require_agreement(
    whose: str, rows: int, columns: int, ds: Dataset, size: FrameSize, colour: bool = False
) -> None:
    """Refuse a codestream of another size, depth or number of components than the header says."""
    if (size.rows, size.columns) != (rows, columns):
        raise SeriesRefused(
            f"{whose}: its codestream is {size.rows}×{size.columns}, Rows×Columns is {rows}×{columns}."
        )
    components = int(ds.SamplesPerPixel) if colour else 1
    if size.components != components or size.precision > ds.BitsAllocated:
        raise SeriesRefused(
            f"{whose}: its codestream has {size.components} components of {size.precision} bits, "
            f"not {'one' if components == 1 else components} of at most BitsAllocated {ds.BitsAllocated}."
        )


def decoded_frames(ds: Dataset, syntax: UID, *, as_shown: bool = False) -> NDArray[np.integer]:
    """All frames of a data set, (F, Y, X) words, or (F, Y, X, 3) RGB where they are colour.

    `as_shown` turns YBR into RGB. Raises what pydicom and its plug-ins raise.
    """
    options: dict[str, object] = {"raw": not as_shown}
    if not as_shown:
        options["correct_unused_bits"] = False
    words: NDArray[np.integer] = get_decoder(syntax).as_array(
        ds,
        decoding_plugin=CODECS.get(syntax, ""),
        **options,  # type: ignore[arg-type]  # pydicom lacks an Unpack here
    )[0]
    single = int(ds.get("NumberOfFrames") or 1) == 1 and words.ndim == 2 + (int(ds.SamplesPerPixel) > 1)
    return words[None] if single else words


def needs_gdcm_itself(syntax: UID, ds: Dataset) -> bool:
    """True for lossy 12-bit JPEG, which pydicom's plug-in refuses and gdcm decodes."""
    return syntax == JPEGExtended12Bit and ds.BitsStored > 8


def _by_plugin(ds: Dataset, syntax: UID) -> NDArray[np.integer]:
    # the bits above HighBit stay as they are: values.py judges them
    words: NDArray[np.integer] = get_decoder(syntax).as_array(
        ds,
        raw=True,
        decoding_plugin=CODECS.get(syntax, ""),
        correct_unused_bits=False,  # type: ignore[arg-type]  # pydicom lacks an Unpack here
    )[0]
    return words


def twelve_bit_jpeg(path: Path, rows: int, columns: int) -> NDArray[np.integer]:
    """The words of a file of one frame, by gdcm. Raises ValueError where it cannot."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError("gdcm cannot read the file")
    text: str = reader.GetImage().GetBuffer()
    words = np.frombuffer(text.encode("utf-8", "surrogateescape"), "<u2")
    return words.reshape(rows, columns)

"""Reading pixel data: each transfer syntax by its codec, and none that is damaged or lies."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from node.dimse.contexts import STORAGE_SYNTAXES
from node.errors import SeriesRefused
from tests.series import body, image, write
from workers.read import Volume, read_series
from workers.read.codestream import FrameSize, frame_size
from workers.read.decode import CODECS, NATIVE, decode
from workers.read.image import Image


def one(folder: Path, ds: FileDataset) -> Volume:
    return read_series(write(folder / "one", [ds]))


def refusal(folder: Path, ds: FileDataset) -> str:
    with pytest.raises(SeriesRefused) as refused:
        one(folder, ds)
    return str(refused.value)


def compressed(name: str, folder: Path, plain: Path) -> Path:
    """The plain file in another transfer syntax, by pydicom's encoders or DCMTK's tools."""
    target = folder / f"{name}.dcm"
    dcmtk = {
        "jpeg-lossless": ["dcmcjpeg", "+e1"],
        "jpeg-lossless-sv6": ["dcmcjpeg", "+el", "+sv", "6"],
        "jpeg-ls-dcmtk": ["dcmcjpls"],
        "big-endian": ["dcmconv", "+tb"],
        "deflated": ["dcmconv", "+td"],
        "implicit": ["dcmconv", "+ti"],
        "rle-dcmtk": ["dcmcrle"],
    }
    if name in dcmtk:
        subprocess.run([*dcmtk[name], plain, target], check=True, timeout=60)
        return target
    ds = pydicom.dcmread(plain)
    syntaxes = {"rle": RLELossless, "jpeg-ls": JPEGLSLossless, "jpeg-2000": JPEG2000Lossless}
    ds.compress(syntaxes[name], generate_instance_uid=False, encoding_plugin="")
    ds.save_as(target, enforce_file_format=True)
    return target


LOSSLESS = (
    "rle",
    "rle-dcmtk",
    "jpeg-ls",
    "jpeg-ls-dcmtk",
    "jpeg-2000",
    "jpeg-lossless",
    "jpeg-lossless-sv6",
    "big-endian",
    "deflated",
    "implicit",
)


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_lossless_syntax_gives_the_same_volume(tmp_path: Path, name: str) -> None:
    """Signed CT with padding reads the same from each transfer syntax, without a note."""
    ds = image(1, body(1, 48)[0])
    ds.add_new("PixelPaddingValue", "SS", -2000)
    pixels = np.frombuffer(ds.PixelData, "<i2").reshape(48, 48).copy()
    pixels[:4] = -2000
    ds.PixelData = pixels.tobytes()
    (plain,) = write(tmp_path / "plain", [ds])
    expected = read_series([plain])
    volume = read_series([compressed(name, tmp_path, plain)])
    assert expected.padding[0, :4].all()
    assert np.array_equal(volume.stored, expected.stored)
    assert np.array_equal(volume.stored[0], pixels)
    assert np.array_equal(volume.padding, expected.padding)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert volume.notes == ()


def test_native_syntaxes_are_what_they_say(tmp_path: Path) -> None:
    """The files of the test above truly differ in syntax: the tools did convert."""
    (plain,) = write(tmp_path / "plain", [image(1, body(1, 16)[0])])
    for name, uid in (
        ("big-endian", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
        ("implicit", ImplicitVRLittleEndian),
    ):
        path = compressed(name, tmp_path, plain)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == uid


def test_what_the_receiver_accepts_the_reader_decodes() -> None:
    """Each transfer syntax that a storage context may end in has its codec here, and it is installed."""
    accepted = {syntax.uid for syntax in STORAGE_SYNTAXES}
    assert accepted == NATIVE | CODECS.keys()
    for uid, plugin in CODECS.items():
        assert plugin in get_decoder(uid).available_plugins, uid.name


def test_the_codec_of_high_throughput_jpeg_2000_decodes_it(data_dir: Path) -> None:
    """HTJ2K, lossless and lossy, is decoded; the samples are colour, so the codec is asked itself."""
    for name in ("HTJ2KLossless_08_RGB.dcm", "HTJ2K_08_RGB.dcm"):
        ds = pydicom.dcmread(data_dir / "dicom-variety" / name)
        syntax = ds.file_meta.TransferSyntaxUID
        (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
        assert frame_size(frame, syntax) == FrameSize(480, 640, components=3, precision=8, signed=False)
        pixels, _ = get_decoder(syntax).as_array(ds, raw=True, decoding_plugin=CODECS[syntax])
        assert pixels.shape == (480, 640, 3)
        assert pixels.std() > 10


def test_a_codestream_in_several_fragments_is_one_frame(tmp_path: Path) -> None:
    """Fragments of one frame are put together before they are decoded (PS3.5 A.4)."""
    (plain,) = write(tmp_path / "plain", [image(1, body(1, 48)[0])])
    ds = pydicom.dcmread(compressed("jpeg-2000", tmp_path, plain))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame], fragments_per_frame=5)
    assert np.array_equal(one(tmp_path, ds).stored, read_series([plain]).stored)


@pytest.mark.parametrize(("tool", "tolerance"), [(["dcmcjpeg", "+eb"], 6), (["dcmcjpls", "+en"], 3)])
def test_lossy_input_is_read_and_noted(tmp_path: Path, tool: list[str], tolerance: int) -> None:
    """Lossy pixels are read, near the originals, and the notes say that they are not the scanner's."""
    ds = image(1, np.zeros((32, 32), np.float32), intercept=0)
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.PixelData = 7, 0, ramp.tobytes()
    ds["PixelData"].VR = "OB"
    (plain,) = write(tmp_path / "plain", [ds])
    subprocess.run([*tool, plain, tmp_path / "lossy.dcm"], check=True, timeout=60)
    volume = read_series([tmp_path / "lossy.dcm"])
    assert np.abs(volume.stored[0] - ramp).max() <= tolerance
    assert "lossy compression changed the pixels before they came here (in 1 of 1 images)" in volume.notes


@pytest.mark.parametrize("name", ["jpeg-ls", "jpeg-2000", "jpeg-lossless", "rle"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_truncated_codestream_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    """No codec's picture of half a codestream is taken for the whole."""
    (plain,) = write(tmp_path / "plain", [image(1, body(1, 64)[0])])
    ds = pydicom.dcmread(compressed(name, tmp_path, plain))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: int(len(frame) * kept)]])
    message = refusal(tmp_path, ds)
    assert message.startswith(f"Image {ds.SOPInstanceUID}: PixelData ")
    assert ds.file_meta.TransferSyntaxUID.name in message


def swap(ds: Dataset) -> None:
    ds.Rows, ds.Columns = ds.Columns, ds.Rows


@pytest.mark.parametrize("name", ["jpeg-ls", "jpeg-2000", "jpeg-lossless"])
@pytest.mark.parametrize(
    "lie", [swap, lambda ds: setattr(ds, "Rows", 20), lambda ds: setattr(ds, "Rows", 30)]
)
def test_a_codestream_of_another_size_is_refused(
    tmp_path: Path, name: str, lie: Callable[[Dataset], None]
) -> None:
    """Rows and Columns that are swapped would shear the picture without an error of the codec."""
    (plain,) = write(tmp_path / "plain", [image(1, body(1, 64)[0][:40])])
    ds = pydicom.dcmread(compressed(name, tmp_path, plain))
    lie(ds)
    assert f"its codestream is 40×64, Rows×Columns is {ds.Rows}×{ds.Columns}." in refusal(tmp_path, ds)


def test_native_pixel_data_must_fit(tmp_path: Path) -> None:
    """Too few bytes are a truncation, more are another matrix; zeros at the end are only padding."""
    ds = image(1, body(1, 16)[0])
    whole = ds.PixelData
    ds.PixelData = whole[:-10]
    assert "PixelData is truncated, 502 of 512 bytes are there." in refusal(tmp_path, ds)
    ds.PixelData = whole + b"\1" * 32
    assert "PixelData is 32 bytes longer than Rows×Columns 16×16 needs." in refusal(tmp_path, ds)
    ds.PixelData = whole + b"\0" * 32
    assert one(tmp_path, ds).notes == (
        "PixelData was padded with zeros after its last pixel (in 1 of 1 images)",
    )
    del ds.PixelData
    assert refusal(tmp_path, ds) == f"Image {ds.SOPInstanceUID}: PixelData is missing."


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    """A file that ends within its pixel data, as a broken copy does, gives a sentence and no image."""
    (path,) = write(tmp_path, [image(1, body(1, 16)[0])])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeriesRefused, match="PixelData is truncated, 412 of 512 bytes are there"):
        read_series([path])


def test_two_frames_in_one_image_are_refused(tmp_path: Path) -> None:
    """An offset table of two frames in a single-frame image is no image."""
    (plain,) = write(tmp_path / "plain", [image(1, body(1, 16)[0])])
    ds = pydicom.dcmread(compressed("rle", tmp_path, plain))
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([frame, frame])
    assert f"Image {ds.SOPInstanceUID}: PixelData " in refusal(tmp_path, ds)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc3\xff\xff", b"\xff\xd8\xff\xda\x00\x08", b"\xff\xd8garbage!"]
)
def test_a_codestream_without_its_headers_is_an_error(frame: bytes) -> None:
    """Marker segments must form a chain from SOI over the frame header to the scan."""
    with pytest.raises(ValueError, match=r"marker|header"):
        frame_size(frame, JPEGLosslessSV1)


def test_twelve_bit_lossy_jpeg_is_decoded(data_dir: Path) -> None:
    """JPEG Extended of 12 bits, which pydicom's plug-ins leave out, is decoded within one grey level."""
    path = data_dir / "dicom-variety" / "JPEGExtended_1s_1f_u_16_12.dcm"
    ds = pydicom.dcmread(path)
    picture = Image(
        header=ds,
        path=path,
        uid=ds.SOPInstanceUID,
        rows=ds.Rows,
        columns=ds.Columns,
        orientation=np.zeros(6),
        position=np.zeros(3),
        spacing=(1.0, 1.0),
        thickness=None,
    )
    words, _ = decode(picture)
    assert words.shape == (1024, 256)
    assert (int(words.min()), int(words.max())) == (0, 264)

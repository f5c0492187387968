"""Results in the transfer syntax that a peer's settings ask for and the peer accepts, and never otherwise."""

import re
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node import reach
from node.commands import probe
from node.dimse import outputs
from node.dimse.outcome import Outcome
from node.dimse.outgoing import StoreResult
from node.dimse.outputs import COMPRESSIBLE, offered
from node.dimse.probing import Findings
from node.transcoding import CannotTranscode, transcode
from tests.node.scripted import ScriptedSCP
from tests.node.test_dicomweb import peer_at as web_peer
from tests.node.test_probe import peer_at, settings_for
from tests.peers import LOOPBACK, Orthanc, StoreSCP, dcmtk
from tests.series import series, write

LOSSLESS = (JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL)


def with_bits(ds: FileDataset, bits: int, *, signed: bool) -> FileDataset:
    """The image over all of the values that so many bits can hold."""
    low = -(1 << bits - 1) if signed else 0
    stored = np.frombuffer(ds.PixelData, "<i2").astype(np.int64)
    stored = (stored - stored.min()) * ((1 << bits) - 1) // np.ptp(stored) + low
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    return ds


def capture() -> FileDataset:
    """An RGB Secondary Capture: a grey image with a coloured mark."""
    ds = series(1, series="capture")[0]
    grey = np.frombuffer(ds.PixelData, "<i2").reshape(64, 64) // 8 % 256
    picture = np.stack([grey] * 3, -1).astype(np.uint8)
    picture[10:20, 10:30] = 250, 180, 0
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = picture.tobytes()
    return ds


def multiframe() -> FileDataset:
    """Five frames of odd size in one instance, of 8 bits: its length is odd, so a byte is padded."""
    ds = series(1, series="enhanced")[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames, ds.Rows, ds.Columns = 5, 33, 35
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = np.random.default_rng(0).integers(0, 256, 5 * 33 * 35, np.uint8).tobytes() + b"\0"
    return ds


def one(modality: str = "CT") -> FileDataset:
    return series(1, modality=modality, series=modality)[0]


KINDS = {
    "CT, signed 16": one,
    "CT, signed 12": lambda: with_bits(one(), 12, signed=True),
    "CT, unsigned 16": lambda: with_bits(one(), 16, signed=False),
    "MR, unsigned 12": lambda: with_bits(one("MR"), 12, signed=False),
    "capture, RGB": capture,
    "enhanced CT, 5 frames": multiframe,
}


def pixels(ds: pydicom.Dataset) -> NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The pixel data length is odd")
        return ds.pixel_array


def rest(ds: pydicom.Dataset) -> pydicom.Dataset:
    """What must not have changed."""
    return pydicom.Dataset(
        {e.tag: e for e in ds if e.keyword not in ("PixelData", "PhotometricInterpretation")}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_pixels_and_everything_else_stay(tmp_path: Path, kind: str, syntax: UID) -> None:
    """Written and read again: the same pixels, the same elements, the same SOP Instance UID."""
    (path,) = write(tmp_path, [KINDS[kind]()])
    ours = pydicom.dcmread(path)
    transcode(path, syntax).save_as(tmp_path / "encoded.dcm")
    theirs = pydicom.dcmread(tmp_path / "encoded.dcm")
    assert theirs.file_meta.TransferSyntaxUID == syntax
    assert rest(theirs) == rest(ours)
    assert np.array_equal(pixels(theirs), pixels(ours))
    colour = ours.SamplesPerPixel == 3 and syntax != JPEGLSLossless
    assert theirs.PhotometricInterpretation == ("YBR_RCT" if colour else ours.PhotometricInterpretation)
    if syntax != JPEGLSLossless:
        frame = next(pydicom.encaps.generate_frames(theirs.PixelData, number_of_frames=1))
        assert frame[frame.index(b"\xff\x52") + 8] == colour, (
            "the multiple component transform is used as said"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_decodes_the_same_pixels_from_jpeg_ls(tmp_path: Path, kind: str) -> None:
    """Another implementation than the one that encoded, padding and sign included."""
    (path,) = write(tmp_path, [KINDS[kind]()])
    transcode(path, JPEGLSLossless).save_as(tmp_path / "encoded.dcm")
    command = [dcmtk("dcmdjpls"), tmp_path / "encoded.dcm", tmp_path / "decoded.dcm"]
    subprocess.run(command, check=True, timeout=60)
    decoded, ours = pydicom.dcmread(tmp_path / "decoded.dcm"), pydicom.dcmread(path)
    assert np.array_equal(pixels(decoded), pixels(ours))


def test_htj2k_codestreams_are_what_their_syntax_asks_for(tmp_path: Path) -> None:
    """PS3.5 10.18: progression RPCL, TLM, a base resolution of 64 or less; and the depth is Bits Stored."""
    ds = with_bits(series(1, 300)[0], 12, signed=False)
    encoded = transcode(write(tmp_path, [ds])[0], HTJ2KLosslessRPCL)
    stream = next(pydicom.encaps.generate_frames(encoded.PixelData, number_of_frames=1))
    size, coding = stream.index(b"\xff\x51"), stream.index(b"\xff\x52")
    assert stream[size + 40] == 12 - 1
    assert stream[coding + 5] == 2  # RPCL
    assert 300 / 2 ** stream[coding + 9] <= 64
    assert b"\xff\x55" in stream[: stream.index(b"\xff\x90")]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_what_would_not_come_back_is_not_encoded(tmp_path: Path, syntax: UID) -> None:
    """Values beyond Bits Stored, as some scanners write, would be cut off."""
    ds = with_bits(one(), 16, signed=False)
    ds.BitsStored, ds.HighBit = 12, 11
    with pytest.raises(CannotTranscode):
        transcode(write(tmp_path, [ds])[0], syntax)


def test_what_has_no_such_pixels_is_not_compressed(tmp_path: Path) -> None:
    """One bit a pixel, float pixels, no pixels at all: a segmentation and a report are never offered so."""
    assert SegmentationStorage not in COMPRESSIBLE
    assert offered(SegmentationStorage, ExplicitVRLittleEndian, "auto") == (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )
    assert offered(CTImageStorage, JPEG2000Lossless, "jpeg-ls") == (JPEG2000Lossless,)
    for odd in ({"PhotometricInterpretation": "YBR_FULL"}, {"PlanarConfiguration": 1}, {"BitsAllocated": 32}):
        ds = capture()
        for keyword, value in odd.items():
            setattr(ds, keyword, value)
        with pytest.raises(CannotTranscode):
            transcode(write(tmp_path / next(iter(odd)), [ds])[0], HTJ2KLossless)
    ds = one()
    del ds.PixelData
    with pytest.raises(CannotTranscode, match="no uncompressed Pixel Data"):
        transcode(write(tmp_path / "none", [ds])[0], JPEGLSLossless)
    ds = one()
    ds.PixelData = ds.PixelData[:-2]
    with pytest.raises(CannotTranscode, match="another length"):
        transcode(write(tmp_path / "short", [ds])[0], JPEGLSLossless)


# --- over the network ---


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """One of each kind that is sent: signed and unsigned CT, MR, a capture."""
    made = [one(), with_bits(one("MR"), 12, signed=False), capture()]
    made.append(with_bits(series(1, series="unsigned")[0], 16, signed=False))
    return write(tmp_path / "files", made)


def sent(peer_settings: object, files: Sequence[Path]) -> list[StoreResult]:
    return list(reach.store_each(peer_settings, "AENODE", files))  # type: ignore[arg-type]  # a Peer


def held_as(received: Iterator[Path], files: Sequence[Path]) -> set[UID]:
    """The syntaxes of what arrived, whose pixels are ours, each under its own UID."""
    ours = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    theirs = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, received)}
    assert theirs.keys() == ours.keys()
    for uid, ds in theirs.items():
        assert np.array_equal(pixels(ds), pixels(ours[uid]))
    return {ds.file_meta.TransferSyntaxUID for ds in theirs.values()}


@pytest.mark.parametrize(
    ("option", "setting", "syntax", "told"),
    [
        ("+xt", "jpeg-ls", JPEGLSLossless, "stored (0x0000), in JPEG-LS"),
        ("+xv", "jpeg-2000", JPEG2000Lossless, "stored (0x0000), in JPEG 2000"),
        ("+xv", "auto", JPEG2000Lossless, "stored (0x0000), in JPEG 2000"),
        ("+xt", "explicit-little", ExplicitVRLittleEndian, "stored (0x0000)"),
        (
            "+xv",
            "jpeg-ls",
            ExplicitVRLittleEndian,
            "stored (0x0000), in Explicit VR Little Endian: archive accepts no CT Image Storage in JPEG-LS",
        ),
        (
            "+xi",
            "htj2k",
            ImplicitVRLittleEndian,
            "stored (0x0000), in Implicit VR Little Endian: "
            "archive accepts no CT Image Storage in HTJ2K RPCL or HTJ2K",
        ),
    ],
)
def test_dcmtk_gets_what_it_accepts(
    tmp_path: Path, images: list[Path], option: str, setting: str, syntax: UID, told: str
) -> None:
    """The setting where it is accepted, else explicit, else implicit little endian, with a reason."""
    with StoreSCP(tmp_path / "scp", option) as scp:
        results = sent(peer_at(scp.port, transfer_syntax=setting), images)
    assert [r.outcome for r in results] == [Outcome.STORED] * 4
    assert held_as(scp.received.iterdir(), images) == {syntax}
    assert results[0].reason == told


def test_dcmtk_that_takes_one_syntax_for_a_class(tmp_path: Path, images: list[Path]) -> None:
    """By its association profile: CT in JPEG-LS alone, MR in Explicit VR alone, no capture."""
    profile = tmp_path / "storescp.cfg"
    profile.write_text(f"""
[[TransferSyntaxes]]
[JPEGLS]
TransferSyntax1 = {JPEGLSLossless}
[Explicit]
TransferSyntax1 = {ExplicitVRLittleEndian}
[[PresentationContexts]]
[Narrow]
PresentationContext1 = {CTImageStorage}\\JPEGLS
PresentationContext2 = 1.2.840.10008.5.1.4.1.1.4\\Explicit
[[Profiles]]
[Default]
PresentationContexts = Narrow
""")
    with StoreSCP(tmp_path / "scp", "-xf", str(profile), "Default") as scp:
        results = sent(peer_at(scp.port), images)
    assert [r.outcome.value for r in results] == ["STORED", "STORED", "UNSUPPORTED", "STORED"]
    assert results[0].reason.endswith(
        "in JPEG-LS: archive accepts no CT Image Storage in Explicit VR Little Endian"
    )
    assert results[1].reason == "stored (0x0000)"
    kept = [images[0], images[1], images[3]]
    assert held_as(scp.received.iterdir(), kept) == {JPEGLSLossless, ExplicitVRLittleEndian}


def test_what_cannot_be_encoded_goes_uncompressed_and_says_so(tmp_path: Path) -> None:
    """Nothing waits because of its pixels."""
    ds = with_bits(one(), 16, signed=False)
    ds.BitsStored, ds.HighBit = 12, 11
    files = write(tmp_path / "files", [ds])
    with StoreSCP(tmp_path / "scp", "+xt") as scp:
        (result,) = sent(peer_at(scp.port, transfer_syntax="jpeg-ls"), files)
    assert result.outcome is Outcome.STORED
    assert re.search(r"in Explicit VR Little Endian: JPEG-LS .*", result.reason)
    (received,) = scp.received.iterdir()
    assert pydicom.dcmread(received).PixelData == ds.PixelData


@pytest.mark.parametrize("accepted", [[HTJ2KLossless], [HTJ2KLosslessRPCL], [HTJ2KLossless, JPEGLSLossless]])
def test_htj2k(images: list[Path], accepted: list[UID]) -> None:
    """Under either of its lossless syntaxes. Debian's DCMTK and Orthanc know neither."""
    with ScriptedSCP([(CTImageStorage, accepted)]) as scp:
        (result,) = sent(scp.peer(transfer_syntax="htj2k"), images[:1])
    assert result.outcome is Outcome.STORED
    ours = pydicom.dcmread(images[0])
    theirs = pydicom.dcmread(pydicom.filebase.DicomBytesIO(scp.received[0][1]), force=True)
    theirs.file_meta = pydicom.dataset.FileMetaDataset()
    theirs.file_meta.TransferSyntaxUID = accepted[0]
    assert np.array_equal(theirs.pixel_array, ours.pixel_array)


def test_without_an_encoder_it_goes_uncompressed_and_says_so(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTJ2K is an extra: a node without it is told of by the timeline and by `aenode probe`."""
    for module in (outputs, probe):
        monkeypatch.setattr(module, "can_encode", lambda syntax: "HTJ2K" not in syntax.keyword)
    with ScriptedSCP([(CTImageStorage, [ExplicitVRLittleEndian, HTJ2KLossless])]) as scp:
        peer = scp.peer(transfer_syntax="htj2k")
        (result,) = sent(peer, images[:1])
        warnings_ = probe.warnings_of(Findings("archive", 0.01), peer, settings_for(peer))
    assert result.reason == (
        "stored (0x0000), in Explicit VR Little Endian: no encoder for HTJ2K RPCL or HTJ2K is installed"
    )
    assert 'transfer_syntax = "htj2k", but no encoder for it is installed here' in warnings_


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An archive for JPEG 2000 and Implicit VR only, by DIMSE; its DICOMweb takes everything."""
    accepts = [JPEG2000Lossless, ImplicitVRLittleEndian]
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder, AcceptedTransferSyntaxes=accepts, OverwriteInstances=True) as server:
        yield server


def stored_by(orthanc: Orthanc, folder: Path) -> list[Path]:
    """Everything that Orthanc holds, as files."""
    folder.mkdir()
    for found in orthanc.instances():
        (folder / found["ID"]).write_bytes(orthanc.file(found["ID"]))
    return list(folder.iterdir())


def test_orthanc_by_dimse(tmp_path: Path, orthanc: Orthanc, images: list[Path]) -> None:
    """JPEG 2000 where it is wanted; Implicit VR where JPEG-LS was wanted and is not accepted."""
    for setting, syntax in (("jpeg-2000", JPEG2000Lossless), ("jpeg-ls", ImplicitVRLittleEndian)):
        results = sent(peer_at(orthanc.port, transfer_syntax=setting), images)
        assert [r.outcome for r in results] == [Outcome.STORED] * 4
        assert held_as(iter(stored_by(orthanc, tmp_path / setting)), images) == {syntax}


def test_orthanc_by_stow_rs(tmp_path: Path, orthanc: Orthanc, images: list[Path]) -> None:
    """It passes over a part whose media type has a parameter, and then gets it without one."""
    url = f"http://{LOOPBACK}:{orthanc.http_port}/dicom-web"
    for setting, syntax in (("jpeg-ls", JPEGLSLossless), ("explicit-little", ExplicitVRLittleEndian)):
        results = sent(web_peer(url, transfer_syntax=setting), images)
        assert [r.outcome for r in results] == [Outcome.STORED] * 4
        assert held_as(iter(stored_by(orthanc, tmp_path / setting)), images) == {syntax}

"""What cannot be read rightly is refused, in one sentence that names it and no patient."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    MPEG2MPML,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    EnhancedCTImageStorage,
    EnhancedMRColorImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from node.errors import SeriesRefused
from tests.series import image, series, write
from workers.read import header, read_series
from workers.read import series as reading


def ct() -> FileDataset:
    return image(1, np.zeros((8, 8), np.float32))


def refusal(folder: Path, ds: FileDataset) -> str:
    with pytest.raises(SeriesRefused) as refused:
        read_series(write(folder, [ds]))
    return str(refused.value)


def given_class(uid: str) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, "SOPClassUID", uid)


def without(keyword: str) -> Callable[[Dataset], None]:
    return lambda ds: delattr(ds, keyword)


def having(**values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


REFUSED = [
    (given_class(EnhancedCTImageStorage), "NumberOfFrames is 1, functional groups are there for 0."),
    (
        given_class(PositronEmissionTomographyImageStorage),
        "Modality is CT, but its SOP class is Positron Emission Tomography Image Storage.",
    ),
    (given_class(SecondaryCaptureImageStorage), "Secondary Capture Image Storage is not read: a picture of "),
    (given_class(ComprehensiveSRStorage), "Comprehensive SR Storage is not read; "),
    (given_class(DigitalXRayImageStorageForProcessing), "raw detector data; only images for presentation"),
    (given_class(EnhancedMRColorImageStorage), "colour, a picture of a result and no measurement."),
    (given_class("1.2.840.10008.5.1.4.1.1.6"), "its class was retired in 1994."),
    (given_class("1.2.3.4"), "1.2.3.4 is not read; "),
    (having(Modality="MR"), "Modality is MR, but its SOP class is CT Image Storage."),
    (having(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a Siemens mosaic, many slices tiled"),
    (having(NumberOfFrames=3), "NumberOfFrames is 3; a classic image has one frame."),
    (having(SamplesPerPixel=3), "SamplesPerPixel is 3; colour is no image in modality units"),
    (having(PhotometricInterpretation="MONOCHROME1"), "PhotometricInterpretation is MONOCHROME1; only"),
    (without("PhotometricInterpretation"), "PhotometricInterpretation is missing; only MONOCHROME2"),
    (having(BitsAllocated=24), "16 bits stored in 24 allocated; 8, 16 or 32 bits are read."),
    (having(BitsStored=17), "17 bits stored in 16 allocated; 8, 16 or 32 bits are read."),
    (having(BitsStored=12), "HighBit is 15; with BitsStored 12 it must be 11."),
    (having(PixelRepresentation=2), "PixelRepresentation is 2, it must be 0 or 1."),
    (without("BitsStored"), "BitsStored is missing."),
    (having(Rows=0), "Rows×Columns is 0×8, there is no pixel in it."),
    (without("Columns"), "Columns is missing."),
    (having(PixelSpacing=[0, 1]), "PixelSpacing is 0\\1, it must be above zero."),
    (having(PixelSpacing=[0.5, -1]), "PixelSpacing is 0.5\\-1, it must be above zero."),
    (having(PixelSpacing=[0.5]), "PixelSpacing has 1 values, it must have 2."),
    (having(PixelSpacing=["nan", 1]), "PixelSpacing is not a finite number."),
    (without("PixelSpacing"), "PixelSpacing is missing."),
    (having(ImagePositionPatient=["1", "inf", "2"]), "ImagePositionPatient is not a finite number."),
    (having(ImagePositionPatient=[1, 2]), "ImagePositionPatient has 2 values, it must have 3."),
    (having(ImagePositionPatient=None), "ImagePositionPatient is missing."),
    (without("ImageOrientationPatient"), "ImageOrientationPatient is missing."),
    (having(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "is not two unit vectors at a right angle."),
    (having(ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "is not two unit vectors at a right angle."),
    (having(RescaleSlope=0), "RescaleSlope is 0, every pixel would be the same."),
    (having(RescaleIntercept="1e400"), "RescaleIntercept is not a finite number."),
    (having(RescaleSlope="1e300"), "RescaleSlope and RescaleIntercept lead to values beyond float32."),
    (without("RescaleIntercept"), "only one of RescaleSlope and RescaleIntercept is there."),
    (having(RescaleSlope=None, RescaleIntercept=None), "are missing, so HU are unknown."),
    (having(RescaleType="MGML"), "RescaleType is MGML; only HU is read for CT."),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_an_image_that_cannot_be_read_rightly_is_refused(
    tmp_path: Path, change: Callable[[Dataset], None], said: str
) -> None:
    """The sentence names the image by its UID, and the attribute with what it holds."""
    ds = ct()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the bad values that are made here
        change(ds)
        paths = write(tmp_path, [ds])
    with pytest.raises(SeriesRefused) as refused:
        read_series(paths)
    message = str(refused.value)
    assert said in message
    assert message.startswith(f"Image {ds.SOPInstanceUID}")
    assert message.endswith(".")
    assert "Test" not in message
    assert "TEST-1" not in message


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_an_image_of_no_series_is_refused(tmp_path: Path, keyword: str) -> None:
    """Without its UIDs an image belongs nowhere; the file is named instead."""
    ds = ct()
    delattr(ds, keyword)
    assert refusal(tmp_path, ds) == f"File 0000.dcm has no valid {keyword}."


def test_remote_text_is_not_repeated_raw(tmp_path: Path) -> None:
    """What a header holds reaches a sentence only as short, plain ASCII."""
    ds = ct()
    ds.add(DataElement("PhotometricInterpretation", "CS", "<B>\x1b[31m", validation_mode=IGNORE))
    message = refusal(tmp_path, ds)
    assert "PhotometricInterpretation is ?B???31m; only" in message


def test_an_unknown_transfer_syntax_is_refused(tmp_path: Path) -> None:
    """A syntax without a codec is refused by its name before a pixel is touched."""
    video = ct()
    video.file_meta.TransferSyntaxUID = MPEG2MPML
    video["PixelData"].VR = "OB"
    video["PixelData"].is_undefined_length = True
    video.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\x04\0\0\0abcd"
    assert "transfer syntax MPEG2 Main Profile / Main Level is not decoded." in refusal(tmp_path, video)


@pytest.mark.parametrize(
    "content", [b"", b"no DICOM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\2\0\0\0UL"]
)
def test_a_file_that_is_no_dicom_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """The file is named where it has no UID to be called by."""
    (tmp_path / "odd name;.dcm").write_bytes(content)
    with pytest.raises(SeriesRefused, match=r"^File odd name\?\.dcm "):
        read_series([tmp_path / "odd name;.dcm"])


def test_a_file_that_is_not_there_is_no_fault_of_the_series(tmp_path: Path) -> None:
    """A missing file is the system's error, which another attempt may cure."""
    with pytest.raises(FileNotFoundError):
        read_series([tmp_path / "gone.dcm"])


def test_a_huge_series_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The voxels of all slices are counted from the headers, and more than the limit refused."""
    ds = ct()
    ds.Rows = ds.Columns = 65535
    assert "slices of 65535×65535, 4294836225 voxels; at most 1073741824" in refusal(tmp_path / "one", ds)
    monkeypatch.setattr(reading, "MAX_VOXELS", 8 * 8 * 3)
    read_series(write(tmp_path / "three", series(3, 8)))
    with pytest.raises(SeriesRefused, match="The series has 4 slices of 8×8, 256 voxels; at most 192"):
        read_series(write(tmp_path / "four", series(4, 8)))


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small deflated file that inflates beyond the limit is refused before it is inflated whole."""
    ds = image(1, np.zeros((1024, 1024), np.float32))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    paths = write(tmp_path, [ds])
    assert paths[0].stat().st_size < 20_000
    read_series(paths)
    monkeypatch.setattr(header, "MAX_INFLATED", 1 << 20)
    with pytest.raises(SeriesRefused, match=r"File 0000\.dcm inflates to more than 1 MiB"):
        read_series(paths)


def test_no_value_of_a_header_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pydicom quotes values that it finds odd in warnings and in its log; reading lets out neither."""
    ds = ct()
    ds.add(DataElement("Modality", "CS", "Grandma's", validation_mode=IGNORE))
    with caplog.at_level("DEBUG"):
        assert "Modality is Grandma?s, but" in refusal(tmp_path, ds)
        caplog.clear()
        with pytest.raises(SeriesRefused):
            read_series([tmp_path / "0000.dcm"])
    assert "Grandma" not in caplog.text


def test_one_bad_image_refuses_the_series_whole(tmp_path: Path) -> None:
    """No slice is dropped in silence: one that cannot be decoded refuses all."""
    images = series(4, 8)
    images[2].PixelData = images[2].PixelData[:-2]
    with pytest.raises(SeriesRefused, match=f"Image {images[2].SOPInstanceUID}: PixelData is truncated"):
        read_series(write(tmp_path, images))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Bytes changed, lost or added anywhere after the preamble give a volume or SeriesRefused."""
    draw = random.Random(seed)
    ds = image(1, np.zeros((8, 8), np.float32))
    (path,) = write(tmp_path_factory.mktemp("damaged"), [ds])
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 3, 10])):
        at = draw.randrange(132, len(content))
        match draw.choice(["change", "change", "lose", "add", "cut"]):
            case "change":
                content[at] = draw.randrange(256)
            case "lose":
                del content[at : at + draw.randrange(1, 40)]
            case "add":
                content[at:at] = draw.randbytes(draw.randrange(1, 20))
            case _:
                del content[max(at, 200) :]
    path.write_bytes(content)
    try:
        volume = read_series([path])
    except SeriesRefused as refused:
        assert str(refused).endswith(".")
    else:
        assert volume.voxels.shape[0] == 1
        assert np.isfinite(volume.voxels).all()

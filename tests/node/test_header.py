"""Headers are read as pydicom reads them, and a missing end is noticed."""

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from node import header
from node.entities import CONTRIBUTING_MANUFACTURER
from node.header import HeaderError
from tests import series
from tests.node.receiver import data_set_of, encoded

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def slice_(**changes: object) -> Dataset:
    ds = series.series(1, 16)[0]
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def equipment(*manufacturers: str) -> Sequence:
    items = []
    for manufacturer in manufacturers:
        item = Dataset()
        item.Manufacturer = manufacturer
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
        item.PurposeOfReferenceCodeSequence = Sequence([purpose])
        items.append(item)
    return Sequence(items)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_uids(syntax: UID) -> None:
    """The four UIDs are found in every uncompressed syntax and in the deflated one."""
    ds = slice_()
    found = header.read(encoded(ds, syntax), syntax)
    assert found == header.Header(
        ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID, False, ""
    )


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_own_result(syntax: UID, undefined: bool) -> None:
    """Our ContributingEquipment is found among others, in sequences of defined and undefined length."""
    ours = slice_(ContributingEquipmentSequence=equipment("Maker", CONTRIBUTING_MANUFACTURER))
    others = slice_(ContributingEquipmentSequence=equipment("Maker", CONTRIBUTING_MANUFACTURER + " Inc"))
    for ds in (ours, others):
        ds["ContributingEquipmentSequence"].is_undefined_length = undefined
        for item in ds.ContributingEquipmentSequence:
            item.is_undefined_length_sequence_item = undefined
    assert header.read(encoded(ours, syntax), syntax).own_result
    assert not header.read(encoded(others, syntax), syntax).own_result


def test_manufacturer_elsewhere() -> None:
    """Our name as the Manufacturer of the image itself does not make it our result."""
    ds = slice_(Manufacturer=CONTRIBUTING_MANUFACTURER)
    assert not header.read(encoded(ds), ExplicitVRLittleEndian).own_result


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_cut_anywhere(syntax: UID) -> None:
    """A data set that is cut short at any byte is either refused or has a defect; none passes as sound."""
    ds = slice_()
    ds.ReferencedImageSequence = equipment("Maker")
    ds["ReferencedImageSequence"].is_undefined_length = True
    raw = encoded(ds, syntax)
    for end in range(len(raw) - (2 if syntax == DeflatedExplicitVRLittleEndian else 1)):
        try:
            found = header.read(raw[:end], syntax)
        except HeaderError:
            continue
        assert found.defect, f"cut at {end} of {len(raw)}"


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"StudyInstanceUID": ""}, "StudyInstanceUID is missing"),
        ({"SeriesInstanceUID": None}, "SeriesInstanceUID is missing"),
        ({"SeriesInstanceUID": "1.2/../../3"}, "SeriesInstanceUID is not a UID"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_defects(change: dict[str, object], defect: str) -> None:
    """What is wrong with a header that can be read is said in a sentence."""
    raw = encoded(slice_(**change))
    assert header.read(raw, ExplicitVRLittleEndian).defect == defect


def test_no_pixels() -> None:
    """An image without pixel data has a defect."""
    ds = slice_()
    del ds.PixelData
    assert header.read(encoded(ds), ExplicitVRLittleEndian).defect == header.MISSING_PIXELS


def test_trailing_padding() -> None:
    """Data set trailing padding, and zero bytes behind the last element, are no defect."""
    ds = slice_(DataSetTrailingPadding=b"\0" * 64)
    assert header.read(encoded(ds) + b"\0" * 7, ExplicitVRLittleEndian).defect == ""


def test_deflated_bomb() -> None:
    """A deflated data set that inflates to very much is read in bounded memory."""
    ds = slice_()
    ds.PixelData = bytes(64 << 20)
    raw = encoded(ds, DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    assert header.read(raw, DeflatedExplicitVRLittleEndian).defect == ""
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_deep_sequences() -> None:
    """Sequences nested without end are refused, not followed."""
    begin = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    with pytest.raises(HeaderError, match="levels deep"):
        header.read(begin * 5000, ExplicitVRLittleEndian)


@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_noise(data: bytes, syntax: UID) -> None:
    """Arbitrary bytes are refused or have a defect; nothing else is raised."""
    try:
        found = header.read(data, syntax)
    except HeaderError:
        return
    assert found.defect


@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(SYNTAXES[:3]))
def test_damaged_byte(at: int, value: int, syntax: UID) -> None:
    """One damaged byte raises nothing but HeaderError."""
    raw = bytearray(encoded(slice_(), syntax))
    raw[at % len(raw)] = value
    with suppress(HeaderError):
        header.read(raw, syntax)


def test_wrong_syntax() -> None:
    """Implicit bytes in an explicit context cannot be decoded, and the sentence says where."""
    with pytest.raises(HeaderError, match="value representation at byte 4"):
        header.read(encoded(slice_(), ImplicitVRLittleEndian), JPEGLSLossless)


@pytest.mark.filterwarnings("ignore")
def test_as_pydicom(data_dir: Path) -> None:
    """Every file of the variety pack gives the UIDs that pydicom reads."""
    compared = 0
    for path in sorted((data_dir / "dicom-variety").iterdir()):
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                continue
        ds = dcmread(path, stop_before_pixels=True)
        syntax = ds.file_meta.get("TransferSyntaxUID")
        if syntax is None or "FileMetaInformationGroupLength" not in ds.file_meta:
            continue
        found = header.read(data_set_of(path), syntax)
        assert found.sop_class_uid == ds.get("SOPClassUID", ""), path.name
        assert found.sop_instance_uid == ds.get("SOPInstanceUID", ""), path.name
        assert found.series_instance_uid == (ds.get("SeriesInstanceUID") or ""), path.name
        assert found.study_instance_uid == (ds.get("StudyInstanceUID") or ""), path.name
        assert ("cut short" in found.defect) == ("truncated" in path.name), (path.name, found.defect)
        compared += 1
    assert compared > 100

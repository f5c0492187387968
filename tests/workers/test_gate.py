"""The gate: each fault it knows is planted in a sound result and found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.errors import ArtifactRefused
from tests import series as made
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores, volume_of
from workers.write import gate
from workers.write.capture import write_captures
from workers.write.derived import write_derived
from workers.write.iod import iod_of


def _pixel(value: int) -> Callable[[FileDataset], None]:
    def change(ds: FileDataset) -> None:
        stored = ds.pixel_array.copy()
        stored[0, 0] = value
        ds.PixelData = stored.tobytes()

    return change


def _set(**values: object) -> Callable[[FileDataset], None]:
    def change(ds: FileDataset) -> None:
        with pydicom.config.disable_value_validation():
            for keyword, value in values.items():
                setattr(ds, keyword, value)

    return change


def _drop(keyword: str) -> Callable[[FileDataset], None]:
    return lambda ds: ds.__delattr__(keyword)


FAULTS: dict[str, Callable[[FileDataset], None]] = {
    "FrameOfReferenceUID is missing": _drop("FrameOfReferenceUID"),
    "KVP is missing": _drop("KVP"),
    "Modality is empty": _set(Modality=""),
    "ContributingEquipmentSequence does not name us": _drop("ContributingEquipmentSequence"),
    "SmallestImagePixelValue is a leftover": lambda ds: ds.add_new("SmallestImagePixelValue", "SS", 0),
    "the window is not sane": _set(WindowWidth=0),
    "the window is not": _drop("WindowCenter"),
    "BurnedInAnnotation is neither": _set(BurnedInAnnotation="MAYBE"),
    "StudyInstanceUID is no valid UID": _set(StudyInstanceUID="1.02.3"),
    "SeriesInstanceUID is not a new one of ours": _set(SeriesInstanceUID="1.2.3"),
    "SpecificCharacterSet is not": _set(SpecificCharacterSet="ISO_IR 100"),
    "SeriesDescription has a value that LO does not allow": _set(SeriesDescription="x" * 65),
    "PatientID is not the source's": _set(PatientID="SOMEBODY ELSE"),
    "AccessionNumber is not the source's": _set(AccessionNumber=""),
    "PixelData has 8190 bytes": lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]),
    "do not fit together": _set(HighBit=9),
    "leave BitsStored 12": _set(BitsStored=12, HighBit=11),
    "ImagePositionPatient differs": _set(ImagePositionPatient=[-100, -100, 2.001]),
    "PixelSpacing differs": _set(PixelSpacing=[0.8, 0.81]),
    "RescaleSlope differs": _set(RescaleSlope=2),
    "a value changed by": _pixel(3000),
    "padding pixels were changed": _pixel(-1999),
    "its source image is not of this series": _drop("SourceImageSequence"),
    "the file meta names another": lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "2.25.1"),
}


@pytest.mark.parametrize("finding", FAULTS)
def test_each_fault_is_found(tmp_path: Path, finding: str) -> None:
    """A sound derived series passes, and does not once one of its objects has the fault."""
    images = made.series(2)
    for ds in images:
        ds.PixelPaddingValue = -2000
        stored = ds.pixel_array.copy()
        stored[0, :4] = -2000 if finding.startswith("padding") else 40
        stored[1, 0] = 3000
        ds.PixelData = stored.tobytes()
    volume = volume_of(tmp_path / "in", images)
    result = denoised(volume)
    artifacts = write_derived(volume, result, PROVENANCE, tmp_path, NOW)
    gate.check(tmp_path, artifacts, volume, result)
    path = tmp_path / artifacts[0].path
    ds = pydicom.dcmread(path)
    FAULTS[finding](ds)
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, ds)
    with pytest.raises(ArtifactRefused) as refused:
        gate.check(tmp_path, artifacts, volume, result)
    assert any(finding in text for text in refused.value.findings), refused.value.findings


def test_made_padding_is_found(tmp_path: Path) -> None:
    """A pixel that reads as padding where the source has none is a finding of its own."""
    images = made.series(1)
    images[0].PixelPaddingValue = 1060
    volume = volume_of(tmp_path / "in", images)
    stored = volume.stored[0].copy()
    ds = images[0]
    stored[3, 3] = 1061
    changed = stored.copy()
    changed[3, 3] = 1060
    ds.PixelData = changed.astype("<i2").tobytes()
    found = gate.examine_values(ds, ds, stored, np.zeros(stored.shape, bool), bound=5)
    assert found == ["1 pixels became padding"]


def test_all_findings_come_at_once_and_are_counted(tmp_path: Path) -> None:
    """A fault of every object is one sentence with its number, beside the other faults."""
    volume = volume_of(tmp_path / "in", made.series(3))
    artifacts = write_derived(volume, denoised(volume), PROVENANCE, tmp_path, NOW)
    tight = replace(denoised(volume), strength=0.1)
    (tmp_path / artifacts[2].path).write_bytes((tmp_path / artifacts[1].path).read_bytes())
    with pytest.raises(ArtifactRefused) as refused:
        gate.check(tmp_path, artifacts, volume, tight)
    text = str(refused.value)
    assert "a value changed by" in text
    assert "the manifest names other UIDs than the file" in text
    assert "2 of 3 slices have a derived image" in text


def test_a_capture_without_its_label_is_found(tmp_path: Path) -> None:
    """A capture that does not admit its burned-in text is refused."""
    volume = volume_of(tmp_path / "in", made.series(2))
    artifacts = write_captures(volume, scores(volume), PROVENANCE, tmp_path, NOW)
    path = tmp_path / artifacts[1].path
    ds = pydicom.dcmread(path)
    ds.BurnedInAnnotation = "NO"
    pydicom.dcmwrite(path, ds)
    with pytest.raises(ArtifactRefused, match="BurnedInAnnotation YES"):
        gate.check(tmp_path, artifacts, volume)


def test_the_tables_of_the_standard_are_there() -> None:
    """The IOD tables that highdicom ships are where they are looked for, and say what the standard says."""
    ct = iod_of(pydicom.uid.CTImageStorage)
    assert ct is not None
    assert ct.required["ImagePositionPatient"] == "1"
    assert ct.required["KVP"] == "2"
    assert "CTDIvol" in ct.keywords
    assert iod_of("1.2.3") is None

"""Mammograms, angiograms, fluoroscopy and nuclear medicine: read, and written back one for one."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.errors import SeriesRefused
from tests import series as made
from tests import validators
from tests.workers import modalities_made as other
from tests.workers.results_made import NOW, PROVENANCE, denoised
from tests.workers.test_modalities import round_trip
from workers.read import read_volumes
from workers.write import gate
from workers.write.derived import write_parts
from workers.write.orientation import position_by_codes


def test_a_mammogram_keeps_its_view_and_its_padding(tmp_path: Path) -> None:
    """What lies beside the breast is padding and comes back as it was; view, side and intent stay."""
    source = other.mammogram()
    (volume,), (out,) = round_trip(tmp_path, [source])
    assert (volume.modality, volume.flat, volume.spacing[1:]) == ("MG", True, (0.2, 0.2))
    assert volume.padding[0, :, :9].all()
    assert not volume.padding[0, :, 9:].any()
    assert (out.pixel_array[:, :9] == 0).all()
    for keyword in ("ViewCodeSequence", "ImageLaterality", "PresentationIntentType", "PixelPaddingValue"):
        assert out[keyword].value == source[keyword].value, keyword
    assert out.ImageType[:2] == ["DERIVED", "SECONDARY"]


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("fluoroscopy", [False, True])
def test_each_frame_of_a_cine_is_judged_by_itself(tmp_path: Path, frames: int, *, fluoroscopy: bool) -> None:
    """A run is one volume of frames in their order, none the neighbour of another; one object comes back."""
    source = other.angiogram(frames, fluoroscopy=fluoroscopy)
    (volume,), (out,) = round_trip(tmp_path, [source])
    assert volume.modality == ("RF" if fluoroscopy else "XA")
    assert volume.voxels.shape == (frames, 32, 32)
    assert (volume.neighbours == np.arange(frames)[:, None]).all()
    assert np.array_equal(volume.stored, source.pixel_array.reshape(volume.stored.shape))
    for keyword in ("FrameTime", "FrameIncrementPointer", "NumberOfFrames", "PixelIntensityRelationship"):
        if keyword in source:
            assert out[keyword].value == source[keyword].value, keyword


def test_counts_are_one_volume_for_each_window_and_detector(tmp_path: Path) -> None:
    """Frames are told apart by what their vectors say, and written back in their own order."""
    source = other.nuclear(running=1)
    volumes, (out,) = round_trip(tmp_path, [source], strength=0.02)
    labels = [f"energy window {window}, detector {detector}" for window in (1, 2) for detector in (1, 2)]
    assert [volume.label for volume in volumes] == labels
    assert [volume.frames.tolist() for volume in volumes if volume.frames is not None] == [[1], [2], [3], [4]]
    assert [round(float(volume.voxels.mean())) for volume in volumes] == [11, 12, 21, 22]
    assert out.ImageType[:3] == ["DERIVED", "PRIMARY", "STATIC"]
    assert (out.pixel_array >= 0).all()
    for keyword in ("EnergyWindowVector", "DetectorVector", "FrameIncrementPointer"):
        assert out[keyword].value == source[keyword].value, keyword


def test_reconstructed_slices_are_neighbours_and_projections_are_not(tmp_path: Path) -> None:
    """Slices are sorted by their number; the frame before and after is the next anatomy only there."""
    source = other.nuclear("RECON TOMO", windows=1, detectors=1, running=4)
    (volume,), _ = round_trip(tmp_path, [source], strength=0.02)
    assert volume.frames is not None
    assert volume.frames.tolist() == [4, 3, 2, 1]
    assert volume.neighbours.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert np.array_equal(volume.stored[0], source.pixel_array[3])
    for change in ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]}, {"SpacingBetweenSlices": 40}):
        other_one = other.nuclear("RECON TOMO", windows=1, detectors=1, running=4)
        for keyword, value in change.items():
            setattr(other_one, keyword, value)
        (alone,) = read_volumes(made.write(tmp_path / next(iter(change)), [other_one]))
        assert (alone.neighbours == np.arange(4)[:, None]).all()


def test_vectors_that_do_not_fit_the_frames_are_refused(tmp_path: Path) -> None:
    """A vector with another number of values than there are frames tells nothing."""
    source = other.nuclear(running=1)
    source.DetectorVector = [1, 2]
    with pytest.raises(SeriesRefused, match="DetectorVector has 2 values, it must have 4"):
        read_volumes(made.write(tmp_path, [source]))


@pytest.mark.parametrize(
    ("sop_class", "modality", "reason"),
    [
        (SecondaryCaptureImageStorage, "OT", "whose values have no known unit"),
        (MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "OT", "whose values have no known unit"),
        (DigitalMammographyXRayImageStorageForProcessing, "MG", "raw detector data"),
    ],
)
def test_what_has_no_unit_is_refused_with_the_reason(
    tmp_path: Path, sop_class: str, modality: str, reason: str
) -> None:
    """Captures and raw detector data are no images in a unit, and the sentence says so."""
    source = other.radiograph()
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = sop_class
    source.Modality = modality
    with pytest.raises(SeriesRefused, match=reason):
        read_volumes(made.write(tmp_path, [source]))


@pytest.mark.parametrize("name", ["pet_1.dcm", "NM-MONO2-16-13x-heart", "mg_siemens_outofbounds_overlay.dcm"])
def test_real_objects_come_back_with_fewer_errors(tmp_path: Path, data_dir: Path, name: str) -> None:
    """A PET position said twice is said once, an NM object has its empty type 2; only STEREO stays."""
    volumes = read_volumes([data_dir / "dicom-variety" / name])
    parts = [(volume, denoised(volume, strength=0.02)) for volume in volumes]
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    gate.check_parts(tmp_path, [artifact], parts)
    assert [line for line in validators.dciodvfy(tmp_path / artifact.path) if "<STEREO>" not in line] == []
    if name.startswith("pet"):
        out = pydicom.dcmread(tmp_path / artifact.path)
        source = pydicom.dcmread(data_dir / "dicom-variety" / name)
        assert "PatientPosition" not in out
        assert position_by_codes(out) == source.PatientPosition == "HFS"


def test_a_position_that_the_codes_do_not_say_stays(tmp_path: Path) -> None:
    """Where the codes say less than PatientPosition, nothing is taken out."""
    images = other.pet(slices=1)
    images[0].PatientPosition = "FFS"
    images[0].PatientOrientationCodeSequence = [other.code("102538003", "recumbent")]
    (volume,) = read_volumes(made.write(tmp_path / "in", images))
    parts = [(volume, denoised(volume))]
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    gate.check_parts(tmp_path, [artifact], parts)
    assert pydicom.dcmread(tmp_path / artifact.path).PatientPosition == "FFS"

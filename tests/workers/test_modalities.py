"""Enhanced MR, 4-D MR, PET, ultrasound, CR and DX: read, and written back one for one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.errors import ArtifactRefused, SeriesRefused
from tests import series as made
from tests import validators
from tests.workers import modalities_made as other
from tests.workers.jobs_made import job
from tests.workers.models_made import denoiser_folder
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers import pipeline
from workers.read import Volume, read_series, read_volumes
from workers.write import gate
from workers.write.bundle import WRITERS, write_bundle
from workers.write.derived import write_parts

CLINIC = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг"),
    "Arabic": ("ISO_IR 127", "قباني^لنزار"),
    "German": ("ISO_IR 100", "Äneas^Rüdiger"),
}


def round_trip(
    tmp_path: Path, images: Sequence[FileDataset], strength: float = 0.5
) -> tuple[list[Volume], list[FileDataset]]:
    """The volumes of a series, and its derived objects gated, validated and read back."""
    paths = made.write(tmp_path / "in", images)
    volumes = read_volumes(paths)
    parts = [(volume, denoised(volume, strength=strength)) for volume in volumes]
    artifacts = write_parts(parts, PROVENANCE, tmp_path / "out", NOW)
    gate.check_parts(tmp_path / "out", artifacts, parts)
    files = [tmp_path / "out" / artifact.path for artifact in artifacts]
    assert validators.dciodvfy(*files) == []
    assert len(files) == len(images)
    return volumes, [pydicom.dcmread(path) for path in files]


def test_frames_of_an_enhanced_object_are_a_sorted_stack(tmp_path: Path) -> None:
    """Descending frames are read in ascending order with their place, and written back in their own."""
    source = other.enhanced_mr()
    (volume,), (out,) = round_trip(tmp_path, [source])
    assert volume.positions.tolist() == [2, 4, 6, 8]
    assert volume.frames is not None
    assert volume.frames.tolist() == [4, 3, 2, 1]
    assert volume.spacing == (2.0, 0.8, 0.8)
    assert np.array_equal(volume.stored[0], source.pixel_array[3])
    assert volume.voxels[0, 0, 0] == source.pixel_array[3, 0, 0] - 1024
    assert out.NumberOfFrames == 4
    assert out.ImageType == ["DERIVED", "PRIMARY", "OTHER", "NONE"]
    assert out.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType[0] == "DERIVED"
    for number, (own, theirs) in enumerate(
        zip(out.PerFrameFunctionalGroupsSequence, source.PerFrameFunctionalGroupsSequence, strict=True), 1
    ):
        assert own.PlanePositionSequence == theirs.PlanePositionSequence
        assert own.FrameContentSequence == theirs.FrameContentSequence
        reference = own.DerivationImageSequence[0].SourceImageSequence[0]
        assert (reference.ReferencedFrameNumber, reference.ReferencedSOPInstanceUID) == (
            number,
            source.SOPInstanceUID,
        )
    change = out.pixel_array.astype(int) - source.pixel_array
    assert 0 < np.abs(change).max() <= 0.5 * 3 * 12 + 0.5


def test_echoes_in_one_object_are_two_volumes_and_one_result(tmp_path: Path) -> None:
    """Each echo is a volume of its own; the derived object has all frames in their order."""
    source = other.enhanced_mr(echoes=2)
    volumes, (out,) = round_trip(tmp_path, [source])
    assert [volume.label for volume in volumes] == ["EffectiveEchoTime 10", "EffectiveEchoTime 20"]
    assert [volume.frames.tolist() for volume in volumes if volume.frames is not None] == [
        [7, 5, 3, 1],
        [8, 6, 4, 2],
    ]
    assert np.abs(out.pixel_array.astype(int) - source.pixel_array).max() < 30


def test_a_series_of_two_echoes_is_split_by_what_varies(tmp_path: Path) -> None:
    """Classic images of two echoes are two volumes; one derived image comes for each."""
    images = other.echoes()
    volumes, results = round_trip(tmp_path, images)
    assert [volume.label for volume in volumes] == ["EchoTime 10", "EchoTime 20"]
    assert len({ds.SeriesInstanceUID for ds in results}) == 1
    by_source = {str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID): ds for ds in results}
    for source in images:
        result = by_source[str(source.SOPInstanceUID)]
        assert result.EchoTime == source.EchoTime
        assert result.ImagePositionPatient == source.ImagePositionPatient
    with pytest.raises(SeriesRefused, match="they differ in EchoTime"):
        read_series(sorted((tmp_path / "in").iterdir()))


def test_what_does_not_come_out_even_is_not_split(tmp_path: Path) -> None:
    """A second echo that lacks a slice leaves the series one that is refused by name."""
    with pytest.raises(SeriesRefused, match="Two images lie at"):
        read_volumes(made.write(tmp_path, other.echoes()[:-1]))


def test_pet_keeps_its_slopes_and_what_suv_needs(tmp_path: Path) -> None:
    """Each slice is read and written by its own slope; decay, dose, weight and series time stay."""
    images = other.pet()
    (volume,), results = round_trip(tmp_path, images)
    for k, (source, result) in enumerate(zip(images, results, strict=True)):
        assert np.allclose(volume.voxels[k], source.pixel_array * float(source.RescaleSlope))
        for keyword in (
            "RescaleSlope", "RescaleIntercept", "Units", "DecayCorrection", "CorrectedImage", "PatientWeight",
            "FrameReferenceTime", "DecayFactor", "RadiopharmaceuticalInformationSequence", "SeriesTime",
        ):  # fmt: skip
            assert result[keyword].value == source[keyword].value, keyword
        assert result.pixel_array.min() >= 0


def test_a_colour_clip_changes_in_brightness_only(tmp_path: Path) -> None:
    """An ultrasound clip is read by its luminance; every frame comes back with the same hue."""
    source = other.ultrasound()
    (volume,), (out,) = round_trip(tmp_path, [source])
    assert volume.flat
    assert volume.spacing[1:] == pytest.approx((0.4, 0.5))
    rgb = source.pixel_array
    assert np.allclose(volume.voxels, rgb @ np.array([0.299, 0.587, 0.114]), atol=1e-3)
    change = out.pixel_array.astype(int) - rgb
    assert np.abs(change).max() >= 1
    assert (np.ptp(change, axis=-1)[(rgb.min(axis=-1) > 20) & (rgb.max(axis=-1) < 235)] == 0).all()
    for keyword in ("NumberOfFrames", "FrameTime", "FrameIncrementPointer", "SequenceOfUltrasoundRegions"):
        assert out[keyword].value == source[keyword].value, keyword


@pytest.mark.parametrize("kind", ["palette", "ybr"])
def test_palette_and_ybr_become_rgb_as_they_are_shown(tmp_path: Path, data_dir: Path, kind: str) -> None:
    """A palette image and a JPEG clip in YBR come back as RGB; a lossy past is not forgotten."""
    name = {"palette": "examples_palette.dcm", "ybr": "examples_ybr_color.dcm"}[kind]
    (volume,) = read_volumes([data_dir / "dicom-variety" / name])
    assert volume.colour is not None
    source = pydicom.dcmread(data_dir / "dicom-variety" / name)
    if kind == "palette":
        expected = pydicom.pixels.apply_color_lut(source.pixel_array, source) >> 8
        assert np.array_equal(volume.colour[0], expected)
    parts = [(volume, denoised(volume, strength=0.1))]
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    gate.check_parts(tmp_path, [artifact], parts)
    out = pydicom.dcmread(tmp_path / artifact.path)
    assert (out.PhotometricInterpretation, out.SamplesPerPixel, out.PlanarConfiguration) == ("RGB", 3, 0)
    assert "RedPaletteColorLookupTableData" not in out
    assert out.get("LossyImageCompression", "00") == ("01" if kind == "ybr" else "00")


@pytest.mark.parametrize("digital", [True, False])
def test_a_radiograph_comes_back_as_it_is_shown(tmp_path: Path, digital: bool) -> None:
    """MONOCHROME1, its LUT shape, intent and bits stay; values stay within 10 bits."""
    source = other.radiograph(digital=digital)
    (volume,), (out,) = round_trip(tmp_path, [source])
    assert volume.flat
    assert volume.spacing[1:] == (0.2, 0.2)
    for keyword in ("PhotometricInterpretation", "BitsStored", "ImagerPixelSpacing", "PatientOrientation"):
        assert out[keyword].value == source[keyword].value
    if digital:
        assert (out.PresentationLUTShape, out.PresentationIntentType) == ("INVERSE", "FOR PRESENTATION")
    assert out.pixel_array.max() < 1024


def test_pictures_of_two_sizes_are_one_series_of_results(tmp_path: Path) -> None:
    """Two radiographs of one series, each of its own size, both come back."""
    first, second = other.radiograph(), other.radiograph(size=(40, 56))
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    second.InstanceNumber = 2
    volumes, results = round_trip(tmp_path, [first, second])
    assert len(volumes) == 2
    assert sorted((ds.Rows, ds.Columns) for ds in results) == [(40, 56), (48, 40)]


@pytest.mark.parametrize("bits", [1, 7, 12, 31, 32])
def test_one_to_thirty_two_bits(tmp_path: Path, bits: int) -> None:
    """Stored values of any depth come back exactly where nothing was changed."""
    ds = made.series(1, 16, modality="MR")[0]
    ds.BitsAllocated = 8 if bits <= 8 else 16 if bits <= 16 else 32
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(bits == 32)
    top = (1 << min(bits, 31)) - 1
    words = np.random.default_rng(bits).integers(0, top, (16, 16), endpoint=True)
    ds.PixelData = words.astype(f"<u{ds.BitsAllocated // 8}").tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    volume = read_series(made.write(tmp_path / "in", [ds]))
    assert np.array_equal(volume.stored[0], words)
    same = denoised(volume, strength=0.0)
    parts = [(volume, same)]
    same.image[:] = volume.voxels
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    gate.check_parts(tmp_path, [artifact], parts)
    assert np.array_equal(pydicom.dcmread(tmp_path / artifact.path).pixel_array, words)


@pytest.mark.parametrize("language", CLINIC)
def test_names_of_many_scripts_come_back_in_utf_8(tmp_path: Path, language: str) -> None:
    """A name in the source's character set is the same name in ISO_IR 192."""
    character_set, name = CLINIC[language]
    images = made.series(2, 32)
    for ds in images:
        ds.SpecificCharacterSet, ds.PatientName = character_set, name
        ds.IssuerOfPatientID = "Klinik"
        request = pydicom.Dataset()
        request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
        ds.RequestAttributesSequence = [request]
    _, results = round_trip(tmp_path, images)
    for ds in results:
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == name
        assert ds.IssuerOfPatientID == "Klinik"
        assert ds.RequestAttributesSequence[0].RequestedProcedureID == "RP1"


def test_an_anomaly_result_of_frames_names_its_frames(tmp_path: Path) -> None:
    """Segmentation, report and keys of an enhanced object refer to the frame that shows the finding."""
    source = other.enhanced_mr(size=64)
    volume = read_series(made.write(tmp_path / "in", [source]))
    notes: list[str] = []
    artifacts = write_bundle(("capture", *WRITERS), volume, scores(volume), PROVENANCE, tmp_path, NOW, notes)
    gate.check(tmp_path, artifacts, volume)
    assert validators.dciodvfy(*(tmp_path / a.path for a in artifacts)) == []
    found = {a.role: pydicom.dcmread(tmp_path / a.path) for a in artifacts}
    assert "no presentation: its slices may have a rescale each" in notes[0]
    group = found["report"].ContentSequence[-1].ContentSequence[0]
    (scoord,) = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    reference = scoord.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber in (2, 4)  # the first and third slice
    frames = found["segmentation"].PerFrameFunctionalGroupsSequence
    assert sorted(float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in frames) == [2.0, 6.0]


def test_an_anomaly_result_of_a_radiograph(tmp_path: Path) -> None:
    """Captures, report, outlines and keys are made; an overlay, which has no place, is left out and said."""
    volume = read_series(made.write(tmp_path / "in", [other.radiograph(size=(200, 160))]))
    notes: list[str] = []
    artifacts = write_bundle(("capture", *WRITERS), volume, scores(volume), PROVENANCE, tmp_path, NOW, notes)
    gate.check(tmp_path, artifacts, volume)
    assert validators.dciodvfy(*(tmp_path / a.path for a in artifacts)) == []
    assert {a.role for a in artifacts} == {"capture", "report", "presentation", "keys"}
    assert "no segmentation: the images have no place in the patient to lay it over" in notes
    page = pydicom.dcmread(tmp_path / "capture/0002.dcm")
    assert page.PatientOrientation == ["L", "F"]


def test_jobs_of_other_modalities(tmp_path: Path) -> None:
    """A model of the modality gets its result, a model of another a reason."""
    mr = denoiser_folder(tmp_path / "mr/0.0.1", modality="MR")
    enhanced = other.enhanced_mr(2)
    groups = enhanced.SharedFunctionalGroupsSequence[0]
    groups.PixelValueTransformationSequence[0].RescaleIntercept = 0  # magnitudes are not negative
    done = pipeline.run(job(tmp_path, [enhanced], mr, name="1"), tmp_path, "cpu", NOW)
    assert (done.outcome, len(done.artifacts)) == ("done", 1), done.reason
    assert "read as 2 volumes: EffectiveEchoTime 10, EffectiveEchoTime 20" in done.notes
    failed = pipeline.run(job(tmp_path, [other.radiograph()], mr, name="2"), tmp_path, "cpu", NOW)
    assert failed.reason == "Model 'test-denoise' is for MR, the series is DX."


def test_an_object_with_a_frame_without_result_is_refused(tmp_path: Path) -> None:
    """Half of the frames are no derived object."""
    volumes = read_volumes(made.write(tmp_path / "in", [other.enhanced_mr(echoes=2)]))
    with pytest.raises(ArtifactRefused, match="4 of 8 frames have no result"):
        write_parts([(volumes[0], denoised(volumes[0]))], PROVENANCE, tmp_path, NOW)


def _moved(ds: FileDataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [-100, -100, 9]


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (_moved, "PlanePositionSequence differs from the source's in a frame"),
        (lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "3 frames are described, the source has 4"),
        (lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), "a value changed by"),
    ],
)
def test_the_gate_looks_at_every_frame(tmp_path: Path, spoil: object, finding: str) -> None:
    """A frame that was moved, lost or changed too much holds the object back."""
    volume = read_series(made.write(tmp_path / "in", [other.enhanced_mr()]))
    parts = [(volume, denoised(volume))]
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    ds = pydicom.dcmread(tmp_path / artifact.path)
    assert callable(spoil)
    spoil(ds)
    ds.save_as(tmp_path / artifact.path)
    with pytest.raises(ArtifactRefused) as refused:
        gate.check_parts(tmp_path, [artifact], parts)
    assert any(finding in text for text in refused.value.findings), refused.value.findings


def test_a_hue_that_changed_is_found(tmp_path: Path) -> None:
    """One sample of one pixel that moved apart from the others is a finding."""
    volume = read_series(made.write(tmp_path / "in", [other.ultrasound()]))
    parts = [(volume, denoised(volume))]
    (artifact,) = write_parts(parts, PROVENANCE, tmp_path, NOW)
    ds = pydicom.dcmread(tmp_path / artifact.path)
    pixels = ds.pixel_array.copy()
    pixels[1, 2, 3] = volume.colour[1, 2, 3] if volume.colour is not None else 0
    pixels[1, 2, 3, 0] += 2
    ds.PixelData = pixels.tobytes()
    ds.save_as(tmp_path / artifact.path)
    with pytest.raises(ArtifactRefused, match="a hue changed"):
        gate.check_parts(tmp_path, [artifact], parts)

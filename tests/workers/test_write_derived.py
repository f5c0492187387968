"""The derived series, read back from its files."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, PositronEmissionTomographyImageStorage

from node.entities import CONTRIBUTING_MANUFACTURER
from node.errors import ArtifactRefused
from tests import series as made
from tests.workers.results_made import NOW, PROVENANCE, denoised, iod_errors, volume_of
from workers.read import Volume, read_series
from workers.write import gate
from workers.write.derived import write_derived
from workers.write.header import PRIVATE_KEPT


def derived(tmp_path: Path, volume: Volume, **changes: object) -> list[FileDataset]:
    """What is written for a volume, gated and read back."""
    result = denoised(volume)
    folder = tmp_path / "out"
    artifacts = write_derived(volume, result, replace(PROVENANCE, **changes), folder, NOW)  # type: ignore[arg-type]
    gate.check(folder, artifacts, volume, result)
    return [pydicom.dcmread(folder / artifact.path) for artifact in artifacts]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_derived_images_are_valid_and_lie_where_their_sources_lie(tmp_path: Path, modality: str) -> None:
    """A derived CT or MR series has no IOD error, its source's geometry and study, and UIDs of its own."""
    volume = volume_of(tmp_path / "in", made.series(5, modality=modality, orientation=(0, 1, 0, -1, 0, 0)))
    images = derived(tmp_path, volume)
    assert iod_errors(*sorted((tmp_path / "out/derived").iterdir())) == []
    for image, source in zip(images, volume.headers, strict=True):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "InstanceNumber"):
            assert image[keyword].value == source[keyword].value
        assert image.StudyInstanceUID == source.StudyInstanceUID
        assert image.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert image.SOPInstanceUID.startswith("2.25.")
        assert image.SOPInstanceUID != source.SOPInstanceUID
        assert image.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert image.SeriesNumber == 301
        assert image.SeriesDescription == "Thin axial [AI denoised ct-denoise 0.1.0]"
        assert image.Manufacturer == "Maker"
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        assert image.ContributingEquipmentSequence[-1].Manufacturer == CONTRIBUTING_MANUFACTURER
        assert "not for primary diagnosis" in image.DerivationDescription
        assert image.BurnedInAnnotation == "NO"
    assert len({image.SeriesInstanceUID for image in images}) == 1


def test_no_pixel_changes_beyond_the_bound_and_rounding(tmp_path: Path) -> None:
    """Read back, |out - in| is at most strength × limit × sigma + half a stored step in each slice."""
    volume = volume_of(tmp_path / "in", made.series(4, slope=0.5))
    result = denoised(volume)
    for index, image in enumerate(derived(tmp_path, volume)):
        out = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        change = np.abs(out - volume.voxels[index])
        assert change.max() <= 0.5 * 3 * result.sigma[index] + 0.25
        assert change.max() > 0.9 * 0.5 * 3 * result.sigma[index]


def test_an_unchanged_voxel_keeps_its_stored_value(tmp_path: Path) -> None:
    """Where the model changed nothing, the stored values are the source's bit for bit, whatever the slope."""
    volume = volume_of(tmp_path / "in", made.series(3, slope=0.0371, intercept=-1003.7))
    result = replace(denoised(volume), image=volume.voxels)
    artifacts = write_derived(volume, result, PROVENANCE, tmp_path / "out", NOW)
    for index, artifact in enumerate(artifacts):
        stored = pydicom.dcmread(tmp_path / "out" / artifact.path).pixel_array
        assert np.array_equal(stored, volume.stored[index])


def test_padding_is_copied_verbatim_and_none_is_made(tmp_path: Path) -> None:
    """Padding pixels keep their stored value; a value computed into the padding range stops beside it."""
    images = made.series(3, intercept=-1024.0)
    for ds in images:
        ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = -2000, -1990
        stored = ds.pixel_array.copy()
        stored[:8] = -2000
        stored[8:16] = -1982  # above the padding by less than the bounds of 12 to 18
        ds.PixelData = stored.astype("<i2").tobytes()
    volume = volume_of(tmp_path / "in", images)
    for index, image in enumerate(derived(tmp_path, volume)):
        out = image.pixel_array
        assert np.array_equal(out[volume.padding[index]], volume.stored[index][volume.padding[index]])
        assert not ((out >= -2000) & (out <= -1990) & ~volume.padding[index]).any()
        assert (out[8:16] == -1989).any()
        assert image.PixelPaddingValue == -2000


def test_values_stay_within_bits_stored(tmp_path: Path) -> None:
    """A result above or below what BitsStored holds is clipped, not wrapped."""
    images = made.series(2)
    for ds in images:
        stored = (ds.pixel_array.astype(np.int32) % 4).astype("<u2")
        stored[32:] = 4095 - stored[32:]
        ds.PixelData, ds.PixelRepresentation, ds.BitsStored, ds.HighBit = stored.tobytes(), 0, 12, 11
    volume = volume_of(tmp_path / "in", images)
    for image in derived(tmp_path, volume):
        assert image.pixel_array[:32].max() < 100
        assert image.pixel_array[32:].min() > 3995
        assert image.pixel_array.max() == 4095


NAMES = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Cyrillic": ("ISO_IR 144", "Иванов^Иван"),
    "German": ("ISO_IR 100", "Müller^Jürgen^^Dr."),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_survive_the_change_to_utf8(tmp_path: Path, name: str) -> None:
    """A name in the source's character set is the same name in ISO_IR 192, also inside sequences."""
    character_set, text = NAMES[name]
    images = made.series(2)
    for ds in images:
        ds.SpecificCharacterSet, ds.PatientName = character_set, text
        item = Dataset()
        item.RequestedProcedureID, item.RequestedProcedureDescription = "1", text.partition("=")[0][:12]
        item.ScheduledProcedureStepID = "1"
        ds.RequestAttributesSequence = Sequence([item])
    volume = volume_of(tmp_path / "in", images)
    for image in derived(tmp_path, volume):
        assert image.SpecificCharacterSet == "ISO_IR 192"
        assert str(image.PatientName) == text
        item = image.RequestAttributesSequence[0]
        assert item.RequestedProcedureDescription == text.partition("=")[0][:12]
    raw = (tmp_path / "out/derived/0001.dcm").read_bytes()
    assert text.partition("=")[0].encode() in raw
    assert iod_errors(tmp_path / "out/derived/0001.dcm") == []


def test_what_must_not_be_copied_is_not(tmp_path: Path) -> None:
    """Stale, signed, private, overlay and foreign attributes stay behind; identity and dose come along."""
    images = made.series(2)
    for ds in images:
        ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 4000
        ds.ImageComments, ds.RetrieveAETitle = "seen by the scanner", "OLD"
        ds.PerformedProcedureStepID = "PPS"
        ds.add_new(0x60000010, "US", 4)
        ds.VerifyingObserverName = "Somebody^Else"
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", ["800", "8", "0", "0"])
        ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"\0\1")
        ds.IssuerOfPatientID, ds.PatientAge, ds.CTDIvol, ds.Exposure = "HOSPITAL", "056Y", 3.2, 40
        ds.PixelAspectRatio, ds.Laterality = [1, 1], ""
    image = derived(tmp_path, volume_of(tmp_path / "in", images))[0]
    for keyword in (
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "ImageComments",
        "RetrieveAETitle",
        "PerformedProcedureStepID",
        "VerifyingObserverName",
        "PixelAspectRatio",
    ):
        assert keyword not in image
    assert not [e for e in image if e.tag.group in (0x6000, 0x0029)]
    assert ("GEMS_PARM_01", 0x0043) in PRIVATE_KEPT
    assert image.private_block(0x0043, "GEMS_PARM_01")[0x39].value[0] == 800
    assert (image.IssuerOfPatientID, image.PatientAge, image.CTDIvol) == ("HOSPITAL", "056Y", 3.2)
    assert iod_errors(tmp_path / "out/derived/0001.dcm") == []


def test_unlawful_values_are_left_out_by_name_but_identity_stays(tmp_path: Path) -> None:
    """A value its VR forbids is left out and named in the notes; a patient's identifier is kept as it is."""
    images = made.series(2)
    with pydicom.config.disable_value_validation():
        for ds in images:
            ds["ProtocolName"] = pydicom.DataElement("ProtocolName", "LO", "x" * 70)
            ds["AccessionNumber"] = pydicom.DataElement("AccessionNumber", "SH", "A" * 20)
        volume = volume_of(tmp_path / "in", images)
    result, notes = denoised(volume), list[str]()
    artifacts = write_derived(volume, result, PROVENANCE, tmp_path / "out", NOW, notes)
    gate.check(tmp_path / "out", artifacts, volume, result)
    with pydicom.config.disable_value_validation():
        image = pydicom.dcmread(tmp_path / "out" / artifacts[0].path)
        assert image.AccessionNumber == "A" * 20
    assert "ProtocolName" not in image
    assert notes == ["left out of the derived images for unlawful values: ProtocolName"]


def test_faults_of_scanners_and_anonymisers_are_repaired(tmp_path: Path) -> None:
    """Lower-case CS, DS too long and codes that name nothing become lawful; what is lost is named."""
    images = made.series(2)
    empty, whole = Dataset(), Dataset()
    empty.CodeMeaning = "CT CHEST"
    whole.CodeValue, whole.CodingSchemeDesignator, whole.CodeMeaning = "1", "99LOCAL", "Chest"
    with pydicom.config.disable_value_validation():
        for ds in images:
            ds["BodyPartExamined"] = pydicom.DataElement("BodyPartExamined", "CS", "Chest")
            ds["SliceLocation"] = pydicom.DataElement("SliceLocation", "DS", "12.34567890123456789")
            ds["LongitudinalTemporalInformationModified"] = pydicom.DataElement(0x00280303, "SH", "MODIFIED")
            ds.ProcedureCodeSequence = Sequence([empty, whole])
            ds.SpacingBetweenSlices, ds.WindowWidth = -2, 0
            ds["StudyInstanceUID"] = pydicom.DataElement("StudyInstanceUID", "UI", "1.2.0034.5")
        volume = volume_of(tmp_path / "in", images)
    result, notes = denoised(volume), list[str]()
    artifacts = write_derived(volume, result, PROVENANCE, tmp_path / "out", NOW, notes)
    gate.check(tmp_path / "out", artifacts, volume, result)
    image = pydicom.dcmread(tmp_path / "out" / artifacts[0].path)
    with pydicom.config.disable_value_validation():
        assert image.StudyInstanceUID == "1.2.0034.5"
    assert image.BodyPartExamined == "CHEST"
    assert float(image.SliceLocation) == pytest.approx(12.345678901, abs=1e-9)
    assert image["LongitudinalTemporalInformationModified"].VR == "CS"
    assert [item.CodeMeaning for item in image.ProcedureCodeSequence] == ["Chest"]
    assert "SpacingBetweenSlices" not in image
    assert "WindowCenter" not in image
    lost = "ProcedureCodeSequence, SpacingBetweenSlices, WindowCenter, WindowWidth"
    assert notes == [f"left out of the derived images for unlawful values: {lost}"]
    errors = [e for e in iod_errors(tmp_path / "out" / artifacts[0].path) if "StudyInstanceUID" not in e]
    assert [e for e in errors if "Study Instance UID" not in e and "invalid data values" not in e] == []


def test_uids_are_the_same_for_the_same_result_and_others_for_any_other(tmp_path: Path) -> None:
    """UIDs depend on model, version, weights, strength, limit and sources, and not on time or pipeline."""
    volume = volume_of(tmp_path / "in", made.series(3))
    series_of: dict[str, str] = {}

    def uid(name: str, later: datetime = NOW, source: Volume = volume, **changes: object) -> str:
        settings = {k: changes.pop(k) for k in ("strength", "limit_sigma") if k in changes}
        provenance = replace(PROVENANCE, **changes)  # type: ignore[arg-type]
        result = replace(denoised(source), **settings)  # type: ignore[arg-type]
        artifacts = write_derived(source, result, provenance, tmp_path / name, later)
        series_of[name] = artifacts[0].series_instance_uid
        assert len({a.sop_instance_uid for a in artifacts}) == len(artifacts)
        return artifacts[0].sop_instance_uid

    first = uid("first")
    assert uid("again", later=NOW.replace(year=2027), pipeline="another name") == first
    fewer = read_series(sorted((tmp_path / "in").iterdir())[:2])
    others = {
        uid("version", version="0.1.1"),
        uid("model", model="ct-denoise-2"),
        uid("weights", weights_sha256="60" * 32),
        uid("strength", strength=0.4),
        uid("limit", limit_sigma=2.0),
        uid("sources", source=fewer),
    }
    assert len(others | {first}) == 7
    assert len(set(series_of.values())) == 7


def test_lossy_history_is_kept(tmp_path: Path) -> None:
    """Lossy stays lossy with ratio and method; a lossy transfer syntax counts where the header is silent."""
    images = made.series(2)
    images[0].LossyImageCompression, images[0].LossyImageCompressionRatio = "01", 8.5
    images[0].LossyImageCompressionMethod = "ISO_15444_1"
    volume = volume_of(tmp_path / "in", images)
    volume.headers[1].file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    first, second = derived(tmp_path, volume)
    assert (first.LossyImageCompression, first.LossyImageCompressionRatio) == ("01", 8.5)
    assert first.LossyImageCompressionMethod == "ISO_15444_1"
    assert (second.LossyImageCompression, second.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


@pytest.mark.parametrize(
    ("offset", "date", "time"), [("+0900", "20260305", "073015.25"), ("-0330", "20260304", "190015.25")]
)
def test_dates_are_of_the_sources_clock(tmp_path: Path, offset: str, date: str, time: str) -> None:
    """New dates are in the source's TimezoneOffsetFromUTC; study and acquisition dates stay."""
    images = made.series(2)
    for ds in images:
        ds.TimezoneOffsetFromUTC = offset
    image = derived(tmp_path, volume_of(tmp_path / "in", images))[0]
    for stem in ("Series", "Content", "InstanceCreation"):
        assert image[f"{stem}Date"].value == date
        assert image[f"{stem}Time"].value.startswith(time)
    assert (image.StudyDate, image.AcquisitionDate) == ("20260102", "20260102")
    contribution = image.ContributingEquipmentSequence[-1].ContributionDateTime
    assert contribution.startswith(date) and contribution.endswith(offset)


def test_pet_keeps_the_series_time_that_decay_correction_reads(tmp_path: Path) -> None:
    """A derived PET image keeps SeriesDate, SeriesTime, units and scaling, and no activity is negative."""
    volume = volume_of(tmp_path / "in", made.series(2, slope=0.5, intercept=0.0))
    tracer, nuclide = Dataset(), Dataset()
    nuclide.CodeValue, nuclide.CodingSchemeDesignator, nuclide.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    tracer.RadionuclideCodeSequence = Sequence([nuclide])
    for header in volume.headers:
        header.SOPClassUID, header.Modality = PositronEmissionTomographyImageStorage, "PT"
        header.Units, header.DecayCorrection, header.CorrectedImage = "BQML", "START", ["ATTN", "DECY"]
        header.SeriesType, header.CountsSource, header.NumberOfSlices = ["STATIC", "IMAGE"], "EMISSION", 2
        header.CollimatorType, header.FrameReferenceTime, header.ImageIndex = "NONE", 0, 1
        header.DecayFactor, header.RadiopharmaceuticalInformationSequence = 1, Sequence([tracer])
        del header.PatientPosition
    result = denoised(volume)
    artifacts = write_derived(volume, result, PROVENANCE, tmp_path / "out", NOW)
    image = pydicom.dcmread(tmp_path / "out" / artifacts[0].path)
    assert (image.SeriesDate, image.SeriesTime) == ("20260102", "101600")
    assert (image.Units, image.RescaleSlope) == ("BQML", 0.5)
    assert iod_errors(tmp_path / "out" / artifacts[0].path) == []
    below = volume.stored[0] < 0
    assert np.array_equal(image.pixel_array < 0, below & (image.pixel_array == volume.stored[0]))


def test_numbers_and_descriptions_stay_within_their_bounds(tmp_path: Path) -> None:
    """A huge series number and a 64 character description give lawful ones."""
    images = made.series(2)
    for ds in images:
        ds.SeriesNumber, ds.SeriesDescription = 2147483000, "ä" * 64
    image = derived(tmp_path, volume_of(tmp_path / "in", images))[0]
    assert image.SeriesNumber == 748300001
    assert len(image.SeriesDescription) == 63
    assert image.SeriesDescription.endswith("[AI denoised ct-denoise 0.1.0]")


def test_a_result_that_cannot_be_written_back_is_refused(tmp_path: Path) -> None:
    """A modality lookup table and values that are not finite are refused before anything is written."""
    volume = volume_of(tmp_path / "in", made.series(2))
    broken = denoised(volume)
    broken.image[0, 5, 5] = np.nan
    volume.headers[1].ModalityLUTSequence = Sequence([Dataset()])
    with pytest.raises(ArtifactRefused, match=r"lookup table.*not finite"):
        write_derived(volume, broken, PROVENANCE, tmp_path / "out", NOW)
    assert not (tmp_path / "out").exists()


REAL = {  # and how many of its images are read
    "ct-denoise/train/LIDC-IDRI-0001": 3,
    "ct-denoise/train/LungFCP-01-0001": 3,
    "ct-denoise/train/StageII-Colorectal-CT-005": 2,
    "ct-denoise/train/TCGA-50-5942": 1,
    "dicom-series/mr_siemens_avanto_liver_haste_cor": 3,
    "dicom-series/mr_hitachi_airis_0.3-0.5T_lspine_t2_sag": 2,
    "dicom-series/mr_toshiba_titan_1.5T_lspine_t2": 3,
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings("ignore")  # pydicom warns of what the scanners wrote
def test_real_scanners_headers_become_valid(tmp_path: Path, data_dir: Path, name: str) -> None:
    """Headers of real scanners, faults included, give derived images without an IOD error."""
    volume = read_series(sorted((data_dir / name).glob("*.dcm"))[: REAL[name]])
    derived(tmp_path, volume)
    assert iod_errors(*sorted((tmp_path / "out/derived").iterdir())) == []

"""Segmentation, report, parametric map, presentation state and key objects, read back from their files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from tests import series as made
from tests.workers.results_made import NOW, PROVENANCE, scores, volume_of
from workers.read import Volume
from workers.write import gate
from workers.write.bundle import WRITERS, write_bundle
from workers.write.findings import MOST_FINDINGS, marked_of, outline
from workers.write.parametric import in_ascending_order

ALL = ("capture", *WRITERS)


def written(
    folder: Path, volume: Volume, outputs: Sequence[str] = ALL, **settings: float
) -> tuple[dict[str, FileDataset], list[str], list[ProducedArtifact]]:
    """One object of each role, the notes, and all artifacts; gated."""
    notes: list[str] = []
    artifacts = write_bundle(outputs, volume, scores(volume, **settings), PROVENANCE, folder, NOW, notes)
    gate.check(folder, artifacts, volume)
    return {a.role: pydicom.dcmread(folder / a.path) for a in artifacts}, notes, artifacts


def test_the_bundle_is_one_result_in_the_sources_study(tmp_path: Path) -> None:
    """Every object says whose it is, who made it and that it is AI, in a series and number of its own."""
    volume = volume_of(tmp_path / "in", made.series(6))
    found, notes, _ = written(tmp_path / "out", volume)
    assert set(found) == set(ALL)
    assert notes == []
    source = volume.headers[0]
    for ds in found.values():
        for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber", "PatientName", "StudyDate"):
            assert ds[keyword].value == source[keyword].value
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert "AI" in ds.SeriesDescription
        assert ds.ContributingEquipmentSequence[-1].Manufacturer == "aenode"
    assert {int(ds.SeriesNumber) for ds in found.values()} == {302, 303, 304, 305, 306, 307}
    for role in ("segmentation", "parametric"):
        assert found[role].FrameOfReferenceUID == source.FrameOfReferenceUID


def test_the_segmentation_is_the_map_above_the_threshold(tmp_path: Path) -> None:
    """Its masks lie on the slices and pixels that score at or above the threshold, and nowhere else."""
    volume = volume_of(tmp_path / "in", made.series(6))
    written(tmp_path / "out", volume, ("segmentation",))
    seg = highdicom.seg.segread(tmp_path / "out/segmentation/0001.dcm")
    assert seg.SegmentationType == "BINARY"
    uids = [str(header.SOPInstanceUID) for header in volume.headers]
    masks = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    score = scores(volume)
    assert np.array_equal(masks > 0, score.score >= score.threshold)
    assert [segment.SegmentAlgorithmType for segment in seg.SegmentSequence] == ["AUTOMATIC"] * 3


def test_report_and_segmentation_name_a_finding_alike(tmp_path: Path) -> None:
    """Each measurement group has its segment's tracking UID, an outline and its measurements."""
    volume = volume_of(tmp_path / "in", made.series(6))
    found, _, _ = written(tmp_path / "out", volume, ("segmentation", "report"))
    report = highdicom.sr.srread(tmp_path / "out/report/0001.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    segments = found["segmentation"].SegmentSequence
    assert [g.tracking_uid for g in groups] == [s.TrackingUID for s in segments]
    marked = marked_of(volume, scores(volume), PROVENANCE)
    for group, finding in zip(groups, marked.findings, strict=True):
        region = group.roi
        reference = region.ContentSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == volume.headers[finding.key].SOPInstanceUID
        points = region.value
        assert np.array_equal(points[0], points[-1])
        x, y = (points.min(axis=0) + points.max(axis=0)) / 2
        inside = np.argwhere(marked.labels[finding.key] == finding.number)
        assert (y, x) == pytest.approx(inside.mean(axis=0) + 0.5, abs=0.6)
        values = {m.name.value: m.value for m in group.get_measurements()}
        assert values["121416"] == pytest.approx(6.0)
        assert values["42798000"] == pytest.approx(len(inside) * 0.64, rel=1e-3)
        assert values["118565006"] == pytest.approx(len(inside) * 0.64 * 2.0, rel=1e-3)


def test_the_parametric_map_ascends_and_holds_the_score(tmp_path: Path) -> None:
    """Frames ascend along the normal, as do their dimension values, and hold the score of their slice."""
    volume = volume_of(tmp_path / "in", made.series(5))
    found, _, _ = written(tmp_path / "out", volume, ("parametric",))
    ds = found["parametric"]
    groups = ds.PerFrameFunctionalGroupsSequence
    heights = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in groups]
    assert heights == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert [g.FrameContentSequence[0].DimensionIndexValues for g in groups] == [1, 2, 3, 4, 5]
    pixels = np.frombuffer(ds.FloatPixelData, "<f4").reshape(volume.voxels.shape)
    assert np.array_equal(pixels, scores(volume).score)
    sources = [g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for g in groups]
    assert sources == [header.SOPInstanceUID for header in volume.headers]


def test_keys_and_outlines_lie_on_the_key_slices(tmp_path: Path) -> None:
    """Presentation state and key object selection name the slices where the findings score highest."""
    volume = volume_of(tmp_path / "in", made.series(6))
    found, _, _ = written(tmp_path / "out", volume, ("presentation", "keys"))
    keys = {
        str(volume.headers[f.key].SOPInstanceUID)
        for f in marked_of(volume, scores(volume), PROVENANCE).findings
    }
    annotated = {
        str(image.ReferencedSOPInstanceUID)
        for item in found["presentation"].GraphicAnnotationSequence
        for image in item.ReferencedImageSequence
    }
    images = [i for i in found["keys"].ContentSequence if i.ValueType == "IMAGE"]
    assert annotated == keys
    assert {str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for i in images} == keys
    assert not any("ConceptNameCodeSequence" in i for i in images)


def test_nothing_found_gives_no_empty_objects(tmp_path: Path) -> None:
    """Without a region there is a summary and a map; what is left out is said."""
    volume = volume_of(tmp_path / "in", made.series(3))
    found, notes, _ = written(tmp_path / "out", volume, peak=2.9)
    assert set(found) == {"capture", "parametric"}
    assert "no segmentation: no region is above the threshold" in notes
    assert "no report: no region is above the threshold" in notes


def test_many_regions_are_all_in_the_segmentation(tmp_path: Path) -> None:
    """The highest are described one by one; all others share one segment, and a note has their number."""
    volume = volume_of(tmp_path / "in", made.series(30, size=40))
    result = scores(volume)
    result.score[:] = 0
    for index in range(0, 30, 1):
        row = 2 if index % 2 else 25
        result.score[index, row : row + 8, 3:11] = 5 + index / 10
    notes: list[str] = []
    artifacts = write_bundle(("segmentation", "report"), volume, result, PROVENANCE, tmp_path, NOW, notes)
    gate.check(tmp_path, artifacts, volume)
    seg, report = (pydicom.dcmread(tmp_path / a.path) for a in artifacts)
    assert len(seg.SegmentSequence) == MOST_FINDINGS + 1
    assert seg.SegmentSequence[-1].SegmentLabel == "10 further regions"
    assert seg.SegmentSequence[0].SegmentLabel == "Region 1, score 7.9"
    assert (
        len(highdicom.sr.srread(tmp_path / artifacts[1].path).content.get_planar_roi_measurement_groups())
        == 20
    )
    assert report.CompletionFlag == "COMPLETE"
    assert "the 20 highest of 30 regions are described one by one" in notes


def test_regions_join_over_neighbours_and_not_over_gaps(tmp_path: Path) -> None:
    """A region of consecutive slices is one finding with a volume; a gap in the stack parts it."""
    volume = volume_of(tmp_path / "in", made.series(4))
    result = scores(volume)
    result.score[:] = 0
    result.score[:, 20:30, 20:30] = 4
    result.score[2, 20:30, 20:30] = 5
    (finding,) = marked_of(volume, result, PROVENANCE).findings
    assert (finding.key, finding.slices, finding.peak) == (2, (0, 1, 2, 3), 5.0)
    assert finding.area_mm2 == pytest.approx(64)
    assert finding.volume_mm3 == pytest.approx(64 * 8)
    neighbours = volume.neighbours.copy()
    neighbours[1, 2], neighbours[2, 0] = 1, 2
    parted = marked_of(replace(volume, neighbours=neighbours), result, PROVENANCE)
    assert [f.slices for f in parted.findings] == [(2, 3), (0, 1)]


def test_an_outline_encloses_its_region() -> None:
    """The line is closed, runs on pixel borders at the image's edge, and takes the largest part."""
    inside = np.zeros((10, 12), bool)
    inside[0:4, 0:5] = True
    inside[8, 8] = True
    line = outline(inside)
    assert np.array_equal(line[0], line[-1])
    assert line.min(axis=0).tolist() == [0, 0]
    assert line.max(axis=0).tolist() == [5, 4]


def test_a_source_with_several_character_sets(tmp_path: Path) -> None:
    """A Japanese source in ISO 2022 gives objects in UTF-8 with the name intact."""
    images = made.series(3)
    for ds in images:
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    volume = volume_of(tmp_path / "in", images)
    found, _, _ = written(tmp_path / "out", volume)
    for ds in found.values():
        assert str(ds.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_images_without_a_common_frame_of_reference_get_no_overlay(tmp_path: Path) -> None:
    """An anonymiser's new frame in every image: captures and report are made, the overlay is left out."""
    images = made.series(4)
    for ds in images:
        ds.FrameOfReferenceUID = made.uid("frame", ds.InstanceNumber)
    volume = volume_of(tmp_path / "in", images)
    found, notes, _ = written(tmp_path / "out", volume)
    assert set(found) == {"capture", "report", "presentation", "keys"}
    assert "no segmentation: the images have no common frame of reference to lay it over" in notes


def test_uids_follow_what_decides_the_result(tmp_path: Path) -> None:
    """A repetition has the same UIDs, tracking UIDs too; another threshold has others."""
    volume = volume_of(tmp_path / "in", made.series(3))

    def uids(name: str, threshold: float = 3.0) -> tuple[set[str], set[str]]:
        found, _, artifacts = written(tmp_path / name, volume, threshold=threshold)
        tracked = {str(item.TrackingUID) for item in found["segmentation"].SegmentSequence}
        return {a.sop_instance_uid for a in artifacts}, tracked

    first = uids("a")
    assert uids("b") == first
    others = uids("c", 3.5)
    assert not first[0] & others[0]
    assert not first[1] & others[1]


def _descend(ds: FileDataset) -> None:
    ds.PerFrameFunctionalGroupsSequence = pydicom.Sequence(list(ds.PerFrameFunctionalGroupsSequence)[::-1])


def _no_region(ds: FileDataset) -> None:
    for item in _tree(ds):
        item.ContentSequence = [i for i in item.get("ContentSequence", []) if i.ValueType != "SCOORD"]


def _tree(ds: pydicom.Dataset) -> list[pydicom.Dataset]:
    below = [i for item in ds.get("ContentSequence", []) for i in _tree(item)]
    return [ds, *below]


FAULTS = {
    "do not ascend": ("parametric", _descend),
    "no image region": ("report", _no_region),
    "segments [3] are listed without a frame": (
        "segmentation",
        lambda ds: setattr(
            ds.PerFrameFunctionalGroupsSequence[2].SegmentIdentificationSequence[0],
            "ReferencedSegmentNumber",
            2,
        ),
    ),
    "a finding of the report is no segment": (
        "segmentation",
        lambda ds: setattr(ds.SegmentSequence[0], "TrackingUID", "2.25.7"),
    ),
    "share SeriesNumber 304": ("segmentation", lambda ds: setattr(ds, "SeriesNumber", 304)),
    "has the SeriesNumber of its source": ("keys", lambda ds: setattr(ds, "SeriesNumber", 3)),
    "frame of reference is not": ("parametric", lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.3")),
    "missing or empty in SegmentSequence (type 1)": (
        "segmentation",
        lambda ds: ds.SegmentSequence[0].pop("SegmentLabel"),
    ),
    "PatientID is not the source's": ("report", lambda ds: setattr(ds, "PatientID", "ELSE")),
}


@pytest.mark.parametrize("finding", FAULTS)
def test_each_fault_of_a_structured_object_is_found(tmp_path: Path, finding: str) -> None:
    """A sound bundle passes the gate, and does not once one of its objects has the fault."""
    volume = volume_of(tmp_path / "in", made.series(6, size=32))
    _, _, artifacts = written(tmp_path, volume)
    role, spoil = FAULTS[finding]
    path = tmp_path / next(a.path for a in artifacts if a.role == role)
    ds = pydicom.dcmread(path)
    spoil(ds)
    ds.save_as(path)
    with pytest.raises(ArtifactRefused) as refused:
        gate.check(tmp_path, artifacts, volume)
    assert any(finding in text for text in refused.value.findings), refused.value.findings


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    """Frames are not sorted where pixels and frames do not agree."""
    volume = volume_of(tmp_path / "in", made.series(3, size=32))
    found, _, _ = written(tmp_path, volume, ("parametric",))
    ds = found["parametric"]
    ds.FloatPixelData = ds.FloatPixelData[:-4]
    with pytest.raises(ArtifactRefused, match="parametric map of"):
        in_ascending_order(ds)

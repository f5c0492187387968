"""The anomaly captures, read back from their files."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.entities import CONTRIBUTING_MANUFACTURER
from tests import series as made
from tests.workers.results_made import (
    NOW,
    PROVENANCE,
    denoised,
    iod_errors,
    scores,
    set_errors,
    volume_of,
)
from workers.read import Volume
from workers.write import gate
from workers.write.canvas import letters
from workers.write.capture import MOST_SLICES, choose, write_captures
from workers.write.derived import write_derived
from workers.write.findings import regions
from workers.write.sheet import position_text


def captures(tmp_path: Path, volume: Volume, **settings: float) -> list[FileDataset]:
    """What is written for a volume, gated and read back."""
    folder = tmp_path / "out"
    artifacts = write_captures(volume, scores(volume, **settings), PROVENANCE, folder, NOW)
    gate.check(folder, artifacts, volume)
    return [pydicom.dcmread(folder / artifact.path) for artifact in artifacts]


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not grey."""
    return np.ptp(picture.astype(int), axis=-1) > 40


def test_captures_are_valid_labelled_and_in_the_same_study(tmp_path: Path) -> None:
    """Captures have no IOD error, one series of their own in the source's study, and say what they are."""
    volume = volume_of(tmp_path / "in", made.series(6))
    images = captures(tmp_path, volume)
    assert iod_errors(*sorted((tmp_path / "out/capture").iterdir())) == []
    assert [int(ds.InstanceNumber) for ds in images] == [1, 2, 3]
    for ds in images:
        assert ds.StudyInstanceUID == volume.headers[0].StudyInstanceUID
        assert ds.BodyPartExamined == "CHEST"
        assert (ds.BurnedInAnnotation, ds.SeriesNumber, ds.Modality) == ("YES", 302, "OT")
        assert ds.ContributingEquipmentSequence[-1].Manufacturer == CONTRIBUTING_MANUFACTURER
        assert "not for primary diagnosis" in ds.DerivationDescription
        assert "ImagePositionPatient" not in ds
        assert ds.pixel_array.shape == (1024, 1024, 3)
    assert len({ds.SeriesInstanceUID for ds in images}) == 1
    assert len({ds.SOPInstanceUID for ds in images}) == 3
    assert images[1].PatientOrientation == ["L", "P"]
    shown = [ds.SourceImageSequence[0].ReferencedSOPInstanceUID for ds in images[1:]]
    assert shown == [volume.headers[index].SOPInstanceUID for index in (0, 4)]


def test_source_and_results_are_one_consistent_study(tmp_path: Path) -> None:
    """Patient, study, series and references agree over source, derived images and captures."""
    volume = volume_of(tmp_path / "in", made.series(3))
    captures(tmp_path, volume)
    write_derived(volume, denoised(volume), PROVENANCE, tmp_path / "out", NOW)
    files = sorted(tmp_path.rglob("*.dcm"))
    assert len(files) == 3 + 3 + 2
    assert set_errors(*files) == []


def test_heat_lies_where_the_score_is(tmp_path: Path) -> None:
    """On a slice page the colours cover the region's place and nothing else of the image."""
    volume = volume_of(tmp_path / "in", made.series(2, size=64))
    page = captures(tmp_path, volume)[1].pixel_array
    image = coloured(page[80:904, 24:848])
    y, x = np.argwhere(image).mean(axis=0) / 824 * 64
    assert (y, x) == pytest.approx((32, 64 / 3), abs=0.7)
    expected = np.pi * 6.4**2 / 64**2
    assert image.mean() == pytest.approx(expected, rel=0.15)


def test_nothing_found_is_said_on_one_page(tmp_path: Path) -> None:
    """Without a region there is one summary that names the threshold, and no heat on it."""
    volume = volume_of(tmp_path / "in", made.series(4))
    images = captures(tmp_path, volume, peak=2.9)
    assert len(images) == 1
    assert "No region above the threshold (3.00)" in images[0].DerivationDescription
    assert not coloured(images[0].pixel_array[300:735]).any()
    assert iod_errors(tmp_path / "out/capture/0001.dcm") == []


@pytest.mark.parametrize("slices", [1, 2, 60])
def test_any_number_of_slices_fits_the_pages(tmp_path: Path, slices: int) -> None:
    """One slice, two or many: the pages are drawn, nine at most."""
    volume = volume_of(tmp_path / "in", made.series(slices, size=32))
    images = captures(tmp_path, volume)
    assert len(images) == 1 + min(8, -(-slices // 3))
    assert images[0].pixel_array[744:830, 110:1000].max() > 200


def test_a_region_too_small_is_not_marked(tmp_path: Path) -> None:
    """A region under 10 mm² on its slice is not marked; one above is, with its area."""
    volume = volume_of(tmp_path / "in", made.series(2))
    found = scores(volume, peak=0)
    found.score[0, 10:13, 10:13] = 5  # 9 pixels of 0.64 mm²
    found.score[1, 10:14, 10:14] = 5  # 16 pixels
    marked, area = regions(found, volume.spacing)
    assert area.tolist() == pytest.approx([0, 16 * 0.64])
    assert (marked > 0).sum() == 16


def test_the_highest_scores_are_chosen_apart_and_shown_in_order() -> None:
    """At most eight slices, the highest first to be chosen, none within 5 mm of another, sorted by place."""
    positions = np.arange(100) * 2.0
    per_slice = np.linspace(0, 1, 100, dtype=np.float32)
    chosen = choose(per_slice, np.ones(100, bool), positions)
    assert chosen == list(range(78, 100, 3))
    assert len(chosen) == MOST_SLICES
    found = np.zeros(100, bool)
    found[[3, 50]] = True
    assert choose(per_slice, found, positions) == [3, 50]


def test_uids_follow_the_model_and_the_threshold_but_not_the_time(tmp_path: Path) -> None:
    """The same result has the same UIDs; another version or threshold has others."""
    volume = volume_of(tmp_path / "in", made.series(2))

    def uids(name: str, now: datetime, threshold: float = 3.0, version: str = "0.1.0") -> list[str]:
        provenance = replace(PROVENANCE, version=version)
        found = write_captures(volume, scores(volume, threshold=threshold), provenance, tmp_path / name, now)
        return [a.sop_instance_uid for a in found]

    first = uids("a", NOW)
    assert uids("b", NOW.replace(year=2030)) == first
    assert not set(first) & set(uids("c", NOW, threshold=3.5))
    assert not set(first) & set(uids("d", NOW, version="0.2.0"))


@pytest.mark.parametrize(
    ("direction", "text"),
    [((1, 0, 0), "L"), ((0, 1, 0), "P"), ((0, 0, 1), "H"), ((-0.8, 0, -0.6), "RF"), ((0.99, 0.1, 0), "L")],
)
def test_orientation_letters_follow_the_standard(direction: tuple[float, float, float], text: str) -> None:
    """Patient coordinates grow to the left, the back and the head."""
    assert letters(np.array(direction)) == text


def test_the_position_is_that_of_the_slices_middle(tmp_path: Path) -> None:
    """A sagittal slice is named by its distance to the left or right."""
    settings = {"orientation": (0, 1, 0, 0, 0, -1)}
    images = [
        made.image(n, plane, position=(-30.0 + 20 * n, -25.2, 25.2), **settings)
        for n, plane in enumerate(made.body(3, 64), start=1)
    ]
    volume = volume_of(tmp_path / "in", images)
    texts = {position_text(volume, index) for index in range(3)}
    assert texts == {"R 10.0 mm", "L 10.0 mm", "L 30.0 mm"}

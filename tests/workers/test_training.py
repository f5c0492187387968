"""Training data from disk: every format, whose each slice is, and what is refused."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.series import body, image, series, write
from workers.training import DataRefused, read_cases

ONES = {"image": np.ones((2, 4, 4)), "spacing": np.ones(2), "person": np.array(["a", "b"])}


def nifti(path: Path, volume: np.ndarray, zooms: tuple[float, float, float] = (0.9, 1.1, 3.0)) -> Path:
    """Write (X, Y, Z) towards right, anterior, superior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([*zooms, 1.0])), path)
    return path


def test_a_dicom_series_becomes_one_case_in_modality_units(tmp_path: Path) -> None:
    """HU, sorted by position, with the pixel and slice distance of the headers."""
    write(tmp_path, series(4, 32)[::-1])
    found = read_cases([tmp_path], modality="CT")
    (case,) = found.cases
    assert case.volume.shape == (4, 32, 32)
    assert np.abs(case.volume - body(4, 32)).max() <= 0.5
    assert case.spacing == (0.8, 0.8)
    assert case.slice_mm == pytest.approx(2.0)
    assert case.neighbours is not None
    assert case.neighbours[1].tolist() == [0, 1, 2]
    assert not found.notes


def test_series_of_one_patient_are_one_person(tmp_path: Path) -> None:
    """Two series with one PatientID share the person; another PatientID does not."""
    write(tmp_path / "a", series(3, 32, series="first"))
    write(tmp_path / "b", series(3, 32, series="second"))
    other = series(3, 32, series="third", study="other")
    for ds in other:
        ds.PatientID = "TEST-2"
    write(tmp_path / "c", other)
    found = read_cases([tmp_path], modality="CT")
    assert len(found.cases) == 3
    assert found.people == 2
    assert all("TEST" not in case.person for case in found.cases)


def test_slices_that_make_no_stack_are_read_one_by_one_and_said_so(tmp_path: Path) -> None:
    """Loose slices of one series are still training data, with a note."""
    images = series(3, 32)
    images[1].ImageOrientationPatient = [1, 0, 0, 0, 0.9, -0.436]
    write(tmp_path, images)
    found = read_cases([tmp_path], modality="CT")
    assert len(found.cases) == 3
    assert all(case.slice_mm is None for case in found.cases)
    assert any("one by one" in note for note in found.notes)


def test_what_is_no_image_of_the_kind_is_noted(tmp_path: Path) -> None:
    """Another modality and files that are no DICOM are left out with a sentence each."""
    write(tmp_path / "ct", series(3, 32))
    write(tmp_path / "mr", [image(1, body(1, 32)[0], series="mr", modality="MR")])
    (tmp_path / "stray.bin").write_bytes(b"not an image at all")
    (tmp_path / "README.md").write_text("words")
    found = read_cases([tmp_path], modality="CT")
    assert len(found.cases) == 1
    notes = " ".join(found.notes)
    assert "0000.dcm is no CT image" in notes
    assert "stray.bin is no DICOM file" in notes
    assert "1 files" in notes


def test_npz_says_whose_each_slice_is(tmp_path: Path) -> None:
    """Slices are grouped by "person", with the spacing of the file."""
    images = np.arange(5 * 8 * 8, dtype=np.uint16).reshape(5, 8, 8)
    people = np.array(["b", "a", "b", "a", "b"])
    np.savez(tmp_path / "x.npz", image=images, person=people, spacing=np.array([0.5, 0.6]))
    found = read_cases([tmp_path], modality="MR")
    assert sorted(len(case.volume) for case in found.cases) == [2, 3]
    larger = max(found.cases, key=lambda case: len(case.volume))
    assert np.array_equal(larger.volume, images[[0, 2, 4]].astype(np.float32))
    assert larger.spacing == (0.5, 0.6)
    assert larger.slice_mm is None


def test_npz_without_persons_takes_them_from_the_table_beside_it(tmp_path: Path) -> None:
    """meta.csv with split, index, subject names them; the pixel size is then given by hand."""
    np.savez(tmp_path / "train.npz", image=np.zeros((3, 8, 8), np.uint16))
    with (tmp_path / "meta.csv").open("w", newline="") as stream:
        rows = [("split", "index", "subject"), ("train", 0, "p"), ("val", 0, "z")]
        csv.writer(stream).writerows([*rows, ("train", 1, "q"), ("train", 2, "p")])
    found = read_cases([tmp_path / "train.npz"], modality="MR", pixel_mm=0.868)
    assert sorted(len(case.volume) for case in found.cases) == [1, 2]
    assert found.cases[0].spacing == (0.868, 0.868)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"picture": np.zeros((2, 4, 4))}, 'no array "image"'),
        ({"image": np.zeros((4, 4))}, 'no array "image"'),
        ({"image": np.zeros((2, 4, 4)), "person": np.array(["a", "b"])}, "--pixel-mm"),
        ({"image": np.zeros((2, 4, 4)), "spacing": np.ones(2)}, "whose is which slice"),
        ({"image": np.zeros((2, 4, 4)), "spacing": np.ones(2), "person": np.array(["a"])}, "1 persons"),
        ({"image": np.zeros((2, 4, 4)), "modality": np.array("CT")}, "holds CT, not MR"),
        ({"image": np.full((2, 4, 4), "x")}, 'x.npz: "image" is of type <U1'),
        (ONES | {"spacing": np.ones(1)}, r'x.npz: "spacing" is \[1.0\]; it must be two'),
        (ONES | {"spacing": np.array([1.0, 0.0])}, 'x.npz: "spacing": a pixel of 1 × 0 mm'),
        (ONES | {"spacing": np.array([1.0, np.nan])}, "1 × nan mm"),
        (ONES | {"person": np.array([["a", "b"]])}, 'x.npz: "person" is <U1'),
        (ONES | {"image": np.full((2, 4, 4), [[[0.0]], [[np.nan]]])}, "slice of .image. 1, counted from 0"),
        (ONES | {"image": np.full((2, 4, 4), 1e300)}, "slice of .image. 0, counted"),
    ],
)
def test_npz_that_says_too_little_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    """The sentence names the file and what is missing."""
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataRefused, match=sentence):
        read_cases([tmp_path], modality="MR")


def test_a_pickle_in_an_npz_is_refused(tmp_path: Path) -> None:
    """Data cannot carry code."""
    np.savez(tmp_path / "x.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataRefused, match=r'x\.npz: "image" is damaged or no plain array'):
        read_cases([tmp_path], modality="MR", pixel_mm=1)


def test_nifti_is_turned_to_the_view_of_dicom(tmp_path: Path) -> None:
    """Row 0 is anterior, column 0 is the patient's right, slices ascend; spacing follows."""
    volume = np.zeros((10, 12, 4), np.float32)
    volume[9, 11, 0] = 1  # rightmost, most anterior, lowest
    volume[0, 0, 3] = 2  # leftmost, most posterior, highest
    found = read_cases([nifti(tmp_path / "T1.nii.gz", volume)], modality="MR")
    (case,) = found.cases
    assert case.volume.shape == (4, 12, 10)
    assert case.volume[0, 0, 0] == 1
    assert case.volume[3, 11, 9] == 2
    assert case.spacing == pytest.approx((1.1, 0.9))
    assert case.slice_mm == pytest.approx(3.0)


def test_a_mask_beside_a_nifti_is_its_truth(tmp_path: Path) -> None:
    """The mask follows the same turns, and of several volumes the named one is read."""
    volume = np.zeros((6, 7, 3), np.float32)
    volume[1, 2, 1] = 5
    nifti(tmp_path / "p1" / "T1.nii.gz", volume)
    nifti(tmp_path / "p1" / "T2.nii.gz", volume * 2)
    nifti(tmp_path / "p1" / "lesion_mask.nii.gz", (volume > 0).astype(np.uint8))
    found = read_cases([tmp_path], modality="MR", volume_name="T1.nii.gz")
    (case,) = found.cases
    assert case.lesion is not None
    assert np.array_equal(case.lesion, case.volume > 0)
    assert case.lesion.sum() == 1


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.npz"])
@pytest.mark.parametrize("data", [b"\x1f\x8b damaged", b"PK\x03\x04 no archive", b"\0" * 400])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    """Damage is not passed over as if the file were no data."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataRefused, match=name):
        read_cases([tmp_path], modality="MR", pixel_mm=1)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    """A .npy that is named .npz, and an archive of which one array is damaged."""
    np.save(tmp_path / "x.npy", np.ones((2, 4, 4)))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataRefused, match=r"x\.npz is one array"):
        read_cases([tmp_path / "x.npz"], modality="MR", pixel_mm=1)
    np.savez_compressed(tmp_path / "y.npz", **ONES)
    data = bytearray((tmp_path / "y.npz").read_bytes())
    data[60:70] = b"\xff" * 10
    (tmp_path / "y.npz").write_bytes(data)
    with pytest.raises(DataRefused, match=r'y\.npz: "image" is damaged'):
        read_cases([tmp_path / "y.npz"], modality="MR", pixel_mm=1)


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Too few rows, too many, no name in one, no text at all: the table is named."""
    np.savez(tmp_path / "a.npz", image=np.zeros((2, 8, 8), np.uint16))
    for rows, sentence in {
        "split,index,subject\na,0,p\n": "person of slice 1 of a.npz",
        "split,index,subject\na,0,p\na,1\n": "person of slice 1 of a.npz",
        "split,index,subject\na,0,p\na,1,p\na,2,q\n": "names 3 slices",
        "split,index\na,0\n": "no index and subject",
        "split,index,subject\na,0,\xff\n": "cannot be read as a table",
    }.items():
        (tmp_path / "meta.csv").write_text(rows, encoding="latin-1")
        with pytest.raises(DataRefused, match=f"meta.csv.* {sentence}"):
            read_cases([tmp_path / "a.npz"], modality="MR", pixel_mm=1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_a_nifti_that_is_not_finite_is_refused_by_its_slice(tmp_path: Path, wrong: float) -> None:
    """A value that would spoil a training is found when it is read, not when the loss is lost."""
    volume = np.ones((6, 7, 3))
    volume[1, 2, 2] = wrong
    nifti(tmp_path / "p1.nii.gz", volume)
    with pytest.raises(DataRefused, match=r"p1\.nii\.gz: slice 2, counted from 0, holds NaN"):
        read_cases([tmp_path], modality="MR")


def test_a_dicom_slice_that_is_not_finite_is_left_out_by_name(tmp_path: Path) -> None:
    """A RescaleSlope beyond float32: that slice is named, the others are read one by one."""
    images = series(3, 32)
    images[1].RescaleSlope = "1e38"
    write(tmp_path, images)
    found = read_cases([tmp_path], modality="CT")
    assert len(found.cases) == 2
    assert any("0001.dcm is left out" in note and "beyond float32" in note for note in found.notes)


def test_what_is_named_twice_is_read_once(tmp_path: Path) -> None:
    """By another path, or within a folder that is named, too."""
    nifti(tmp_path / "data" / "p1" / "T1.nii.gz", np.ones((6, 7, 3)))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    found = read_cases(
        [tmp_path / "data", tmp_path / "link", tmp_path / "data" / "p1" / "T1.nii.gz"], modality="MR"
    )
    assert len(found.cases) == 1
    assert found.notes == ["2 files were named twice and are read once"]


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    """Neither an absent folder nor an empty one trains anything."""
    with pytest.raises(DataRefused, match="does not exist"):
        read_cases([tmp_path / "absent"], modality="CT")
    with pytest.raises(DataRefused, match="no CT image"):
        read_cases([tmp_path], modality="CT")


def test_real_ct_slices_are_read_by_patient(data_dir: Path) -> None:
    """The val part of ct-denoise: 30 slices of 7 people, JPEG 2000, with GE's padding blocked out."""
    found = read_cases([data_dir / "ct-denoise" / "val"], modality="CT")
    assert found.people == 7
    assert sum(len(case.volume) for case in found.cases) == 30
    for case in found.cases:
        assert case.volume[~case.padding].min() >= -2000
        assert 0.3 < np.mean(case.volume < -500) < 0.95

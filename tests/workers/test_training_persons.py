"""Whose a NIfTI file is, by where it lies: no person on two sides of a split, no two people as one."""

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from models.cases import kept_apart, split
from tests.workers.test_training import nifti
from workers.training import DataRefused, read_cases
from workers.training_persons import named_by_place

VOLUME = np.ones((6, 7, 3), np.float32)


def people_of(*sources: Path, volume: str | None = None) -> list[str]:
    """The person of each case, in the order of reading."""
    return [case.person for case in read_cases(sources, modality="MR", volume_name=volume).cases]


@pytest.mark.parametrize(
    ("file", "source", "name"),
    [
        ("bids/sub-01/anat/T1.nii.gz", "bids", "sub-01"),
        ("bids/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "bids", "sub-01"),
        ("bids/sub-01/ses-2/anat/T1.nii.gz", "bids/sub-01/ses-2/anat", "sub-01"),
        ("bids/derivatives/prep/sub-01/anat/T1.nii.gz", "bids", "sub-01"),
        ("flat/sub-01_T1w.nii.gz", "flat", "sub-01"),
        ("people/p1/visit1.nii.gz", "people", "p1"),
        ("people/p1/anat/brain.nii.gz", "people", "p1"),
        ("people/p1/visit-2/T1/x.nii.gz", "people", "p1"),
        ("people/p1/2024-05-01/x.nii.gz", "people", "p1"),
        ("people/siteA/p1/T1.nii.gz", "people", "p1"),
        ("people/p1/T1.nii.gz", "people/p1", "p1"),
        ("people/p1/anat/visit2_T1w.nii.gz", "people/p1/anat", "p1"),
        ("flat/IXI012-Guys-T1.nii.gz", "flat", "IXI012-Guys"),
        ("flat/IXI012-Guys-T2.nii", "flat", "IXI012-Guys"),
        ("flat/nii/one.nii.gz", "flat", "one"),
        ("flat/T1_001.nii.gz", "flat", "T1_001"),
        ("flat/M012/x.nii.gz", "flat", "M012"),
    ],
)
def test_a_person_is_named_by_place(file: str, source: str, name: str) -> None:
    """BIDS first, then the nearest folder that is no scan's, then the file's own name."""
    root = Path("/data")
    assert named_by_place(root / file, root / source)[0] == name


def test_people_of_a_bids_folder_are_as_many_as_they_are(tmp_path: Path) -> None:
    """Five folders with one file name are five people; visits of one are one, also from above or below."""
    for n in range(1, 6):
        nifti(tmp_path / "bids" / f"sub-0{n}" / "anat" / "T1.nii.gz", VOLUME)
    nifti(tmp_path / "bids" / "sub-05" / "ses-2" / "anat" / "T1.nii.gz", VOLUME)
    persons = people_of(tmp_path / "bids")
    assert (len(persons), len(set(persons))) == (6, 5)
    assert set(people_of(tmp_path / "bids" / "sub-05")) == {persons[-1]}
    assert people_of(tmp_path / "bids" / "sub-01" / "anat" / "T1.nii.gz") == persons[:1]
    parts = split(read_cases([tmp_path / "bids"], modality="MR").cases, (0.7, 0.3), 1)
    assert not {case.person for case in parts[0]} & {case.person for case in parts[1]}


def test_a_person_in_both_parts_has_one_hash(tmp_path: Path) -> None:
    """Whether the folder of all, of one, or a copy elsewhere is named: a test on the trained is found."""
    for place in ("train/p1/visit1", "train/p1/visit2", "train/p2/visit1", "test/p1/visit3"):
        nifti(tmp_path / f"{place}.nii.gz", VOLUME)
    trained = people_of(tmp_path / "train")
    assert len(set(trained)) == 2
    for source in ("test", "train/p1", "train/../train/p1", "test/p1/visit3.nii.gz"):
        assert set(people_of(tmp_path / source)) == {trained[0]}, source
    (tmp_path / "link").symlink_to(tmp_path / "train")
    assert people_of(tmp_path / "link") == trained


def test_one_name_in_two_places_is_said(tmp_path: Path) -> None:
    """It is taken as one person, which no split divides; the note says how to tell two apart."""
    nifti(tmp_path / "a" / "p1" / "T1.nii.gz", VOLUME)
    nifti(tmp_path / "b" / "p1" / "T1.nii.gz", VOLUME)
    found = read_cases([tmp_path / "a", tmp_path / "b"], modality="MR")
    assert (len(found.cases), found.people) == (2, 1)
    (note,) = found.notes
    assert f"{tmp_path / 'a'} and {tmp_path / 'b'}" in note
    assert "give different people different names" in note


def test_files_of_one_folder_are_a_person_each(tmp_path: Path) -> None:
    """Each with its own mask; a mask that names none of several is refused rather than guessed."""
    for name in ("one", "two"):
        nifti(tmp_path / f"{name}.nii.gz", VOLUME * (2 if name == "two" else 1))
    assert len(set(people_of(tmp_path))) == 2
    for name in ("one", "two"):
        nifti(tmp_path / f"{name}_mask.nii.gz", VOLUME * (name == "two"))
    found = read_cases([tmp_path], modality="MR").cases
    assert [case.lesion.any() for case in found if case.lesion is not None] == [False, True]
    assert len({case.person for case in found}) == 2
    nifti(tmp_path / "three.nii.gz", VOLUME)
    with pytest.raises(DataRefused, match=r"2 masks, and which is the truth of three\.nii\.gz"):
        read_cases([tmp_path], modality="MR")


def test_people_of_the_shipped_cards_keep_their_names(data_dir: Path, tmp_path: Path) -> None:
    """A card's command must divide its people as it did: these hashes were there before the rule was."""
    lesions = data_dir / "mr-ms-lesions" / "cross_sectional_mni"
    for folder in sorted(lesions.iterdir()):
        for source in (lesions, folder):
            assert named_by_place(folder / "T1.nii.gz", source, shared_mask=True)[0] == folder.name
    expected = sha256(b"patient07").hexdigest()[:16]
    assert people_of(lesions / "patient07", volume="T1.nii.gz") == [expected]
    # The same names with few pixels: who is kept apart depends on nothing else.
    shutil.copy(data_dir / "mr-brain-t1-normal" / "meta.csv", tmp_path)
    with (tmp_path / "meta.csv").open() as stream:
        count = sum(line.startswith("train,") for line in stream)
    np.savez(tmp_path / "train.npz", image=np.zeros((count, 2, 2), np.uint8))
    cases = read_cases([tmp_path / "train.npz"], modality="MR", pixel_mm=0.868).cases
    assert len(cases) == 56
    assert kept_apart(cases, 0.05, 1) == {"765284fdc63f73a2", "93730b4c030e8cb2", "1d6123b6f62c7412"}


def test_a_person_has_one_name_in_nifti_and_in_npz(tmp_path: Path) -> None:
    """Slices of sub-12 in an archive, and the whole volume beside it."""
    np.savez(tmp_path / "train.npz", image=np.ones((1, 8, 8)), person=np.array(["sub-12"]))
    nifti(tmp_path / "sub-12_T1w.nii.gz", VOLUME)
    found = read_cases([tmp_path], modality="MR", pixel_mm=1)
    assert (len(found.cases), found.people) == (2, 1)

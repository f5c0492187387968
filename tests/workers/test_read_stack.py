"""Reading a series: where slices lie decides everything, the order of files and numbers nothing."""

import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from node.errors import SeriesRefused
from tests.series import AXIAL, image, series, write
from workers.read import read_series

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def stack(
    heights: Sequence[float], orientation: Sequence[float] = AXIAL, **more: object
) -> list[FileDataset]:
    """Slices at these heights along the normal; slice k is filled with k HU, so that each is known again."""
    normal = normal_of(orientation)
    origin = np.array([-20.0, 15.0, 3.0])
    return [
        image(
            k + 1,
            np.full((8, 12), k, np.float32),
            orientation=orientation,
            position=[round(float(c), 6) for c in origin + height * normal],
            step=2.0,
            **more,  # type: ignore[arg-type]  # settings are image's own
        )
        for k, height in enumerate(heights)
    ]


def thick(images: list[FileDataset], *thicknesses: float) -> list[FileDataset]:
    for ds, thickness in zip(images, thicknesses, strict=True):
        ds.SliceThickness = thickness
    return images


def refusal(folder: Path, images: Sequence[FileDataset]) -> str:
    with pytest.raises(SeriesRefused) as refused:
        read_series(write(folder / "series", images))
    return str(refused.value)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Any rotation of the patient's axes, written with six decimals as scanners do."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    length = np.linalg.norm(quaternion)
    w, x, y, z = quaternion / length if length > 0.1 else (1.0, 0.0, 0.0, 0.0)
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    column = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return tuple(round(float(c), 6) for c in (*row, *column))


@settings(max_examples=40, deadline=None)
@given(
    orientation=st.one_of(st.sampled_from([AXIAL, SAGITTAL, CORONAL]), orientations()),
    count=st.integers(1, 7),
    step=st.sampled_from([0.625, 1.0, 2.5, 7.0]),
    seed=st.integers(0, 2**16),
)
def test_a_shuffled_series_gives_the_same_volume(
    orientation: tuple[float, ...], count: int, step: float, seed: int
) -> None:
    """The volume depends on geometry alone: not on file names, their order, or InstanceNumber."""
    shuffler = random.Random(seed)
    images = stack([k * step - 11 for k in range(count)], orientation)
    numbers = shuffler.sample(range(1, 500), count)
    for ds, number in zip(images, numbers, strict=True):
        ds.InstanceNumber = number
    sop_uids = [ds.SOPInstanceUID for ds in images]
    with tempfile.TemporaryDirectory() as folder:
        shuffled = shuffler.sample(images, count)
        paths = write(Path(folder), shuffled)
        of_uid = {ds.SOPInstanceUID: path for ds, path in zip(shuffled, paths, strict=True)}
        volume = read_series(paths)
        again = read_series(shuffler.sample(paths, count))
    assert [float(plane.max()) for plane in volume.voxels] == list(range(count))
    assert [ds.SOPInstanceUID for ds in volume.headers] == sop_uids
    assert list(volume.paths) == [of_uid[uid] for uid in sop_uids]
    assert volume.positions == pytest.approx(
        [float(normal_of(orientation) @ ds.ImagePositionPatient) for ds in images], abs=1e-3
    )
    assert np.array_equal(volume.voxels, again.voxels)
    assert np.array_equal(volume.positions, again.positions)
    assert volume.paths == again.paths
    assert (volume.spacing, volume.notes) == (again.spacing, again.notes)


def test_a_regular_stack_has_its_spacing_and_its_neighbours(tmp_path: Path) -> None:
    """Spacing is z, y, x in mm; a slice lies between the two beside it, and an end repeats itself."""
    volume = read_series(write(tmp_path, stack([4.0, 0.0, 2.0, 6.0], spacing=(0.7, 0.9))))
    assert volume.spacing == pytest.approx((2.0, 0.7, 0.9))
    assert volume.neighbours.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert volume.notes == ()
    assert volume.modality == "CT"
    assert all("PixelData" not in ds and ds.file_meta.TransferSyntaxUID for ds in volume.headers)


def test_one_slice_is_a_stack(tmp_path: Path) -> None:
    """A single slice is read; its thickness stands for the spacing that it cannot have."""
    volume = read_series(write(tmp_path, stack([5.0])))
    assert volume.voxels.shape == (1, 8, 12)
    assert volume.spacing[0] == 2.0
    assert volume.neighbours.tolist() == [[0, 0, 0]]


def test_one_slice_without_thickness_has_no_spacing(tmp_path: Path) -> None:
    """No spacing is invented: a single slice with an empty SliceThickness has NaN."""
    (single,) = stack([5.0])
    single.SliceThickness = None
    assert math.isnan(read_series(write(tmp_path, [single])).spacing[0])


@pytest.mark.parametrize(
    ("heights", "sentence"),
    [
        ([0, 2, 4, 8, 10], "1 slice is missing between z = 7.0 mm and 11.0 mm; "),
        ([0, 3.1, 6.2, 9.3, 9.3 + 12.4, 24.8], "3 slices are missing between z = 12.3 mm and 24.7 mm; "),
        ([0, 2, 6, 8, 12], "2 slices are missing: 1 between z = 5.0 mm and 9.0 mm, 1 between "),
        ([0, 0.625, 1.25, 2.5, 3.125], "1 slice is missing between z = 4.25 mm and 5.5 mm; "),
        ([0, 0.6, 1.3, 1.9, 2.5, 5.6, 6.3], "4 slices are missing between z = 5.5 mm and 8.6 mm; "),
        ([0, 2, 6], "1 slice is missing between "),
    ],
)
def test_missing_slices_are_counted_and_placed(tmp_path: Path, heights: list[float], sentence: str) -> None:
    """A gap of a whole multiple of the usual gap refuses the series, and the sentence says where."""
    assert sentence in refusal(tmp_path, stack(heights))


def test_many_holes_make_one_sentence(tmp_path: Path) -> None:
    """A stack with more than four holes lists four of them and counts all."""
    message = refusal(tmp_path, stack([0, 2, 4, 6, 8, 12, 14, 18, 20, 24, 26, 30, 32, 36, 38]))
    assert message.startswith("5 slices are missing: 1 between ")
    assert message.endswith("the others in 1 more gaps; slices there should be 2.0 mm apart.")


def test_a_hole_in_an_oblique_stack_is_placed_along_its_normal(tmp_path: Path) -> None:
    """Where no patient axis names the place, millimetres along the normal do."""
    oblique = (1.0, 0.0, 0.0, 0.0, 0.8, 0.6)
    assert "mm along the slice normal; slices there" in refusal(tmp_path, stack([0, 2, 4, 8], oblique))


def test_training_data_may_have_holes(tmp_path: Path) -> None:
    """With missing="note" a thinned stack is read, noted, and not joined across the hole."""
    volume = read_series(write(tmp_path, stack([0, 2, 4, 8, 10])), missing="note")
    assert volume.neighbours.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 4], [3, 4, 4]]
    assert volume.notes[0].startswith("1 slice is missing between z = 7.0 mm and 11.0 mm")


def test_a_wide_constant_gap_is_a_protocol(tmp_path: Path) -> None:
    """Thin slices far apart are read, but none is a neighbour of another."""
    volume = read_series(write(tmp_path, stack([0, 10, 20, 30])))
    assert volume.spacing[0] == 10
    assert (volume.neighbours == np.arange(4)[:, None]).all()
    assert volume.notes == ("across 3 of 3 gaps slices are too far apart to be read together",)


def test_a_gap_that_follows_the_thickness_is_a_protocol(tmp_path: Path) -> None:
    """A head CT of 4 mm slices below and 8 mm slices above is not short of slices."""
    images = thick(stack([0, 4, 8, 12, 20, 28, 36]), 4, 4, 4, 4, 8, 8, 8)
    volume = read_series(write(tmp_path, images))
    assert volume.notes == ("slice spacing changes with SliceThickness, 4.0 mm to 8.0 mm",)
    assert volume.neighbours[3].tolist() == [2, 3, 4]


def test_irregular_spacing_is_read_as_it_lies(tmp_path: Path) -> None:
    """Gaps that are no multiples of one another are noted, and the wide ones not bridged."""
    images = thick(stack([0, 5, 10, 13, 18, 25.5]), *[5.0] * 6)
    volume = read_series(write(tmp_path, images))
    assert volume.notes == ("slice spacing is irregular, 3.0 mm to 7.5 mm",)
    assert volume.positions - volume.positions[0] == pytest.approx([0, 5, 10, 13, 18, 25.5])


def test_a_tilted_gantry_shears_the_stack_and_is_noted(tmp_path: Path) -> None:
    """Slices that shift by less than a pixel stay neighbours; by more, they do not."""
    tilt = math.tan(math.radians(15))
    for step, joined in ((2.0, True), (6.0, False)):
        images = thick(stack([k * step for k in range(5)]), *[step] * 5)
        for k, ds in enumerate(images):
            ds.ImagePositionPatient[1] += round(k * step * tilt, 6)
        volume = read_series(write(tmp_path / str(step), images))
        assert volume.notes[0] == "the stack is sheared by 15.0 degrees, as with a tilted gantry"
        assert (volume.neighbours[1].tolist() == [0, 1, 2]) is joined
        assert volume.spacing[0] == pytest.approx(step)


def test_slices_that_jump_in_their_plane_are_no_neighbours(tmp_path: Path) -> None:
    """A slice whose field lies elsewhere keeps its place, and is not read with the ones beside it."""
    images = stack([0, 2, 4, 6])
    images[2].ImagePositionPatient[0] += 12
    volume = read_series(write(tmp_path, images))
    assert volume.notes[0] == "slices are shifted in their plane by up to 12.0 mm against the next"
    assert volume.neighbours.tolist() == [[0, 0, 1], [0, 1, 1], [2, 2, 2], [3, 3, 3]]


@pytest.mark.parametrize(
    ("keyword", "values", "said"),
    [
        ("EchoTime", (10, 80), "they differ in EchoTime (10 and 80)"),
        ("TemporalPositionIdentifier", (1, 2), "they differ in TemporalPositionIdentifier (1 and 2)"),
        ("DiffusionBValue", (0.0, 1000.0), "they differ in DiffusionBValue (0 and 1000)"),
        ("AcquisitionNumber", (1, 2), "they differ in AcquisitionNumber (1 and 2)"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "differ in ImageType"),
        ("AccessionNumber", ("1", "2"), "no attribute that sorts images tells them apart"),
    ],
)
def test_two_images_in_one_place_are_told_apart(
    tmp_path: Path, keyword: str, values: tuple[object, object], said: str
) -> None:
    """Several stacks in one series are refused, with the attribute that makes them several."""
    first, second = (stack([0, 2, 4], modality="MR", series="one") for _ in range(2))
    for k, ds in enumerate([*first, *second]):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.{k + 100}"
        setattr(ds, keyword, values[k // 3])
    message = refusal(tmp_path, [*first, *second])
    assert message.startswith("Two images lie at z = 3.0 mm (2.25.100 and 2.25.103), ")
    assert said in message
    assert message.endswith("; the series has 6 images at 3 positions.")


def test_two_images_side_by_side_in_one_plane_are_refused(tmp_path: Path) -> None:
    """Images in one plane that only differ in their place in it are no stack."""
    images = stack([0, 2, 2])
    images[2].ImagePositionPatient[0] += 100
    assert "shifted against each other in their plane; the series has 3 images at 2" in refusal(
        tmp_path, images
    )


def test_localizers_are_left_out_and_named(tmp_path: Path) -> None:
    """An image that says LOCALIZER is not part of the stack, whatever its size and geometry."""
    scout = image(
        9,
        np.zeros((20, 20), np.float32),
        orientation=CORONAL,
        spacing=(2, 2),
    )
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    volume = read_series(write(tmp_path, [*stack([0, 2, 4]), scout]))
    assert len(volume.headers) == 3
    assert volume.notes == (f"left out as localizer: {scout.SOPInstanceUID}",)


def test_a_scout_across_the_stack_is_left_out_even_if_it_does_not_say_so(tmp_path: Path) -> None:
    """One image across a stack of many is a scout; a third of the images is another stack."""
    scout = image(9, np.zeros((8, 12), np.float32), orientation=SAGITTAL)
    volume = read_series(write(tmp_path / "one", [*stack([0, 2, 4, 6, 8]), scout]))
    assert volume.notes == (f"left out as localizer: {scout.SOPInstanceUID}",)
    message = refusal(tmp_path, [*stack([0, 2]), scout])
    assert f"Image {scout.SOPInstanceUID} has ImageOrientationPatient 0\\1\\0\\0\\0\\-1, most have" in message


def test_a_series_of_localizers_only_is_refused(tmp_path: Path) -> None:
    """There is nothing to work on where every image is a localizer."""
    images = stack([0, 2])
    for ds in images:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert refusal(tmp_path, images) == "The series has localizers only (2), no stack to work on."


def test_mixed_geometry_is_refused_by_name(tmp_path: Path) -> None:
    """Matrix, spacing, orientation and frame of reference must be one in a stack."""
    odd_matrix = stack([0, 2, 4])
    odd_matrix[1] = image(2, np.zeros((8, 8), np.float32), position=(-20, 15, 5))
    odd_spacing = stack([0, 2, 4])
    odd_spacing[2].PixelSpacing = [0.5, 0.5]
    odd_tilt = stack([0, 2, 4])
    odd_tilt[2].ImageOrientationPatient = [1, 0, 0, 0, 0.9962, 0.0872]
    odd_frame = stack([0, 2, 4])
    odd_frame[0].FrameOfReferenceUID = "1.2.3"
    cases = {
        f"1 of 3 images have Rows×Columns 8×8 (Image {odd_matrix[1].SOPInstanceUID} is one), 2 have 8×12.": (
            odd_matrix
        ),
        "PixelSpacing 0.5\\0.5, most have 0.8\\0.8.": odd_spacing,
        "ImageOrientationPatient 1\\0\\0\\0\\0.9962\\0.0872, most have about 1\\0\\0\\0\\1\\0.": odd_tilt,
        "1 of 3 images have FrameOfReferenceUID 1.2.3 ": odd_frame,
    }
    for number, (said, images) in enumerate(cases.items()):
        assert said in refusal(tmp_path / str(number), images)


def test_a_frame_of_reference_in_every_image_is_an_anonymisers_work(tmp_path: Path) -> None:
    """Where each image has a frame of its own the positions still make the stack, and it is noted."""
    images = stack([0, 2, 4])
    for k, ds in enumerate(images):
        ds.FrameOfReferenceUID = f"1.2.{k}"
    volume = read_series(write(tmp_path, images))
    assert volume.notes[0].startswith("every image has a FrameOfReferenceUID of its own")


def test_two_series_and_one_instance_twice_are_refused(tmp_path: Path) -> None:
    """What was handed over must be one series, each instance once."""
    images = stack([0, 2, 4])
    paths = write(tmp_path / "twice", images)
    with pytest.raises(SeriesRefused, match=f"Image {images[0].SOPInstanceUID} is there 2 times"):
        read_series([*paths, paths[0]])
    other = stack([6], series="other")
    assert "1 of 4 images have SeriesInstanceUID " in refusal(tmp_path, [*images, *other])
    with pytest.raises(SeriesRefused, match="The series has no instances"):
        read_series([])


def test_progress_counts_slices(tmp_path: Path) -> None:
    """The caller is told how many slices are decoded of how many, in order."""
    told: list[tuple[int, int]] = []
    read_series(write(tmp_path, series(4, 16)), progress=lambda done, of: told.append((done, of)), threads=3)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

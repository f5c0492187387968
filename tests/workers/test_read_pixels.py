"""Reading values: in modality units, with padding known and nothing guessed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from node.errors import SeriesRefused
from tests.series import image, series, write
from workers.read import Volume, read_series

Words = NDArray[np.int64]


def words_in(words: Words, *, stored: int = 16, signed: bool = True, modality: str = "CT") -> FileDataset:
    """An image that holds exactly these words, whatever its header says of them."""
    ds = image(1, np.zeros(words.shape, np.float32), modality=modality, intercept=-1024)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = stored, stored - 1, int(signed)
    ds.PixelData = (words & 0xFFFF).astype("<u2").tobytes()
    return ds


def one(folder: Path, ds: FileDataset) -> Volume:
    return read_series(write(folder / "one", [ds]))


def refusal(folder: Path, ds: FileDataset) -> str:
    with pytest.raises(SeriesRefused) as refused:
        one(folder, ds)
    return str(refused.value)


@settings(max_examples=40, deadline=None)
@given(
    slope=st.sampled_from([1.0, 0.5, 1.000244, 2.75, -1.0]),
    intercept=st.sampled_from([0.0, -1024.0, -1000.5]),
    stored=st.integers(2, 16),
    signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_stored_values_and_units_are_exact(
    tmp_path_factory: pytest.TempPathFactory,
    slope: float,
    intercept: float,
    stored: int,
    signed: bool,
    seed: int,
) -> None:
    """Every stored value of every depth and sign comes back, with slope and intercept applied in float64."""
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    words = np.random.default_rng(seed).integers(low, high, (5, 6), endpoint=True)
    ds = words_in(words, stored=stored, signed=signed, modality="MR")
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    volume = one(tmp_path_factory.mktemp("values"), ds)
    assert np.array_equal(volume.stored[0], words)
    assert np.array_equal(volume.voxels[0], (words * slope + intercept).astype(np.float32))
    assert volume.voxels.dtype == np.float32
    assert volume.stored.dtype == np.int32


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    """Slope and intercept are those of the slice, not of the first."""
    images = series(3, 16, modality="MR")
    for k, ds in enumerate(images):
        ds.RescaleSlope, ds.RescaleIntercept = k + 1, 10 * k
    volume = read_series(write(tmp_path, images))
    for k in range(3):
        assert np.array_equal(volume.voxels[k], volume.stored[k] * np.float32(k + 1) + 10 * k)


def test_mr_without_rescale_stands_for_itself(tmp_path: Path) -> None:
    """MR needs no rescale: its stored values are its values."""
    ds = words_in(np.arange(12).reshape(3, 4), modality="MR")
    del ds.RescaleSlope, ds.RescaleIntercept
    volume = one(tmp_path, ds)
    assert np.array_equal(volume.voxels[0], np.arange(12, dtype=np.float32).reshape(3, 4))
    assert volume.modality == "MR"


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    """A Modality LUT Sequence takes the place of slope and intercept (PS3.3 C.11.1)."""
    ds = words_in(np.array([[0, 10, 11], [12, 13, 500]]), signed=False, modality="MR")
    del ds.RescaleSlope, ds.RescaleIntercept
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 10, 16], "US"
    table.add_new("LUTData", "US", [7, 70, 700, 7000])
    ds.ModalityLUTSequence = [table]
    assert one(tmp_path, ds).voxels[0].tolist() == [[7, 7, 70], [700, 7000, 7000]]


@pytest.mark.parametrize(
    ("value", "limit", "padded"),
    [
        (-2000, None, [True, False, False, False]),
        (63536, None, [True, False, False, False]),  # -2000 written as US, as GE does
        (-2000, -1000, [True, True, True, False]),
        (-1000, -2000, [True, True, True, False]),
        (5, None, [False, False, False, False]),
    ],
)
def test_declared_padding_is_found(tmp_path: Path, value: int, limit: int | None, padded: list[bool]) -> None:
    """PixelPaddingValue and PixelPaddingRangeLimit mark stored values, both ends included."""
    ds = words_in(np.array([[-2000, -1500, -1000, 40]]), modality="MR")
    vr = "US" if value > 32767 else "SS"
    ds.add_new("PixelPaddingValue", vr, value)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", vr, limit)
    volume = one(tmp_path, ds)
    assert volume.padding[0, 0].tolist() == padded
    assert volume.stored[0, 0].tolist() == [-2000, -1500, -1000, 40]


def test_undeclared_fill_out_of_the_field_is_padding(tmp_path: Path) -> None:
    """GE's -2000 around the field is padding without an attribute; streaks as dark inside are not."""
    words = np.full((16, 16), 1024)
    words[:2] = words[-2:] = -2000
    words[8, 8] = -900
    volume = one(tmp_path, words_in(words))
    assert np.array_equal(volume.padding[0], words == -2000)
    assert volume.notes == (
        "pixels out of the field, not declared as padding, are taken as padding (in 1 of 1 images)",
    )
    mr = one(tmp_path / "mr", words_in(words, modality="MR"))
    assert not mr.padding.any()


def test_padding_beyond_bits_stored_keeps_its_word(tmp_path: Path) -> None:
    """A padding word that needs more than BitsStored is padding, and is kept as it is."""
    ds = words_in(np.array([[63536, 100, 4095]]), stored=12, signed=False)
    ds.add_new("PixelPaddingValue", "US", 63536)
    volume = one(tmp_path, ds)
    assert volume.padding[0, 0].tolist() == [True, False, False]
    assert volume.stored[0, 0].tolist() == [63536, 100, 4095]


def test_negative_values_need_no_sign_extension(tmp_path: Path) -> None:
    """Signed values of 12 bits are read with the bits above as zeros or as the sign (PS3.5 8.1.1)."""
    values = np.array([[-1000, -1, 0, 2047]])
    for words in (values, values & 0x0FFF):
        volume = one(tmp_path, words_in(words, stored=12))
        assert np.array_equal(volume.stored[0], values)


@pytest.mark.parametrize(
    ("words", "signed"),
    [([4096, 10], False), ([0x1FFF, 3], False), ([-1000, 3000], True), ([0x7000, 3], True)],
)
def test_values_beyond_bits_stored_are_refused(tmp_path: Path, words: list[int], signed: bool) -> None:
    """A BitsStored that is too small would fold a bright pixel into a dark one; it is refused."""
    ds = words_in(np.array([words]), stored=12, signed=signed)
    assert "need more than BitsStored 12 bits" in refusal(tmp_path, ds)


def test_an_overlay_in_the_bits_above_is_masked(tmp_path: Path) -> None:
    """Retired overlays live in unused bits; they are no part of the values."""
    ds = words_in(np.array([[0x1000 | 100, 200]]), stored=12, signed=False)
    ds.add_new((0x6000, 0x0100), "US", 16)
    ds.add_new((0x6000, 0x0102), "US", 12)
    assert one(tmp_path, ds).stored[0, 0].tolist() == [100, 200]


def test_values_that_no_scanner_gives_are_refused(tmp_path: Path) -> None:
    """A CT whose sign is lost reaches HU beyond the extended scale, and is refused."""
    ds = words_in(np.array([[-1000, 40]]), signed=False)
    assert "values from -984 to 63512 HU are no CT" in refusal(tmp_path, ds)

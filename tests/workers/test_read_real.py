"""Real files of many makers: each gives a volume or a sentence, and it is known which."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.errors import SeriesRefused
from workers.read import Volume, read_series

# Of 129 files these are classic CT or MR images that are sound; (rows, columns), least, greatest, padded part
READ: dict[str, tuple[tuple[int, int], float, float, float]] = {
    "CT1_JLSN.dcm": ((512, 512), -3028, 1254, 0.213),
    "CT_small.dcm": ((128, 128), -896, 1167, 0.0),
    "ELSCINT1_JP2vsJ2K.dcm": ((512, 512), -1000, 3095, 0.0),
    "MR-SIEMENS-DICOM-WithOverlays.dcm": ((484, 484), 0, 1123, 0.0),
    "MR2_J2KI.dcm": ((1024, 1024), 0, 2264, 0.0),
    "MR2_J2KR.dcm": ((1024, 1024), 0, 2246, 0.0),
    "MR_small.dcm": ((64, 64), 127, 2145, 0.0),
    "MR_small_RLE.dcm": ((64, 64), 127, 2145, 0.0),
    "MR_small_bigendian.dcm": ((64, 64), 127, 2145, 0.0),
    "MR_small_implicit.dcm": ((64, 64), 127, 2145, 0.0),
    "MR_small_padded.dcm": ((64, 64), 127, 2145, 0.0),
    "TOSHIBA_J2K_SIZ0_PixRep1.dcm": ((512, 512), -2048, 1717, 0.415),
    "examples_overlay.dcm": ((300, 484), 0, 1123, 0.0),
    "explicit_VR-UN.dcm": ((512, 512), -1024, 1186, 0.0),
    "fileset_CT2_17106": ((16, 16), -981, 77, 0.0),
    "fileset_CT2_17136": ((16, 16), 77, 1360, 0.0),
    "fileset_CT2_17166": ((16, 16), 991, 1489, 0.0),
    "fileset_CT2_17196": ((16, 16), 498, 1399, 0.0),
}

# What else is read: shape, and millimetres between rows where the header has them
ALSO_READ = {
    "ExplVR_BigEnd.dcm": ((1, 60, 80), None),
    "JPGLosslessP14SV1_1s_1f_8b.dcm": ((1, 768, 1024), 0.2548),
    "NM-MONO2-16-13x-heart": ((13, 64, 64), 3.1158),
    "OBXXXX1A.dcm": ((1, 600, 800), None),
    "OBXXXX1A_rle_2frame.dcm": ((2, 600, 800), None),
    "RG1_J2KI.dcm": ((1, 1955, 1841), None),
    "RG2_JPLY_fixed.dcm": ((1, 2140, 1760), 0.2),
    "RG3_J2KI.dcm": ((1, 1760, 1760), None),
    "US1_J2KR.dcm": ((1, 480, 640), None),
    "US1_UNCR.dcm": ((1, 480, 640), None),
    "dcmqi_mf.dcm": ((3, 38, 24), 0.7),
    "dx_image.dcm": ((1, 169, 211), 1.2),
    "eCT_Supplemental.dcm": ((2, 512, 512), 0.3887),
    "enh_6_1.dcm": ((6, 64, 64), 3.375),
    "examples_palette.dcm": ((1, 350, 800), None),
    "examples_ybr_color.dcm": ((30, 240, 320), 0.5105),
    "fileset_CR1_6154": ((1, 16, 16), 0.1),
    "fileset_CR2_6247": ((1, 16, 16), 0.1),
    "fileset_CR3_6278": ((1, 16, 16), 0.1),
    "mg_siemens_outofbounds_overlay.dcm": ((1, 788, 1318), 0.085),
    "pet_1.dcm": ((1, 168, 168), 4.0728),
    "pet_2.dcm": ((1, 168, 168), 4.0728),
    "siemens_mr_original.dcm": ((25, 64, 64), 3.2812),
    "siemens_mr_via_agfa_pacs.dcm": ((25, 64, 64), 3.2812),
    "xa30_enhanced_fieldmap.dcm": ((33, 64, 64), 3.375),
}

# Images that must not be read, and why
UNSOUND = {
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "values from -33792 to 31743 HU are no CT",
    "TOSHIBA_J2K_SIZ1_PixRep0.dcm": "its codestream has negative values, PixelRepresentation 0 denies them.",
    "MAROTECH_CT_JP2Lossy.dcm": "The series has localizers only (1)",
    "MR_truncated.dcm": "PixelData is truncated, 8130 of 8192 bytes are there.",
    "bad_sequence.dcm": "has no valid SOPInstanceUID.",
    "siemens_dwi_1000.dcm": "is a Siemens mosaic",
    "mr_ts_4.dcm": "is a Siemens mosaic",
    "emri_small.dcm": "NumberOfFrames is 10, functional groups are there for 0.",
    "enh_IM_0027_fMAP.dcm": "Two images lie at",
    "xa30_enhanced_mr_color.dcm": "colour, a picture of a result and no measurement.",
    "charset_chrJapMulti.dcm": "PixelData is missing.",
    "color-pl.dcm": "its class was retired",
    "no_meta.dcm": "File no_meta.dcm is not readable as a DICOM Part-10 file.",
}


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix not in {".md", ".csv"})


def outcome(paths: list[Path]) -> Volume | str:
    try:
        return read_series(paths)
    except SeriesRefused as refused:
        return str(refused)


def test_every_single_file_gives_a_volume_or_a_sentence(data_dir: Path) -> None:
    """Of 129 odd files the sound images are read, and each other is refused by a sentence."""
    outcomes = {path.name: outcome([path]) for path in files_of(data_dir / "dicom-variety")}
    assert len(outcomes) == 129
    volumes = {name: volume for name, volume in outcomes.items() if isinstance(volume, Volume)}
    assert volumes.keys() == READ.keys() | ALSO_READ.keys()
    for name, (shape, row_mm) in ALSO_READ.items():
        assert volumes[name].voxels.shape == shape, name
        given = volumes[name].spacing[1]
        assert np.isnan(given) if row_mm is None else given == pytest.approx(row_mm, abs=1e-3), name
    for name, (matrix, least, greatest, padded) in READ.items():
        voxels = volumes[name].voxels
        assert voxels.shape == (1, *matrix), name
        # lossy files may differ by a grey level between versions of a codec
        assert (voxels.min(), voxels.max()) == pytest.approx((least, greatest), abs=2), name
        assert volumes[name].padding.mean() == pytest.approx(padded, abs=0.001), name
    sentences = {name: said for name, said in outcomes.items() if isinstance(said, str)}
    assert all(said.endswith(".") and "\n" not in said for said in sentences.values())
    for name, said in UNSOUND.items():
        assert said in sentences[name]


def test_one_picture_in_four_syntaxes_is_one_volume(data_dir: Path) -> None:
    """Big endian, implicit, RLE and zero-padded versions of an MR image hold the same values."""
    first, *others = (
        read_series([data_dir / "dicom-variety" / f"MR_small{kind}.dcm"])
        for kind in ("", "_RLE", "_bigendian", "_implicit", "_padded")
    )
    assert all(np.array_equal(first.voxels, other.voxels) for other in others)


@pytest.mark.parametrize(
    ("folder", "shape", "spacing"),
    [
        ("mr_hitachi_airis_0.3-0.5T_lspine_t2_sag", (11, 512, 512), 4.5),
        ("mr_siemens_avanto_liver_haste_cor", (30, 256, 256), 8.75),
        ("mr_siemens_prisma_j2k_fragmented_phantom", (12, 128, 128), 2.0),
        ("mr_siemens_prisma_jpegll_fragmented_phantom", (12, 128, 128), 2.0),
        ("mr_toshiba_galan_3T_dti", (26, 64, 64), 3.0),
        ("mr_toshiba_titan_1.5T_lspine_t2", (15, 498, 448), 4.8),
    ],
)
def test_series_of_several_makers_are_read(
    data_dir: Path, folder: str, shape: tuple[int, int, int], spacing: float
) -> None:
    """Sagittal, coronal and axial MR of four makers: positions ascend, values are the files' own."""
    paths = files_of(data_dir / "dicom-series" / folder)
    volume = read_series(paths)
    assert volume.voxels.shape == shape
    assert volume.spacing[0] == pytest.approx(spacing, abs=1e-3)
    assert (np.diff(volume.positions) > 0).all()
    assert sorted(volume.paths) == paths
    middle = pydicom.dcmread(volume.paths[shape[0] // 2])
    assert middle.SOPInstanceUID == volume.headers[shape[0] // 2].SOPInstanceUID
    assert np.array_equal(volume.stored[shape[0] // 2], middle.pixel_array)


def test_series_that_are_no_whole_stack_are_refused(data_dir: Path) -> None:
    """A thinned stack is refused with its holes, a mosaic by its name."""
    thinned = outcome(files_of(data_dir / "dicom-series" / "mr_ge_mprage_phantom"))
    assert isinstance(thinned, str)
    assert thinned.startswith(
        "5 slices are missing: 1 between -38.388 mm and -35.988 mm along the slice normal"
    )
    mosaic = outcome(files_of(data_dir / "dicom-series" / "mr_siemens_mosaic_epi"))
    assert isinstance(mosaic, str)
    assert "is a Siemens mosaic" in mosaic


def test_an_anonymised_ge_chest_is_read(data_dir: Path) -> None:
    """LIDC: a frame of reference in every image, fill out of the field undeclared, slices far apart."""
    folder = data_dir / "ct-denoise" / "train" / "LIDC-IDRI-0001"
    volume = read_series(files_of(folder)[::3])
    assert volume.voxels.shape[1:] == (512, 512)
    assert volume.voxels[~volume.padding].min() >= -1100
    assert 0.2 < volume.padding.mean() < 0.22
    assert (volume.neighbours == np.arange(len(volume.positions))[:, None]).all()
    assert "every image has a FrameOfReferenceUID of its own" in volume.notes[0]


def test_reformatted_planes_of_many_angles_are_refused(data_dir: Path) -> None:
    """Slices along a spine's curve have each their own orientation, and are no stack."""
    spine = outcome(files_of(data_dir / "ct-denoise" / "train" / "CC0-SPINE-01"))
    assert isinstance(spine, str)
    assert spine.startswith("Mixed series: Image ")
    assert "has ImageOrientationPatient" in spine

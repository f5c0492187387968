"""The made body and its scan: the truth is what it says."""

import numpy as np
import pytest
from scipy import ndimage

from models.phantom import BLOOD, FAT, INSERTS, LESION, LIVER, MUSCLE, PhantomSeries, ct_series


@pytest.fixture(scope="module")
def scan() -> PhantomSeries:
    return ct_series(slices=9, size=256, seed=4, dose=0.25)


def test_the_same_seed_gives_the_same_scan(scan: PhantomSeries) -> None:
    """Arguments decide every pixel; another seed gives another scan."""
    small = {"slices": 2, "size": 96, "dose": 0.5}
    first, second, other = (ct_series(seed=seed, **small) for seed in (1, 1, 2))
    assert np.array_equal(first.noisy, second.noisy)
    assert not np.array_equal(first.clean, other.clean)
    assert scan.noisy.shape == scan.clean.shape == (9, 256, 256)
    assert scan.noisy.dtype == scan.clean.dtype == np.float32
    assert scan.spacing == (2.0, 380 / 256, 380 / 256)


def test_organs_have_their_hu(scan: PhantomSeries) -> None:
    """The truth's organs have the HU they are given, and so has the scan's mean, within 1.5 HU."""
    wanted = {"liver": LIVER, "aorta": BLOOD, "fat": FAT, "muscle": MUSCLE}
    for name, value in wanted.items():
        region = scan.regions[name]
        assert region.sum() > 300, name
        assert scan.clean[region].mean() == pytest.approx(value, abs=4), name
        assert scan.noisy[region].mean() == pytest.approx(scan.clean[region].mean(), abs=1.5), name
    assert -900 < scan.clean[scan.regions["lung"]].mean() < -800


def test_noise_falls_with_the_dose_as_poisson_says() -> None:
    """Four times the dose halves the noise in the liver, of the same body."""
    high, low = (ct_series(slices=4, size=192, seed=4, dose=dose) for dose in (8.0, 2.0))
    assert np.array_equal(high.clean, low.clean)
    liver = low.regions["liver"]
    ratio = (low.noisy - low.clean)[liver].std() / (high.noisy - high.clean)[liver].std()
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_air_surrounds_the_body(scan: PhantomSeries) -> None:
    """Outside body and table the truth is air; the body is one piece."""
    away = ~ndimage.binary_dilation(scan.body, np.ones((1, 3, 3), bool), iterations=4)
    upper = away.copy()
    upper[:, 170:] = False
    assert np.abs(scan.clean[upper] + 1000).max() < 0.5
    assert ndimage.label(scan.body[4])[1] == 1


def test_the_lesion_is_where_its_mask_is(scan: PhantomSeries) -> None:
    """The nodule has its volume and HU, and lies in lung."""
    voxel = np.prod(scan.spacing)
    assert scan.lesion.sum() * voxel == pytest.approx(4 / 3 * np.pi * (LESION[0] / 2) ** 3, rel=0.25)
    core = ndimage.binary_erosion(scan.lesion)
    assert scan.clean[core].mean() == pytest.approx(LESION[1], abs=25)
    around = ndimage.binary_dilation(scan.lesion, iterations=4) & ~ndimage.binary_dilation(
        scan.lesion, iterations=2
    )
    assert np.median(scan.clean[around]) < -750


def test_inserts_have_their_contrast() -> None:
    """Balls in the liver differ from what is around them by what they say, in the middle."""
    scan = ct_series(slices=9, size=512, seed=4, dose=1.0)
    assert [(insert.diameter, insert.contrast) for insert in scan.inserts] == list(INSERTS)
    for insert in scan.inserts:
        assert insert.around.sum() > 500
        core = insert.inside if insert.diameter < 6 else ndimage.binary_erosion(insert.inside)
        found = scan.clean[core].mean() - scan.clean[insert.around].mean()
        share = 0.5 if insert.diameter < 6 else 0.8  # a small ball's slices and edges are partly liver
        assert found / insert.contrast > share, insert.diameter
        assert found / insert.contrast < 1.25, insert.diameter


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"size": 32}, {"dose": 0}, {"dose": float("nan")}])
def test_no_phantom_without_size_or_dose(wrong: dict[str, float]) -> None:
    """Sizes and doses out of range are refused."""
    with pytest.raises(ValueError, match="phantom"):
        ct_series(**{"slices": 1, "size": 64, "seed": 1, "dose": 1.0, **wrong})

"""The observer and the shipped CT denoiser on a published test's images, which were not made here."""

from pathlib import Path

import numpy as np
import pytest

from models import weights
from tests.benchmarks import detectability as lcd

DISCS = {14: 3.0, 7: 5.0, 5: 7.0, 3: 10.0}  # contrast in HU: diameter in mm


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    found = data_dir / "ct-mita-lcd"
    if not found.is_dir():
        pytest.skip(f"the low-contrast images of LCD_CT are not at {found}")
    return found


def test_the_discs_lie_where_they_are_said_to(folder: Path) -> None:
    """The truth's four discs have their areas at the pixel size that the header does not tell."""
    phantom = lcd.truth(folder)
    found = lcd.centres(phantom)
    assert set(found) == set(DISCS)
    for contrast, centre in found.items():
        area = lcd.area_of_disc(phantom, centre, contrast) * lcd.SPACING**2
        assert 2 * np.sqrt(area / np.pi) == pytest.approx(DISCS[contrast], rel=0.015)


def test_the_observer_follows_the_dose_below_the_ideal(folder: Path) -> None:
    """More dose is seen better, never better than by an observer that knows disc and noise."""
    phantom = lcd.truth(folder)
    discs = lcd.centres(phantom)
    means, ideals = [], []
    for dose in lcd.DOSES:
        scans = lcd.read_scans(folder, "fbp", dose)
        means.append(lcd.mean_areas(scans, discs).mean())
        ideals.append(np.mean([lcd.ideal_area(scans, phantom, discs[contrast]) for contrast in DISCS]))
    assert means[0] < means[1] < means[2] and ideals[0] < ideals[1] < ideals[2]
    assert means[2] > 0.7
    assert all(found < ideal + 0.03 for found, ideal in zip(means, ideals, strict=True))


def test_the_published_denoiser_s_images_are_other_scans(folder: Path) -> None:
    """None of its images has the noise of an input image, so that it is no pair that could be compared."""
    groups = [lcd.read_scans(folder, method, "dose_100") for method in ("fbp", "DL_denoised")]
    flat = []
    for scans in groups:
        noise = scans.absent[:, 96:160, 96:160].reshape(10, -1)
        noise = noise - noise.mean(1, keepdims=True)
        flat.append(noise / np.linalg.norm(noise, axis=1, keepdims=True))
    assert np.abs(flat[0] @ flat[1].T).max() < 0.1
    assert np.diag(flat[0] @ flat[0].T) == pytest.approx(np.ones(10), abs=1e-4)


def test_ours_halves_the_noise_and_loses_no_disc(folder: Path) -> None:
    """At the default strength a third or more of the noise goes, and the observer sees as before."""
    model = weights.load("ct-denoise")
    discs = lcd.centres(lcd.truth(folder))
    scans = lcd.read_scans(folder, "fbp", "dose_100")
    ours = lcd.denoised(model, scans, model.card["strength"])
    assert lcd.background(ours)[0] < 0.67 * lcd.background(scans)[0]
    assert lcd.background(ours)[1] == pytest.approx(lcd.background(scans)[1], rel=0.15)
    lost = lcd.mean_areas(scans, discs).mean() - lcd.mean_areas(ours, discs).mean()
    assert lost < 0.02

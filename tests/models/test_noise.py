"""The CT simulator, against ASTRA and against physics, and the noise estimate."""

import astra
import numpy as np
import pytest
import torch
from scipy import ndimage

from models.noise import FanBeam, back_project, ct_noise, estimate_noise, filter_views, project


def _disc(size: int, radius: float) -> np.ndarray:
    axis = np.arange(size) - (size - 1) / 2
    return np.hypot(axis[:, None], axis[None, :]) < radius


def _attenuation(size: int) -> np.ndarray:
    """A soft water disc with a dense insert and a hole, 1/mm."""
    image = 0.019 * _disc(size, 0.38 * size)
    image[size // 4 : size // 3, size // 3 : size // 2] = 0.035
    image[size // 2 :, size // 2 : size // 2 + 9] = 0.0
    return ndimage.gaussian_filter(image, 1.0).astype(np.float32)


def _astra_sinogram(image: np.ndarray, beam: FanBeam) -> np.ndarray:
    """ASTRA's sinogram (V, D) in 1/mm × mm of the same fan beam; its unit of length is our pixel."""
    magnification = beam.source_to_detector / beam.source_to_axis
    volume = astra.create_vol_geom(beam.size, beam.size)
    views = astra.create_proj_geom(
        "fanflat",
        beam.pitch * magnification / beam.spacing,
        beam.detectors,
        beam.angles.double().numpy(),
        beam.source_to_axis / beam.spacing,
        (beam.source_to_detector - beam.source_to_axis) / beam.spacing,
    )
    projector = astra.create_projector("line_fanflat", views, volume)
    # ASTRA counts rows upwards.
    identifier, sinogram = astra.create_sino(np.ascontiguousarray(image[::-1]), projector)
    astra.data2d.delete(identifier)
    astra.projector.delete(projector)
    return sinogram * beam.spacing


def test_line_integrals_are_those_of_astra() -> None:
    """Every view of the fan beam agrees with ASTRA, to 0.3 % of the largest integral on the whole."""
    beam = FanBeam(size=128, spacing=2.0, views=90, pitch=1.5)
    image = _attenuation(128)
    ours = project(torch.from_numpy(image)[None], beam)[0].numpy()
    theirs = _astra_sinogram(image, beam)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 0.06 * theirs.max()
    assert np.sqrt(np.square(ours - theirs).mean()) < 0.003 * theirs.max()


def test_back_projection_of_astras_views_gives_the_object_back() -> None:
    """Filtered back-projection of a sinogram made by ASTRA gives the attenuation that ASTRA projected."""
    beam = FanBeam(size=128, spacing=2.0, views=360, pitch=1.5)
    image = _attenuation(128)
    views = torch.from_numpy(_astra_sinogram(image, beam))[None]
    found = back_project(filter_views(views, beam, cutoff=1.0), beam)[0].numpy()
    flat = ndimage.binary_erosion(np.abs(image - 0.019) < 1e-5, iterations=4)
    assert found[flat].mean() == pytest.approx(0.019, rel=0.001)
    dense = ndimage.binary_erosion(image > 0.0349, iterations=2)
    assert found[dense].mean() == pytest.approx(0.035, rel=0.002)
    inner = _disc(128, 62)
    assert np.sqrt(np.square(found - ndimage.gaussian_filter(image, 0.7))[inner].mean()) < 0.0002


def test_nothing_is_back_projected_outside_the_field() -> None:
    """Pixels outside the inscribed circle stay exactly 0."""
    volume = np.where(_disc(96, 30), 0.0, -1000.0).astype(np.float32)[None]
    noise = ct_noise(volume, 3.0, dose=1.0, seed=1, views=60)[0, 0]
    assert not noise[~_disc(96, 48.01)].any()
    assert noise[_disc(96, 30)].std() > 0


def test_noise_follows_the_dose_as_poisson_says() -> None:
    """A quarter of the dose doubles the noise, and the noise has no mean."""
    volume = np.where(_disc(128, 40), 0.0, -1000.0).astype(np.float32)[None].repeat(4, 0)
    full, quarter = (ct_noise(volume, 2.0, dose=dose, seed=5, views=180)[0] for dose in (1.0, 0.25))
    inside = np.broadcast_to(_disc(128, 36), full.shape)
    assert quarter[inside].std() / full[inside].std() == pytest.approx(2.0, rel=0.03)
    assert abs(full[inside].mean()) < 0.02 * full[inside].std()


def test_thicker_bodies_are_noisier() -> None:
    """10 cm more of water multiply the noise in the middle by about √e^(0.0192·100)."""
    middle = []
    for radius in (25, 50):  # of 2 mm pixels
        volume = np.where(_disc(128, radius), 0.0, -1000.0).astype(np.float32)[None].repeat(6, 0)
        noise = ct_noise(volume, 2.0, dose=1.0, seed=9, views=180)[0]
        middle.append(noise[:, 54:74, 54:74].std())
    assert middle[1] / middle[0] == pytest.approx(np.exp(0.0192 * 100 / 2), rel=0.1)


def test_kernels_order_the_noise_and_share_the_photons() -> None:
    """A sharper kernel of the same scan is noisier and shows the same grain; the seed fixes both."""
    volume = np.where(_disc(96, 30), 0.0, -1000.0).astype(np.float32)[None]
    soft, sharp = ct_noise(volume, 3.0, dose=0.5, seed=3, cutoffs=(0.6, 1.5), views=90)[:, 0]
    inside = _disc(96, 28)
    assert sharp[inside].std() > 1.5 * soft[inside].std()
    assert np.corrcoef(sharp[inside], soft[inside])[0, 1] > 0.5
    again = ct_noise(volume, 3.0, dose=0.5, seed=3, cutoffs=(0.6, 1.5), views=90)[:, 0]
    assert np.array_equal(again, np.stack((soft, sharp)))


def test_slices_must_be_square() -> None:
    """A slice that is not square is refused with its sides."""
    with pytest.raises(ValueError, match="100 × 90"):
        ct_noise(np.zeros((1, 100, 90), np.float32), 1.0, dose=1.0, seed=1)


@pytest.mark.parametrize("cutoff", [0.55, 0.8, 1.1, 1.8])
def test_the_estimate_is_near_the_noise_that_was_added(cutoff: float) -> None:
    """From soft to sharp kernels the estimated level is within 30 % of the noise in the body."""
    truth = np.full((3, 256, 256), -1000, np.float32)
    body = np.broadcast_to(_disc(256, 90), truth.shape)
    truth[body] = 40
    truth[:, 100:130, 100:130] = 900
    truth[:, 60:90, 120:150] = -850
    noise = ct_noise(truth, 1.4, dose=0.5, seed=2, cutoffs=(cutoff,), views=240)[0]
    estimated = estimate_noise(truth + noise, body)
    assert estimated.shape == (3,)
    assert estimated == pytest.approx(noise[body].std(), rel=0.3)


def test_one_odd_slice_does_not_change_the_estimate() -> None:
    """Levels are smoothed along z by a median first; a slice without a body takes its neighbours' level."""
    rng = np.random.default_rng(1)
    volume = rng.normal(40, 10, (9, 96, 96)).astype(np.float32)
    body = np.broadcast_to(_disc(96, 40), volume.shape).copy()
    quiet = estimate_noise(volume, body)
    volume[4] = rng.normal(40, 100, (96, 96))
    body[6] = False
    assert estimate_noise(volume, body) == pytest.approx(quiet, rel=0.06)
    assert not estimate_noise(volume, np.zeros_like(body)).any()

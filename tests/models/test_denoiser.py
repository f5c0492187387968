"""The denoiser's network and, above all, the bounds of its safety layer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from models import denoiser
from models.denoiser import BFRAE, bounded_change, denoise, run_network, spared
from models.intensity import body_mask
from models.weights import LoadedModel

CARD = {"max_strength": 0.8, "max_limit_sigma": 4.0}


def _model(network: nn.Module) -> LoadedModel:
    return LoadedModel("test", "0.0.1", "denoiser", "", CARD, network.eval(), "cpu")


def _wild_network(seed: int = 1) -> BFRAE:
    """A network of random weights, which changes everything it sees."""
    torch.manual_seed(seed)
    network = BFRAE(widths=(8, 8, 8), blocks=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.15)
    return network.eval().requires_grad_(False)


class _Inventor(nn.Module):
    """A network that lays waves of six σ over what it sees, too long to be edges."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.direction, self.phase = np.random.default_rng(seed).uniform(0, np.pi, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = (torch.arange(length, dtype=torch.float32) / 5 for length in x.shape[2:])
        place = rows[:, None] * np.cos(self.direction) + columns * np.sin(self.direction)
        smooth: torch.Tensor = nn.functional.avg_pool2d(x[:, 1:2], 9, 1, 4, count_include_pad=False)
        return smooth + 6 * x[:, 3:4] * torch.sin(place + self.phase)


class _Smoother(nn.Module):
    """A network that answers with the mean of 5 × 5 pixels of the slice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x[:, 1:2], 5, 1, 2, count_include_pad=False)


def _patient(slices: int = 3, size: int = 96, noise: float = 20.0, seed: int = 1) -> np.ndarray:
    """Discs of soft tissue with lungs in outer air, with white noise, HU."""
    axis = np.arange(size) - (size - 1) / 2
    y, x = axis[:, None], axis[None, :]
    image = np.where(np.hypot(y, x) < 0.42 * size, 50.0, -1000.0)
    image[np.hypot(y, x - 0.18 * size) < 0.12 * size] = -850
    image[np.hypot(y, x + 0.18 * size) < 0.08 * size] = 400
    rng = np.random.default_rng(seed)
    return (image + rng.normal(0, noise, (slices, size, size))).astype(np.float32)


def _alone(slices: int) -> np.ndarray:
    return np.repeat(np.arange(slices)[:, None], 3, 1)


def _denoise(
    network: nn.Module, volume: np.ndarray, padding: np.ndarray | None = None, **options: float
) -> denoiser.Denoised:
    pad = np.zeros(volume.shape, bool) if padding is None else padding
    whole = {"strength": 0.5, "limit_sigma": 3.0, **options}
    return denoise(_model(network), volume, padding=pad, neighbours=_alone(len(volume)), **whole)


def test_the_network_has_the_parameters_of_its_description() -> None:
    """1.05 million weights, and no bias among them."""
    network = BFRAE()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_046_144
    assert not [name for name, _ in network.named_parameters() if "bias" in name]


def test_a_new_network_passes_its_input_on() -> None:
    """Before training the estimated noise is 0."""
    x = torch.randn(1, 4, 32, 40)
    assert torch.equal(BFRAE()(x), x[:, 1:2])


@pytest.mark.parametrize("factor", [0.01, 7.0, 120.0])
def test_the_network_scales_with_its_input(factor: float) -> None:
    """Without biases f(c · x) = c · f(x), so noise levels that were never trained behave alike."""
    network = _wild_network()
    x = torch.randn(1, 4, 64, 64)
    assert torch.allclose(network(factor * x), factor * network(x), rtol=1e-3, atol=1e-4 * factor)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    strength=st.floats(0, 0.8),
    limit_sigma=st.floats(0, 4),
    noise=st.floats(0, 500),
    padded=st.booleans(),
)
def test_no_pixel_changes_by_more_than_the_bound(
    seed: int, strength: float, limit_sigma: float, noise: float, padded: bool
) -> None:
    """|out − y| ≤ strength · limit · σ for any network; air and padding are bit for bit what they were."""
    volume = _patient(2, 64, noise, seed)
    padding = np.zeros(volume.shape, bool)
    if padded:
        padding[:, :10] = True
        volume[padding] = -2000
    network = _wild_network(seed % 5) if seed % 2 else _Inventor(seed)
    result = _denoise(network, volume, padding, strength=strength, limit_sigma=limit_sigma)
    allowed = strength * limit_sigma * result.sigma.astype(np.float64)[:, None, None]
    # Half a unit in the last place of the pixel itself is the arithmetic's, not the denoiser's.
    rounding = np.spacing(np.abs(volume)).astype(np.float64)
    assert (np.abs(result.image.astype(np.float64) - volume) <= allowed + rounding).all()
    untouched = ~body_mask(volume, padding)
    assert padding[untouched].sum() == padding.sum()
    assert np.array_equal(result.image[untouched].view(np.int32), volume[untouched].view(np.int32))


def test_an_inventing_network_reaches_the_bound() -> None:
    """The bound is not idle: a bad network hits it."""
    volume = _patient()
    result = _denoise(_Inventor(), volume)
    largest = np.abs(result.image - volume).max((1, 2))
    assert largest == pytest.approx(1.5 * result.sigma, rel=1e-3)


def test_padding_that_is_not_air_is_left_alone() -> None:
    """Padding amid the body keeps its odd values and does not disturb what is beside it."""
    volume = _patient()
    padding = np.zeros(volume.shape, bool)
    padding[:, 40:50, 40:50] = True
    volume[padding] = -32768
    result = _denoise(_Smoother(), volume, padding)
    assert (result.image[padding] == -32768).all()
    assert np.abs(result.image - volume).max() <= 1.5 * result.sigma.max()


def test_strength_zero_changes_nothing() -> None:
    """At strength 0 or limit 0 the image is the same."""
    volume = _patient()
    assert np.array_equal(_denoise(_wild_network(), volume, strength=0).image, volume)
    assert np.array_equal(_denoise(_wild_network(), volume, limit_sigma=0).image, volume)


def test_an_image_without_noise_is_not_changed() -> None:
    """Where the estimated noise is nothing but rounding, so is the change."""
    volume = _patient(noise=0)
    result = _denoise(_wild_network(), volume)
    assert result.sigma.max() < 1e-4
    assert np.abs(result.image - volume).max() < 2e-4


def test_a_perfect_network_removes_strength_of_the_noise() -> None:
    """The SD in even tissue falls by about the strength, and the truth's own contrast is kept."""
    volume = _patient(size=160)
    result = _denoise(_Smoother(), volume, strength=0.8)
    even = (slice(None), slice(20, 45), slice(60, 100))
    assert result.image[even].std() / volume[even].std() == pytest.approx(0.36, abs=0.08)
    assert result.image[even].mean() == pytest.approx(volume[even].mean(), abs=0.5)


def test_means_of_tiles_are_kept() -> None:
    """A network that is wrong by a constant, or slowly, changes no local mean by more than 1 HU."""
    rng = np.random.default_rng(1)
    body = np.ones((256, 256), bool)
    slow = 30 + 10 * np.sin(np.arange(256) / 60)[:, None] * np.ones(256)
    residual = (slow + rng.normal(0, 15, body.shape)).astype(np.float32)
    change = bounded_change(residual, body, 15.0, 1.0, 3.0)
    tiles = change.reshape(8, 32, 8, 32).mean((1, 3))
    assert np.abs(tiles).max() < 1.0
    assert change.std() == pytest.approx(15, rel=0.05)


def test_a_removed_lesion_keeps_its_contrast() -> None:
    """Even if the network takes a lesion out whole, 1 − strength of its contrast stays."""
    flat = np.zeros((128, 128), np.float32)
    lesion = np.hypot(*np.ogrid[-64:64, -64:64]) < 4
    residual = np.where(lesion, np.float32(25), flat)
    change = bounded_change(residual, np.ones(flat.shape, bool), 20.0, 0.5, 3.0)
    left = (residual - change)[lesion].mean() - (residual - change)[~lesion].mean()
    assert 0.5 <= left / 25 <= 0.6


def _of_residual(image: np.ndarray, clean: np.ndarray, sigma: float = 10.0) -> np.ndarray:
    """What may be taken, as a share of the residual where that is largest."""
    body = np.ones(image.shape, bool)
    residual = image - clean
    place = np.unravel_index(np.abs(residual).argmax(), image.shape)
    return spared(image, clean, body, sigma)[place] / residual[place]


def test_a_certain_edge_is_left_as_sharp_as_it_is() -> None:
    """What a blurring network would take from an edge of 20 σ stays; of a faint one it is taken."""
    step = np.zeros((64, 64), np.float32)
    step[:, 32:] = 1
    blurred = ndimage.uniform_filter(step, 5)
    assert _of_residual(200 * step, 200 * blurred) == pytest.approx(0, abs=0.02)
    assert _of_residual(10 * step, 10 * blurred) > 0.9


def test_of_what_is_coarse_half_is_taken() -> None:
    """Half of a faint disc of 20 pixels that the network takes out stays, and all of fine noise is taken."""
    flat = np.zeros((128, 128), np.float32)
    disc = np.where(np.hypot(*np.ogrid[-64:64, -64:64]) < 10, np.float32(5), flat)
    taken = spared(disc, flat, np.ones(flat.shape, bool), 10.0)
    assert taken[60:68, 60:68].mean() == pytest.approx(2.5, abs=0.1)
    noise = np.random.default_rng(4).normal(0, 10, flat.shape).astype(np.float32)
    assert spared(noise, flat, np.ones(flat.shape, bool), 10.0).std() > 0.95 * noise.std()


def test_a_slice_in_tiles_is_the_slice_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles see enough around them: their answer is that of the whole slice."""
    torch.manual_seed(3)
    network = BFRAE()
    nn.init.normal_(network.leave.weight, 0, 0.05)
    for module in network.modules():
        if isinstance(module, denoiser.ResidualBlock):
            nn.init.normal_(module.second.weight, 0, 0.03)
    slices = np.random.default_rng(1).normal(0, 300, (3, 331, 300)).astype(np.float32)
    with torch.inference_mode():
        whole = run_network(network, slices, 20.0)
        monkeypatch.setattr(denoiser, "CORE", 128)
        tiled = run_network(network, slices, 20.0)
    assert whole.shape == (331, 300)
    assert np.abs(whole - slices[1]).max() > 10
    assert np.abs(whole - tiled).max() < 0.01


def test_the_same_input_gives_the_same_bits() -> None:
    """Two runs agree to the last bit, and the volume given is not written to."""
    volume = _patient()
    before = volume.copy()
    first, second = (_denoise(_wild_network(), volume) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(volume, before)


def test_neighbours_are_those_that_were_named() -> None:
    """A slice whose neighbours are itself gives what it gives alone; other neighbours are seen."""
    volume = _patient(3)
    padding = np.zeros(volume.shape, bool)
    real = np.array([[0, 0, 1], [0, 1, 2], [1, 2, 2]])
    network = _wild_network()
    network.leave.weight *= 0.01  # wild answers are all edges, of which nothing is taken
    model = _model(network)
    options = {"padding": padding, "strength": 0.5, "limit_sigma": 3.0}
    together = denoise(model, volume, neighbours=real, **options).image
    apart = denoise(model, volume, neighbours=_alone(3), **options).image
    assert not np.array_equal(together[1], apart[1])
    for z in range(3):
        alone = run_network(model.network, volume[[z, z, z]], 20.0)
        assert np.array_equal(run_network(model.network, volume[_alone(3)[z]], 20.0), alone)


def test_progress_counts_every_slice() -> None:
    """The callback hears of each slice, the last one with the whole number."""
    heard: list[tuple[int, int]] = []
    volume = _patient(3)
    denoise(
        _model(_Smoother()),
        volume,
        padding=np.zeros(volume.shape, bool),
        neighbours=_alone(3),
        strength=0.5,
        limit_sigma=3,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(1, 3), (2, 3), (3, 3)]


def _with_nan(volume: np.ndarray) -> np.ndarray:
    volume[1, 2, 3] = np.nan
    return volume


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"strength": 0.9}, None, "strength is 0.9; this model allows 0 to 0.8"),
        ({"limit_sigma": 5}, None, "limit_sigma is 5; this model allows 0 to 4"),
        ({"strength": float("nan")}, None, "strength is nan"),
        ({}, _with_nan, "not finite"),
        ({}, lambda volume: volume[:2], "disagree"),
    ],
)
def test_what_cannot_be_done_safely_is_refused(
    options: dict[str, float], change: Callable[[np.ndarray], np.ndarray] | None, words: str
) -> None:
    """Strengths above the ceiling, values that are not finite and shapes that disagree are named."""
    volume = _patient(3)
    padding = np.zeros(volume.shape, bool)
    with pytest.raises(ValueError, match=words):
        denoise(
            _model(_Smoother()),
            change(volume) if change else volume,
            padding=padding,
            neighbours=_alone(3),
            **{"strength": 0.5, "limit_sigma": 3.0, **options},
        )


def test_the_body_has_its_lungs_and_not_its_table() -> None:
    """Lungs are inside, outer air and a thin table are outside; lung at the field's edge is inside."""
    image = _patient(1, 128, 10)[0]
    image[123:125, 20:100] = -300
    body = body_mask(image[None], np.zeros((1, 128, 128), bool))[0]
    assert body[64, 87] and body[64, 64]
    assert not body[5, 5] and not body[123:125].any() and not body[120, 60]
    cropped = image[40:90, 40:96]  # all body, with lung cut by the edge
    assert body_mask(cropped[None], np.zeros((1, 50, 56), bool)).all()

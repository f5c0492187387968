"""The denoiser: a bias-free residual autoencoder, and the safety layer that bounds what it may change.

The network (in the manner of Mohan et al., ICLR 2020: no biases, no normalisation, so that what it
does scales with the image and holds at noise levels it never saw) estimates the noise of a slice from
the slice and its two neighbours. Its word is not trusted: the residual y − f(y) fades where f(y) itself
has an edge, its coarse part, in which small faint lesions lie, counts half, its local mean is taken
out, what is left is clipped to ± limit_sigma × σ, and only `strength` of that is removed. So

    |out − y| ≤ strength × limit_sigma × σ   for every pixel,

nothing larger can be invented, about 1 − strength of any contrast stays and more of all but the
smallest lesions, and air and padding pass through bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn
from torch.nn import functional

from models.intensity import HU_UNIT, Intensity, intensity_of

CORE, HALO = 512, 96  # a tile's own pixels, and what it sees around them: more than the network's reach
_FACTOR = 8  # sides are multiples of this
_BYTES_A_PIXEL = 600  # of a network's answers at all scales, in float32
_MEAN_TILE = 32  # pixels: the side of a tile whose mean is kept
_EDGE = (3.0, 6.0)  # σ within 3 × 3 pixels: less is no edge; of more, nothing is taken out
_COARSE, _OF_COARSE = 2.0, 0.5  # pixels: SD of the Gaussian that parts coarse from fine; its share


class Model(Protocol):
    """What is used of models.weights.LoadedModel."""

    @property
    def card(self) -> dict[str, Any]:
        """The model's model.json."""

    @property
    def network(self) -> nn.Module:
        """The network, on `device`."""

    @property
    def device(self) -> str:
        """Where the network lies."""


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.second.weight)  # a new block passes its input on

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the same."""
        out: torch.Tensor = x + self.second(functional.relu(self.first(x)))
        return out


class ExactConv2d(nn.Conv2d):
    """A convolution that reads its input in float32 where the others work in bfloat16.

    bfloat16 has steps of 4 HU at the HU of bone and air. An image that is rounded to it has three times the
    error of one whose features are, at no cost in time: this layer has 2 % of the network's arithmetic.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H', W'), in the precision that is asked for."""
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return super().forward(x)
        with torch.autocast(kind, enabled=False):
            exact = super().forward(x.float().contiguous(memory_format=torch.channels_last))
        return exact.to(torch.get_autocast_dtype(kind))


class BFRAE(nn.Module):
    """Bias-free residual autoencoder on half, a quarter and an eighth of the resolution.

    Input (B, 4, H, W): the slice below, the slice, the slice above and the map of σ, all in the
    model's unit (HU / 1000); H and W multiples of 8. Output (B, 1, H, W): the slice without noise.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 128), blocks: int = 2) -> None:
        super().__init__()
        low, middle, high = widths
        self.enter = ExactConv2d(4 * 4, low, 3, padding=1, bias=False)
        self.encode_low = _blocks(low, blocks)
        self.down_low = nn.Conv2d(low, middle, 2, stride=2, bias=False)
        self.encode_middle = _blocks(middle, blocks)
        self.down_middle = nn.Conv2d(middle, high, 2, stride=2, bias=False)
        self.bottom = _blocks(high, blocks)
        self.up_middle = nn.ConvTranspose2d(high, middle, 2, stride=2, bias=False)
        self.decode_middle = _blocks(middle, blocks)
        self.up_low = nn.ConvTranspose2d(middle, low, 2, stride=2, bias=False)
        self.decode_low = _blocks(low, blocks)
        self.leave = nn.Conv2d(low, 4, 3, padding=1, bias=False)
        nn.init.zeros_(self.leave.weight)  # a new network passes its input on

    def scales(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's answer at half, a quarter and an eighth of the resolution."""
        low = self.encode_low(self.enter(functional.pixel_unshuffle(x, 2)))  # (B, 32, H/2, W/2)
        middle = self.encode_middle(self.down_low(low))  # (B, 64, H/4, W/4)
        return [low, middle, self.bottom(self.down_middle(middle))]  # (B, 128, H/8, W/8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 4, H, W) → (B, 1, H, W)."""
        low, middle, high = self.scales(x)
        middle = self.decode_middle(self.up_middle(high) + middle)
        low = self.decode_low(self.up_low(middle) + low)
        noise = functional.pixel_shuffle(self.leave(low), 2)
        return x[:, 1:2] - noise


@dataclass(frozen=True)
class Denoised:
    """A denoised volume and what was allowed to happen to it."""

    image: NDArray[np.float32]  # (Z, Y, X) modality units
    sigma: NDArray[np.float32]  # (Z,) estimated noise in modality units
    strength: float
    limit_sigma: float
    remaining: NDArray[np.float32] | None = None  # (Z,) as sigma, of the image; None where not estimated


def denoise(
    model: Model,
    volume: NDArray[np.float32],
    *,
    padding: NDArray[np.bool_],
    neighbours: NDArray[np.int64],
    strength: float,
    limit_sigma: float,
    progress: Callable[[int, int], None] | None = None,
) -> Denoised:
    """Denoise a volume (Z, Y, X) in modality units; the bounds of this module hold for every pixel.

    `padding` (Z, Y, X) is True where there is no measurement; `neighbours` (Z, 3) are the indices of
    the slice below, itself and the slice above, a gap or an end repeating the slice. `progress` gets
    slices done and all. Raises ValueError for values that are not finite, shapes that disagree, and
    a strength or limit above the model's ceiling.
    """
    _check(model, volume, padding, neighbours, strength, limit_sigma)
    values: Intensity = intensity_of(model.card)
    body = values.body(volume, padding)
    sigma, unit = values.noise(volume, body), values.unit(volume, body)
    image = volume.copy()
    network = channels_last(model.network)
    noisy = [z for z in range(len(volume)) if sigma[z] > 0 and body[z].any()]
    size = slices_at_once(volume.shape[1:], model.device)
    for start in range(0, len(noisy), size):
        part = noisy[start : start + size]
        slices = [values.network_input(volume[neighbours[z]], padding[neighbours[z]], unit) for z in part]
        clean = run_network_batch(network, np.stack(slices), sigma[part], model.device, unit)
        for z, stack, drawn in zip(part, slices, clean, strict=True):
            residual = spared(stack[1], drawn, body[z], float(sigma[z]))
            change = bounded_change(residual, body[z], float(sigma[z]), strength, limit_sigma)
            # Nothing below the modality's least value, and what lay there before stays.
            cleaned = np.maximum(volume[z] - change, np.minimum(volume[z], np.float32(values.least)))
            image[z] = np.where(body[z], cleaned, volume[z])
            if progress is not None:
                progress(z + 1, len(volume))
    if progress is not None and (not noisy or noisy[-1] < len(volume) - 1):
        progress(len(volume), len(volume))
    return Denoised(image, sigma, strength, limit_sigma, values.noise(image, body))


def run_network(
    network: nn.Module,
    slices: NDArray[np.float32],
    sigma: float,
    device: str = "cpu",
    unit: float = HU_UNIT,
) -> NDArray[np.float32]:
    """The network's output (Y, X) for three slices (3, Y, X) in modality units; large ones go in tiles.

    `unit` is what the network's 1 is.
    """
    level = np.array([sigma], np.float32)
    return np.asarray(run_network_batch(network, slices[None], level, device, unit)[0], np.float32)


def run_network_batch(
    network: nn.Module,
    slices: NDArray[np.float32],
    sigma: NDArray[np.float32],
    device: str = "cpu",
    unit: float = HU_UNIT,
) -> NDArray[np.float32]:
    """The network's outputs (N, Y, X) for N times three slices (N, 3, Y, X) and their noise (N,)."""
    count, _, height, width = slices.shape
    maps = np.broadcast_to(sigma[:, None, None, None], (count, 1, height, width))
    x = torch.from_numpy(np.concatenate((slices, maps), 1).astype(np.float32) / np.float32(unit))
    x = functional.pad(x, (0, -width % _FACTOR, 0, -height % _FACTOR), mode="replicate")
    out = np.empty((count, *x.shape[2:]), np.float32)
    for rows, around_rows in _tiles(x.shape[2]):
        for columns, around_columns in _tiles(x.shape[3]):
            tile = x[:, :, around_rows, around_columns].contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                y = network(tile.to(device)).float().cpu().numpy()[:, 0]
            top, left = rows.start - around_rows.start, columns.start - around_columns.start
            bottom, right = top + rows.stop - rows.start, left + columns.stop - columns.start
            out[:, rows, columns] = y[:, top:bottom, left:right]
    return np.asarray(out[:, :height, :width] * np.float32(unit))


def slices_at_once(shape: tuple[int, ...], device: str) -> int:
    """How many slices (Y, X) a batch may have: what a quarter of the device's free memory holds.

    On a CPU a slice fills the cores by itself; small ones go by eight.
    """
    pixels = min(shape[0], CORE + 2 * HALO) * min(shape[1], CORE + 2 * HALO)
    if not device.startswith("cuda"):
        return max(1, min(8, 256 * 256 // max(1, pixels)))
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(64, free // 4 // (pixels * _BYTES_A_PIXEL))))


def spared(
    image: NDArray[np.float32], clean: NDArray[np.float32], body: NDArray[np.bool_], sigma: float
) -> NDArray[np.float32]:
    """What may be taken of the residual image − clean (Y, X): nothing at edges, half of its coarse part.

    An edge of several σ is certain, and what a network takes there is half sharpness. The noise of CT
    is mostly fine, a faint lesion of some mm is coarse: with half of the coarse part left, 59 % of a
    phantom's noise can go before a 3 mm disc has lost half of its contrast, and 51 % without this.
    """
    steps = ndimage.maximum_filter(clean, 3) - ndimage.minimum_filter(clean, 3)
    none, certain = _EDGE
    even = np.clip((certain - steps / np.float32(sigma)) / (certain - none), 0, 1)
    residual = (image - clean) * even * body
    # What lies beyond is an edge that the network blurs, and must not spread into what is beside it.
    within = np.float32(none * sigma)
    coarse = ndimage.gaussian_filter(np.clip(residual, -within, within), _COARSE)
    return np.asarray(residual - np.float32(1 - _OF_COARSE) * coarse, np.float32)


def bounded_change(
    residual: NDArray[np.float32],
    body: NDArray[np.bool_],
    sigma: float,
    strength: float,
    limit_sigma: float,
) -> NDArray[np.float32]:
    """What may be taken from a slice (Y, X): strength × the residual within ± limit_sigma × sigma HU.

    First the residual's mean over the body of every 32 × 32 tile is brought to 0. Pixels at the limit
    have no say in it: an edge that the network blurs must not shift the even tissue beside it.
    """
    # A float32's rounding in the subtraction must not cross the bound.
    limit = np.float32(limit_sigma * sigma * (1 - 1e-4))
    mean = _local_mean(np.clip(residual, -limit, limit), body)
    for _ in range(3):
        left = residual - mean
        mean += _local_mean(left, body & (np.abs(left) < limit))
    change = np.clip(residual - mean, -limit, limit) * body
    return np.asarray(change * np.float32(strength), np.float32)


def _local_mean(values: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The mean of `values` over the region of each tile, interpolated smoothly between tiles."""
    both = torch.from_numpy(np.stack((values * region, region.astype(np.float32)))[None])
    tiles = functional.avg_pool2d(both, _MEAN_TILE, ceil_mode=True, count_include_pad=False)
    mean = tiles[:, :1] / tiles[:, 1:].clamp(min=1e-3)
    height, width = values.shape
    size = (mean.shape[2] * _MEAN_TILE, mean.shape[3] * _MEAN_TILE)
    smooth = functional.interpolate(mean, size=size, mode="bilinear", align_corners=False)
    return np.asarray(smooth[0, 0, :height, :width].numpy(), np.float32)


def _tiles(length: int) -> Iterator[tuple[slice, slice]]:
    """Each tile's own pixels and, around them, what it sees."""
    core = length if length <= CORE + HALO else CORE
    for start in range(0, length, core):
        stop = min(start + core, length)
        yield slice(start, stop), slice(max(0, start - HALO), min(length, stop + HALO))


def _check(
    model: Model,
    volume: NDArray[np.float32],
    padding: NDArray[np.bool_],
    neighbours: NDArray[np.int64],
    strength: float,
    limit_sigma: float,
) -> None:
    if volume.ndim != 3 or padding.shape != volume.shape or neighbours.shape != (len(volume), 3):
        raise ValueError(
            f"volume {volume.shape}, padding {padding.shape} and neighbours {neighbours.shape} disagree"
        )
    if not np.isfinite(volume).all():
        raise ValueError("the volume holds values that are not finite")
    for name, value, ceiling in (
        ("strength", strength, model.card["max_strength"]),
        ("limit_sigma", limit_sigma, model.card["max_limit_sigma"]),
    ):
        if not 0 <= value <= ceiling:
            raise ValueError(f"{name} is {value:g}; this model allows 0 to {ceiling:g}")


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights laid out as the CPU's and the GPU's convolutions like them."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))

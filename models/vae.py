"""A variational autoencoder of prepared slices: codes, reconstructions, samples, and how novel a series is.

Five strided convolutions bring a slice to 128 numbers with a spread each (Kingma and Welling 2014). The
loss is the squared error over the foreground and β times the divergence from a unit Gaussian, which
grows during the warm-up so that the codes are used at all (Bowman et al. 2016). What it costs to code a
slice, the negative evidence bound, is its novelty: a word about a series, not a map of lesions.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.losses import pixel_error

WIDTHS = (16, 32, 64, 64, 64)
CODES = 128
BETA = 1e-3
_PART = 32  # slices at once


class VAE(nn.Module):
    """(B, 1, H, W) on a fixed canvas, sides divisible by 32, to codes (B, 128) and back."""

    def __init__(
        self, canvas: Sequence[int] = (128, 128), codes: int = CODES, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        step = 2 ** len(widths)
        if any(side % step for side in canvas):
            raise ValueError(f"a canvas of {canvas[0]} × {canvas[1]} is not divisible by {step}")
        self.canvas, self.codes, self.widths = (int(canvas[0]), int(canvas[1])), codes, tuple(widths)
        self.low = (widths[-1], canvas[0] // step, canvas[1] // step)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(min(8, after), after),
                nn.SiLU(),
            )
            for before, after in zip((1, *widths), widths, strict=False)
        )
        size = int(np.prod(self.low))
        self.code = nn.Linear(size, 2 * codes)
        self.decode = nn.Linear(codes, size)
        back = (*widths[::-1], widths[0])
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(min(8, after), after),
                nn.SiLU(),
            )
            for before, after in pairwise(back)
        )
        self.out = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.normal_(self.code.weight, std=0.01)

    def scales(self, image: Tensor) -> list[Tensor]:
        """The encoder's answer at every resolution, the finest first."""
        kept = []
        for block in self.down:
            image = block(image)
            kept.append(image)
        return kept

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and log-variance (B, codes) of the codes of images (B, 1, H, W)."""
        middle, spread = self.code(self.scales(image)[-1].flatten(1)).chunk(2, dim=1)
        return middle, spread.clamp(-12, 6)

    def draw(self, codes: Tensor) -> Tensor:
        """Images (B, 1, H, W) of codes (B, codes)."""
        x = self.decode(codes).view(-1, *self.low)
        for block in self.up:
            x = block(x)
        out: Tensor = self.out(x)
        return out

    def forward(self, image: Tensor) -> Tensor:
        """The image as its middle code draws it."""
        return self.draw(self.encode(image)[0])


def divergence(middle: Tensor, log_variance: Tensor) -> Tensor:
    """The Kullback-Leibler divergence (B,) of the codes from a unit Gaussian, in nats."""
    return 0.5 * (middle.square() + log_variance.exp() - 1 - log_variance).sum(1)


def vae_loss(network: VAE, clean: Tensor, mask: Tensor, weight: float | Tensor, kind: str = "mse") -> Tensor:
    """Error over the foreground and `weight` × the divergence a pixel; images and mask (B, 1, H, W).

    `kind` is one of models.losses.
    """
    middle, log_variance = network.encode(clean)
    codes = middle + torch.randn_like(middle) * (0.5 * log_variance).exp()
    drawn = network.draw(codes)
    error = pixel_error(drawn.float(), clean, kind) * mask
    per_image = error.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    share = divergence(middle.float(), log_variance.float()) / network.codes
    total: Tensor = (per_image + weight * share).mean()
    return total


def warm_up(step: int, steps: int, beta: float = BETA) -> float:
    """The divergence's weight: from 0 in a straight line to `beta` at a third of the steps."""
    return beta * min(1.0, 3 * step / max(1, steps))


def encode_slices(network: VAE, images: NDArray[np.float32], device: str = "cpu") -> NDArray[np.float32]:
    """Middle codes (N, codes) of prepared slices (N, H, W) on the network's canvas."""
    parts = torch.split(torch.from_numpy(images)[:, None], _PART)
    with torch.inference_mode():
        return np.concatenate([network.encode(part.to(device))[0].float().cpu().numpy() for part in parts])


def decode_codes(network: VAE, codes: NDArray[np.float32], device: str = "cpu") -> NDArray[np.float32]:
    """Images (N, H, W) of codes (N, codes)."""
    parts = torch.split(torch.from_numpy(codes), _PART)
    with torch.inference_mode():
        return np.concatenate([network.draw(part.to(device))[:, 0].float().cpu().numpy() for part in parts])


def novelty(
    network: VAE, images: NDArray[np.float32], masks: NDArray[np.bool_], device: str = "cpu"
) -> NDArray[np.float32]:
    """The negative evidence bound (N,) a foreground pixel of prepared slices (N, H, W), without sampling."""
    found = []
    with torch.inference_mode():
        for image, mask in zip(images, masks, strict=True):
            one = torch.from_numpy(image)[None, None].to(device)
            middle, log_variance = network.encode(one)
            wrong = (network.draw(middle) - one)[0, 0].float().cpu().numpy()
            error = float(np.square(wrong)[mask].mean()) if mask.any() else 0.0
            found.append(error + BETA * float(divergence(middle, log_variance)) / network.codes)
    return np.asarray(found, np.float32)


def interpolated(first: NDArray[np.float32], last: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Codes (steps, codes) on the great circle from one code to another: both ends stay as likely."""
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    lengths = np.linalg.norm(first), np.linalg.norm(last)
    cosine = float(first @ last) / max(float(lengths[0] * lengths[1]), 1e-9)
    angle = float(np.arccos(np.clip(cosine, -1, 1)))
    if angle < 1e-3:
        return np.asarray((1 - share) * first + share * last, np.float32)
    weights = np.sin((1 - share) * angle), np.sin(share * angle)
    return np.asarray((weights[0] * first + weights[1] * last) / np.sin(angle), np.float32)

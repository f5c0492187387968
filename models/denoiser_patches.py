"""Patches that a denoiser learns from, whatever the modality: noisy slices, the clean one, their noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.losses import pixel_error

MARGIN = 3  # pixels a made neighbour may be shifted by
NEIGHBOURS = ("repeated", "half", "adjacent", "other")  # what the slices beside a patch may be
SHARES = (0.35, 0.15, 0.3, 0.2)


@dataclass(frozen=True)
class Patches:
    """A batch in the network's unit."""

    noisy: torch.Tensor  # (B, 4, P, P) below, itself, above, and the map of σ
    clean: torch.Tensor  # (B, 1, P, P)
    sigma: torch.Tensor  # (B, 1, 1, 1) SD of what was added


def noise_loss(network: nn.Module, patches: Patches, kind: str = "mse") -> torch.Tensor:
    """Mean error in units of the noise that was added: for "mse" 1 is a network that does nothing."""
    device = next(network.parameters()).device
    noisy = patches.noisy.to(device, memory_format=torch.channels_last)
    wrong = (network(noisy).float() - patches.clean.to(device)) / patches.sigma.to(device)
    return pixel_error(wrong, torch.zeros_like(wrong), kind).mean()


def validation_of(held: Patches) -> Callable[[nn.Module], dict[str, float]]:
    """What measures a network on patches that are kept apart: their mean squared error, by parts."""
    tensors = (held.noisy, held.clean, held.sigma)
    parts = [Patches(*part) for part in zip(*(torch.split(tensor, 16) for tensor in tensors), strict=True)]

    def validate(network: nn.Module) -> dict[str, float]:
        return {"validation": float(np.mean([float(noise_loss(network, part)) for part in parts]))}

    return validate


def shifted(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A likely next slice: a blend of two small shifts of this one."""
    first, second = (np.roll(image, rng.integers(-MARGIN, MARGIN + 1, 2), (0, 1)) for _ in range(2))
    share = np.float32(rng.uniform(0, 1))
    return np.asarray(share * first + (1 - share) * second)


def inserts(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Soft discs (3, size, size) in HU for the slice, the one below and the one above.

    Most are in one slice only: small things that a network must neither copy nor average away.
    """
    field_ = np.zeros((3, size, size), np.float32)
    y, x = np.ogrid[:size, :size]
    for _ in range(rng.integers(0, 4)):
        row, column = rng.uniform(0, size, 2)
        radius = np.exp(rng.uniform(np.log(1.2), np.log(12)))
        contrast = rng.choice((-1, 1)) * np.exp(rng.uniform(np.log(5), np.log(120)))
        away = np.hypot(y - row, x - column)
        disc = contrast / (1 + np.exp((away - radius) / rng.uniform(0.25, 0.7)))
        seen = np.array(((1, 1, 1), (1, 0, 0), (0, 1, 1), (0, 1, 0)))[rng.choice(4, p=(0.3, 0.45, 0.15, 0.1))]
        field_ += disc * seen[:, None, None]
    return field_

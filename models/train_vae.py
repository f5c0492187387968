"""Teaching the variational autoencoder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.losses import pixel_error
from models.pca import fitted
from models.preparation import Prepared
from models.train import Progress, TrainResult, TrainSettings, fit, seconds_a_step, started
from models.train_anomaly import Pool, movement
from models.vae import (
    BETA,
    VAE,
    divergence,
    vae_loss,
    warm_up,
)

_BATCH = 32
Batch = tuple[torch.Tensor, torch.Tensor]  # clean, foreground, each (B, 1, H, W)
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Figures = dict[str, Any]


def vae_canvas(canvas: tuple[int, int]) -> tuple[int, int]:
    """The least canvas with sides divisible by 32."""
    return (-(-canvas[0] // 32) * 32, -(-canvas[1] // 32) * 32)


def train_vae(
    pool: Pool,
    held_out: Pool,
    settings: TrainSettings,
    run_folder: Path,
    *,
    arguments: Mapping[str, Any],
    describe: Mapping[str, Any],
    loss: str = "mse",
    initial: Mapping[str, torch.Tensor] | None = None,
    mirror: bool = False,
    compiled: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a VAE on `pool`; the best has the lowest cost (error and divergence) on `held_out`."""
    torch.manual_seed(settings.seed)
    weight = [0.0]
    costed = torch.compile(vae_loss) if compiled else vae_loss

    def draw(rng: np.random.Generator) -> Batch:
        chosen = torch.from_numpy(rng.choice(len(pool.weights), size=_BATCH, p=pool.weights))
        stack = torch.cat([pool.image[chosen], pool.foreground[chosen]], dim=1)
        stack = functional.grid_sample(stack, movement(stack, rng, mirror=mirror), align_corners=False)
        mask = (stack[:, 1:] > 0.5).float()
        return stack[:, :1] * mask, mask

    def cost(network: nn.Module, batch: Batch) -> torch.Tensor:
        assert isinstance(network, VAE)
        image, mask = (part.to(settings.device) for part in batch)
        # A tensor: compiled code is made once, and not for each number.
        value: torch.Tensor = costed(
            network, image, mask, torch.tensor(weight[0], device=settings.device), loss
        )
        return value

    def measured(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, VAE)
        parts = zip(
            torch.split(held_out.image, _BATCH), torch.split(held_out.foreground, _BATCH), strict=True
        )
        return {"held_out": float(np.concatenate([_costs(averaged, *part, loss) for part in parts]).mean())}

    def warm(step: int) -> None:
        weight[0] = warm_up(step, settings.steps)

    return fit(
        started(VAE(**arguments), initial),
        draw=draw,
        loss=cost,
        settings=settings,
        run_folder=run_folder,
        validate=measured,
        judged_by="held_out",
        describe=dict(describe),
        at_step=warm,
        progress=progress,
    )


def step_seconds(settings: TrainSettings, arguments: Mapping[str, Any]) -> float:
    """How long a step takes here (models.train.seconds_a_step)."""
    network = VAE(**arguments).to(settings.device)
    image = torch.zeros(_BATCH, 1, *network.canvas, device=settings.device)
    return seconds_a_step(settings, lambda: vae_loss(network, image, torch.ones_like(image), BETA))


def on_canvas(ready: Sequence[Prepared], canvas: tuple[int, int]) -> tuple[Image, Mask]:
    """Slices with enough foreground (N, H, W) and their foreground, on the network's canvas."""
    images, masks = [], []
    for case in ready:
        for plane, inside in zip(case.image, case.foreground, strict=True):
            if inside.mean() > 0.02:
                images.append(fitted(plane, canvas))
                masks.append(fitted(inside.astype(np.float32), canvas) > 0.5)
    if not images:
        raise ValueError("no slice with enough of the body part is left")
    return np.stack(images), np.stack(masks)


def _costs(network: VAE, image: torch.Tensor, mask: torch.Tensor, loss: str) -> NDArray[np.float32]:
    """Error and divergence of each slice, without sampling."""
    device = next(network.parameters()).device
    middle, spread = network.encode(image.to(device))
    error = pixel_error(network.draw(middle).float().cpu(), image, loss) * mask
    per_image = error.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    return (per_image + BETA * divergence(middle, spread).cpu() / network.codes).numpy()

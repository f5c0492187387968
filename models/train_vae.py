"""Teaching the variational autoencoder, and what its codes are worth: bytes, novelty, few labels."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import nn
from torch.nn import functional

from models.evaluate_images import auroc
from models.losses import pixel_error
from models.pca import fitted
from models.preparation import Prepared
from models.train import Progress, TrainResult, TrainSettings, fit, started
from models.train_anomaly import Pool, movement
from models.vae import (
    BETA,
    CODES,
    VAE,
    decode_codes,
    divergence,
    encode_slices,
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


def seconds_a_step(settings: TrainSettings, arguments: Mapping[str, Any]) -> float:
    """How long a step takes here, measured on three after a first one."""
    network = VAE(**arguments).to(settings.device)
    image = torch.zeros(_BATCH, 1, *network.canvas, device=settings.device)
    bfloat16 = settings.precision == "bfloat16"
    began = 0.0
    for _ in range(4):
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
            value = vae_loss(network, image, torch.ones_like(image), BETA)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        float(value.detach())  # waits for the device
        began = began or time.monotonic()
    return (time.monotonic() - began) / 3


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


def compression(
    network: VAE, images: Image, masks: Mask, bits: Sequence[int] = (2, 4, 8, 16)
) -> list[Figures]:
    """Bytes a slice against PSNR when codes are kept in so many bits, and of JPEG-like sizes to compare.

    A code is quantised evenly over ± 4 SD around its mean; the PSNR is over the foreground, of a range of 1.
    """
    codes = encode_slices(network, images)
    middle, spread = codes.mean(0), np.maximum(codes.std(0), 1e-6)
    rows = []
    for depth in bits:
        levels = 2**depth - 1
        whole = np.clip(np.rint(((codes - middle) / spread + 4) / 8 * levels), 0, levels)
        back = (whole / levels * 8 - 4) * spread + middle
        drawn = decode_codes(network, back.astype(np.float32))
        squared = np.array([np.square(d - i)[m].mean() for d, i, m in zip(drawn, images, masks, strict=True)])
        rows.append(
            {
                "bytes": codes.shape[1] * depth / 8,
                "bits_a_code": depth,
                "raw_bytes": int(np.prod(images.shape[1:])) * 2,
                "psnr_db": round(float(-10 * np.log10(np.maximum(squared, 1e-9)).mean()), 2),
            }
        )
    return rows


def probe(
    codes: NDArray[np.float32],
    pixels: NDArray[np.float32],
    abnormal: NDArray[np.bool_],
    people: Sequence[str],
    counts: Sequence[int] = (10, 20, 50, 100),
    repeats: int = 5,
    seed: int = 1,
) -> list[Figures]:
    """AUROC of a linear probe with few labels: on the codes, and on the pixels, trained from scratch.

    Half of the people are labelled, the other half judged; each count is drawn `repeats` times. Counts
    beyond the labelled half are left out.
    """
    rng = np.random.default_rng(seed)
    names = np.array(sorted(set(people)))
    rng.shuffle(names)
    labelled = np.isin(people, names[: len(names) // 2])
    rows = []
    for count in counts:
        if count > labelled.sum() or len(set(abnormal[labelled].tolist())) < 2:
            continue
        found: dict[str, list[float]] = {"codes": [], "pixels": []}
        for _ in range(repeats):
            chosen = _both_kinds(rng, np.flatnonzero(labelled), abnormal, count)
            for name, features in (("codes", codes), ("pixels", pixels)):
                scores = _logistic(features[chosen], abnormal[chosen], features[~labelled])
                found[name].append(auroc(scores, abnormal[~labelled]))
        rows.append(
            {"labels": count}
            | {f"auroc_{name}": round(float(np.mean(values)), 3) for name, values in found.items()}
        )
    return rows


def _both_kinds(
    rng: np.random.Generator, among: NDArray[np.intp], abnormal: NDArray[np.bool_], count: int
) -> NDArray[np.intp]:
    ill, well = among[abnormal[among]], among[~abnormal[among]]
    half = min(len(ill), max(1, count // 2))
    return np.concatenate((rng.permutation(ill)[:half], rng.permutation(well)[: count - half]))


def _logistic(known: Image, labels: NDArray[np.bool_], asked: Image) -> NDArray[np.float64]:
    """Scores of a ridge logistic regression on standardised features (N, D)."""
    mean, sd = known.mean(0), known.std(0) + 1e-6
    x = ((known - mean) / sd).astype(np.float64)
    sign = np.where(labels, 1.0, -1.0)

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (x @ weights[:-1] + weights[-1])
        pull = -sign * np.exp(-np.logaddexp(0, margin)) / len(x)
        ridge = 1.0 / x.shape[1]
        gradient = np.append(x.T @ pull + ridge * weights[:-1], pull.sum())
        value = np.logaddexp(0, -margin).mean() + ridge / 2 * np.square(weights[:-1]).sum()
        return float(value), gradient

    found = optimize.minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B")
    return np.asarray(((asked - mean) / sd) @ found.x[:-1] + found.x[-1], np.float64)


def _costs(network: VAE, image: torch.Tensor, mask: torch.Tensor, loss: str) -> NDArray[np.float32]:
    """Error and divergence of each slice, without sampling."""
    device = next(network.parameters()).device
    middle, spread = network.encode(image.to(device))
    error = pixel_error(network.draw(middle).float().cpu(), image, loss) * mask
    per_image = error.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    return (per_image + BETA * divergence(middle, spread).cpu() / CODES).numpy()

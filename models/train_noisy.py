"""Training of a denoiser without clean images: Neighbouring-Slice Noise2Noise (arXiv 2411.10831).

Two neighbouring slices show nearly the same anatomy with independent noise, so that the one is a target
for the other where they agree: places where their smooth parts differ by more than their noise explains
have no say. The network sees one slice only, thrice; at work its neighbours may then differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from models.cases import Case, kept_apart
from models.denoiser import BFRAE, channels_last
from models.intensity import INTENSITIES
from models.train import Progress, TrainingError, TrainResult, TrainSettings, compiled_if, fit, started

_SMOOTH = 3.0  # pixels: SD of the Gaussian whose difference tells anatomy from noise
_AGREE = 0.7  # σ: smooth parts that are nearer agree
_FEWEST = 0.3  # of a patch must agree
_FEWEST_PAIRS = 4


@dataclass(frozen=True)
class _Pair:
    """Two neighbours in the network's unit, and where they show the same."""

    image: NDArray[np.float32]  # (2, Y, X)
    sigma: float
    agree: NDArray[np.bool_]  # (Y, X)
    centres: NDArray[np.int32]  # (N, 2)


@dataclass(frozen=True)
class NoisyPatches:
    """A batch: one slice and its noise map in, the neighbour as target where they agree."""

    seen: torch.Tensor  # (B, 4, P, P)
    target: torch.Tensor  # (B, 1, P, P)
    agree: torch.Tensor  # (B, 1, P, P), 0 or 1
    sigma: torch.Tensor  # (B, 1, 1, 1)


def train_noisy(
    cases: Sequence[Case],
    modality: str,
    settings: TrainSettings,
    run_folder: Path,
    *,
    architecture: Mapping[str, Any],
    batch: int = 16,
    patch: int = 96,
    validation_people: float = 0.12,
    compiled: bool = False,
    initial: Mapping[str, torch.Tensor] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a BFRAE on pairs of neighbouring slices of noisy series.

    A share of the people only validates, where there are enough; settings.json tells how many.
    Raises TrainingError where too few neighbours agree well enough.
    """
    held_out = kept_apart(cases, validation_people, settings.seed)
    pairs: list[_Pair] = []
    apart: list[_Pair] = []
    for case in cases:
        (apart if case.person in held_out else pairs).extend(neighbour_pairs(case, modality, patch))
    if not apart or len(pairs) < _FEWEST_PAIRS:
        held_out, pairs, apart = set(), pairs + apart, []
    if len(pairs) < _FEWEST_PAIRS:
        raise TrainingError(
            f"{len(pairs)} pairs of neighbouring slices show the same, {_FEWEST_PAIRS} are needed: the "
            "slices are too thick or too far apart"
        )
    torch.manual_seed(settings.seed)
    held = draw_noisy(apart or pairs, np.random.default_rng([settings.seed, 1]), 4 * batch, patch)

    def validate(network: nn.Module) -> dict[str, float]:
        return {"validation": float(noisy_loss(network, held))}

    network = channels_last(started(BFRAE(**architecture), initial))
    stepped = compiled_if(compiled, network)
    return fit(
        network,
        draw=lambda rng: draw_noisy(pairs, rng, batch, patch),
        loss=lambda _, patches: noisy_loss(stepped, patches),
        settings=settings,
        run_folder=run_folder,
        validate=validate,
        judged_by="validation",
        describe={
            "pairs": len(pairs),
            "pairs_validating": len(apart),
            "people": len({case.person for case in cases} - held_out),
            "people_validating": len(held_out),
            "architecture": dict(architecture),
            "modality": modality,
            "patch": patch,
        },
        progress=progress,
    )


def neighbour_pairs(case: Case, modality: str, patch: int) -> list[_Pair]:
    """The pairs of a series whose neighbours are near, in the network's unit."""
    if case.neighbours is None or min(case.volume.shape[1:]) < patch:
        return []
    values = INTENSITIES[modality]
    body = values.body(case.volume, case.padding)
    unit, sigma = values.unit(case.volume, body), values.noise(case.volume, body)
    volume = values.network_input(case.volume, case.padding, unit) / np.float32(unit)
    found = []
    for z, (_, _, above) in enumerate(case.neighbours):
        level = float(sigma[z]) / unit
        if above == z or level <= 0:
            continue
        # White noise of two slices, smoothed, has this SD; anatomy that moved has more.
        smooth = ndimage.gaussian_filter(volume[above] - volume[z], _SMOOTH)
        agree = (np.abs(smooth) < _AGREE * level) & body[z] & body[above]
        share = ndimage.uniform_filter(agree.astype(np.float32), patch, mode="constant")
        half = patch // 2
        inner = np.zeros_like(agree)
        inner[half : agree.shape[0] - half + 1, half : agree.shape[1] - half + 1] = True
        centres = np.argwhere(inner & (share > _FEWEST)).astype(np.int32)
        if len(centres):
            found.append(_Pair(volume[[z, above]], level, agree, centres))
    return found


def draw_noisy(pairs: Sequence[_Pair], rng: np.random.Generator, count: int, patch: int) -> NoisyPatches:
    """`count` patches, either slice of a pair as the target, turned and mirrored."""
    seen, target, agree, sigma = [], [], [], []
    for _ in range(count):
        pair = pairs[int(rng.integers(len(pairs)))]
        row, column = pair.centres[rng.integers(len(pair.centres))] - patch // 2
        window = (slice(row, row + patch), slice(column, column + patch))
        order = int(rng.integers(2))
        planes = np.stack([pair.image[order][window], pair.image[1 - order][window], pair.agree[window]])
        planes = np.rot90(planes[:, :, ::-1] if rng.random() < 0.5 else planes, int(rng.integers(4)), (1, 2))
        level = pair.sigma * float(np.exp(rng.normal(0, 0.1)))
        seen.append(np.stack([planes[0]] * 3 + [np.full_like(planes[0], level)]))
        target.append(planes[1:2])
        agree.append(planes[2:3])
        sigma.append(pair.sigma)
    inputs, targets, places = (
        torch.from_numpy(np.stack(part).astype(np.float32)) for part in (seen, target, agree)
    )
    levels = torch.tensor(sigma, dtype=torch.float32)[:, None, None, None]
    return NoisyPatches(inputs, targets, places, levels)


def noisy_loss(network: nn.Module, patches: NoisyPatches) -> torch.Tensor:
    """Mean squared error to the neighbour where it agrees, in σ²: 1 is perfect, 2 is doing nothing."""
    device = next(network.parameters()).device
    drawn = network(patches.seen.to(device, memory_format=torch.channels_last)).float()
    wrong = (drawn - patches.target.to(device)) / patches.sigma.to(device)
    agree = patches.agree.to(device)
    value: torch.Tensor = (wrong.square() * agree).sum() / agree.sum().clamp(min=1)
    return value

"""Training of the MR denoiser: magnitudes of any contrast, Rician noise on them, all kinds of neighbours.

A series is its own unit (models.intensity). What is learned is the mean that a long average of noisy
scans would show: the floor that magnitudes have where there is little signal is kept, as every mean is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from models.cases import Case, kept_apart
from models.dead_leaves import dead_leaves
from models.denoiser import BFRAE, channels_last
from models.denoiser_patches import (
    MARGIN,
    NEIGHBOURS,
    SHARES,
    Patches,
    inserts,
    noise_loss,
    shifted,
    validation_of,
)
from models.intensity import INTENSITIES
from models.losses import OF_NOISE
from models.noise_mr import complex_noise, passed, rice_mean, rician
from models.train import Progress, TrainingError, TrainResult, TrainSettings, compiled_if, fit, started

_INSERT_UNIT = 400.0  # inserts are drawn in HU for CT; 120 HU there are 0.3 of the unit here
_SIGNAL = 0.08  # of the unit: below it a tone curve leaves background what it is
_RICE = np.linspace(0, 8, 401)  # of σ; above, Rice's mean is A + σ²/2A
_RICE_MEAN = rice_mean(_RICE, 1.0)


@dataclass(frozen=True, kw_only=True)
class MRDenoiserSettings:
    """What shapes the training of an MR denoiser."""

    train: TrainSettings
    batch: int = 16
    patch: int = 96
    noise: tuple[float, float] = (0.008, 0.2)  # SD in each channel, of the unit, log-uniform
    acquired: tuple[float, float] = (0.5, 1.0)  # share of k-space along each axis
    least_ratio: float = 2.5  # of the noise that is added to a slice's own
    clean_below: float = 0.05  # of the unit: slices with more noise of their own are no targets
    synthetic_slices: int = 48
    synthetic_size: int = 256
    synthetic_share: float = 0.5  # of the patches: real slices have noise of their own, which is learned too
    tones: float = 0.6  # share of patches that are given another contrast
    validation_people: float = 0.12
    loss: str = "mse"  # or "charbonnier", of the error over the noise that was added
    architecture: dict[str, Any] = field(default_factory=dict)  # arguments of BFRAE

    def __post_init__(self) -> None:
        if self.loss not in OF_NOISE:
            raise ValueError(f"a denoiser is trained with {' or '.join(OF_NOISE)}, not {self.loss}")
        if self.patch % 8 or self.patch + 2 * MARGIN > self.synthetic_size:
            raise ValueError(
                f"patches of {self.patch} are not multiples of 8 that fit into {self.synthetic_size} pixels"
            )


@dataclass
class _Slice:
    image: NDArray[np.float32]  # (Y, X) in the unit
    own_noise: float
    inside: NDArray[np.int32]  # (N, 2) where patches may be centred
    beside: list[NDArray[np.float32] | None]  # real neighbours below and above


def train_mr_denoiser(
    cases: Sequence[Case],
    settings: MRDenoiserSettings,
    run_folder: Path,
    progress: Callable[[Progress], None] | None = None,
    initial: Mapping[str, torch.Tensor] | None = None,
    compiled: bool = False,
) -> TrainResult:
    """Train a BFRAE on the clean slices of MR cases, and go on where a run in `run_folder` stopped.

    Part of the people only validate; settings.json tells how many. Without cases it learns from dead
    leaves alone; `initial` weights are fine-tuned. Raises TrainingError when the cases hold no clean slice.
    """
    held_out = kept_apart(cases, settings.validation_people, settings.train.seed)
    training: list[_Slice] = []
    validation: list[_Slice] = []
    for case in sorted(cases, key=lambda case: case.person):
        (validation if case.person in held_out else training).extend(_clean_slices(case, settings))
    if cases and not training:
        raise TrainingError(f"no slice has noise of its own below {settings.clean_below:g} of its unit")
    made = [_synthetic(settings, settings.train.seed * 10_000 + n) for n in range(settings.synthetic_slices)]
    kept = made[: max(1, len(made) // 8)]
    held = _Source(validation, kept, settings).draw(np.random.default_rng(settings.train.seed + 1), 96)
    source = _Source(training, made[len(kept) :] or made, settings)

    torch.manual_seed(settings.train.seed)
    network = channels_last(started(BFRAE(**settings.architecture), initial))
    stepped = compiled_if(compiled, network)
    return fit(
        network,
        draw=lambda generator: source.draw(generator, settings.batch),
        loss=lambda _, patches: noise_loss(stepped, patches, settings.loss),
        settings=settings.train,
        run_folder=run_folder,
        validate=validation_of(held),
        judged_by="validation",
        describe=asdict(settings)
        | {
            "people": len({case.person for case in cases} - held_out),
            "people_validating": len(held_out),
            "slices": len(training),
            "slices_validating": len(validation),
        },
        progress=progress,
    )


def toned(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The slices with another contrast: brightness bent, or turned over as T2 does to T1.

    Values up to 1; what is background stays.
    """
    knots = np.array([0.0, 0.15, 0.35, 0.6, 0.85, 1.1])
    heights = np.sort(rng.uniform(0.1, 1.0, len(knots) - 1))
    if rng.random() < 0.4:
        heights = heights[::-1]
    curve = np.interp(image, knots, np.concatenate(([0.0], heights)))
    # The first part leads to any height: background must not become a rim of tissue.
    kept = np.clip(image / _SIGNAL, 0, 1)
    return np.asarray(kept * curve + (1 - kept) * image, np.float32)


class _Source:
    """Slices from which noisy patches are drawn."""

    def __init__(self, real: list[_Slice], made: list[_Slice], settings: MRDenoiserSettings) -> None:
        self.real, self.made, self.settings = real, made, settings

    def draw(self, rng: np.random.Generator, count: int) -> Patches:
        """`count` patches with noise, neighbours and inserts."""
        noisy, clean, sigma, level = (
            np.stack(parts) for parts in zip(*(self._patch(rng) for _ in range(count)), strict=True)
        )
        maps = np.broadcast_to(level[:, None, None, None], (count, 1, *noisy.shape[2:]))
        return Patches(
            torch.from_numpy(np.concatenate((noisy, maps), 1).astype(np.float32)),
            torch.from_numpy(clean.astype(np.float32)),
            torch.from_numpy(sigma.astype(np.float32))[:, None, None, None],
        )

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], Any, Any]:
        settings = self.settings
        made = not self.real or (bool(self.made) and rng.random() < settings.synthetic_share)
        pool = self.made if made else self.real
        item = pool[rng.integers(len(pool))]
        stack, slope, repeated = self._slices(rng, item, pool)
        low, high = settings.noise
        floor = max(low, min(settings.least_ratio * item.own_noise * slope, high / 2))
        sigma = float(np.exp(rng.uniform(np.log(floor), np.log(high))))
        first, second = (float(share) for share in rng.uniform(*settings.acquired, 2))
        acquired = (1.0, 1.0) if rng.random() < 0.4 else (first, second)
        # Noise is stronger far from the coils and after parallel imaging.
        uneven = np.exp(ndimage.zoom(rng.normal(0, 0.15, (3, 3)), stack.shape[-1] / 3, order=1))
        noise = complex_noise(stack.shape, acquired, rng)
        # A slice without a neighbour stands in for it with the noise it has; two samples would be worth more.
        noise[repeated] = noise[0]
        noisy = rician(stack, np.float32(sigma) * uneven.astype(np.float32), noise)
        wanted = _rice(stack[:1], sigma * uneven)
        both = np.concatenate((noisy, wanted))[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        turn, mirror = int(rng.integers(4)), rng.random() < 0.5
        both = np.rot90(both[:, :, ::-1] if mirror else both, turn, (1, 2))[[1, 0, 2, 3]]
        estimated = np.hypot(sigma * passed(acquired), item.own_noise * slope) * np.exp(rng.normal(0, 0.15))
        return both[:3], both[3:], np.float64(sigma), np.float64(estimated)

    def _slices(
        self, rng: np.random.Generator, item: _Slice, pool: list[_Slice]
    ) -> tuple[NDArray[np.float32], float, list[int]]:
        """Itself, below, above (3, P, P) without noise; by how much their own noise was stretched; and
        which of the others are itself again.
        """
        wide = self.settings.patch + 2 * MARGIN
        centre = item.inside[rng.integers(len(item.inside))]
        window = tuple(
            slice(start, start + wide)
            for start in np.clip(centre - wide // 2, 0, np.array(item.image.shape) - wide)
        )
        spots = inserts(rng, wide) / np.float32(_INSERT_UNIT)
        kind = rng.choice(NEIGHBOURS, p=SHARES)
        stack = [item.image[window] + spots[0]]
        repeated = []
        for side in range(2):
            beside = item.beside[side]
            if kind == "repeated" or (kind == "half" and side == 0):
                stack.append(stack[0])
                repeated.append(1 + side)
            elif kind == "other":
                if beside is None:
                    stranger = pool[rng.integers(len(pool))].image
                    beside = stranger if stranger.shape == item.image.shape else item.image
                stack.append(beside[window] + spots[1 + side])
            else:
                stack.append(shifted(rng, item.image[window]) + spots[1 + side])
        whole = np.maximum(np.stack(stack), 0)
        if rng.random() >= self.settings.tones:
            return np.asarray(whole * np.float32(rng.uniform(0.8, 1.2)), np.float32), 1.0, repeated
        bent = toned(whole, rng)
        before, after = (float(np.std(np.diff(image, axis=-1))) for image in (whole, bent))
        return bent, max(0.3, after / max(before, 1e-6)), repeated


def _rice(magnitude: NDArray[np.float32], sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    ratio = magnitude / sigma
    near = np.interp(ratio, _RICE, _RICE_MEAN)
    return np.asarray(
        sigma * np.where(ratio < _RICE[-1], near, ratio + 0.5 / np.maximum(ratio, 1)), np.float32
    )


def _clean_slices(case: Case, settings: MRDenoiserSettings) -> list[_Slice]:
    """The slices of a case that can be targets, in its unit, with their neighbours among them.

    Each comes twice: as it is, and at half the size, where its own noise is half.
    """
    values = INTENSITIES["MR"]
    body = values.body(case.volume, case.padding)
    unit = values.unit(case.volume, body)
    volume = values.network_input(case.volume, case.padding, unit) / np.float32(unit)
    height, width = (side - side % 2 for side in volume.shape[1:])
    half = volume[:, :height, :width].reshape(-1, height // 2, 2, width // 2, 2).mean((2, 4))
    return [
        *_targets(volume, body, case, settings),
        *_targets(half, body[:, :height:2, :width:2], case, settings),
    ]


def _targets(
    volume: NDArray[np.float32], body: NDArray[np.bool_], case: Case, settings: MRDenoiserSettings
) -> list[_Slice]:
    own = INTENSITIES["MR"].noise(volume, body)
    wide = settings.patch + 2 * MARGIN
    spare = [max(0, wide - side) for side in volume.shape[1:]]
    around = ((0, 0), *((share // 2, share - share // 2) for share in spare))
    volume, body = np.pad(volume, around), np.pad(body, around)
    kept: dict[int, _Slice] = {}
    for z, image in enumerate(volume):
        inside = np.argwhere(body[z]).astype(np.int32)
        if len(inside) >= 200 and 0 < own[z] < settings.clean_below:
            kept[z] = _Slice(image, float(own[z]), inside, [None, None])
    for z, item in kept.items():
        beside = (z - 1, z, z + 1) if case.neighbours is None else case.neighbours[z]
        for side, other in enumerate((int(beside[0]), int(beside[2]))):
            if other != z and other in kept:
                item.beside[side] = kept[other].image
    return list(kept.values())


def _synthetic(settings: MRDenoiserSettings, seed: int) -> _Slice:
    """A made slice: leaves in any tone, air dark."""
    rng = np.random.default_rng(seed)
    leaves = dead_leaves(settings.synthetic_size, seed)
    raised = np.clip((leaves + 1000) / np.float32(np.percentile(leaves, 99.5) + 1000), 0, 1)
    image = toned(np.asarray(raised, np.float32), rng)
    inside = np.argwhere(leaves > -900).astype(np.int32)
    return _Slice(image, 0.0, inside, [None, None])

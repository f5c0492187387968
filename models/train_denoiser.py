"""Training of the denoiser: clean slices, simulated noise on them, and all kinds of neighbours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
from models.intensity import HU_UNIT, body_mask
from models.losses import OF_NOISE
from models.noise import ct_noise, estimate_noise
from models.train import Progress, TrainingError, TrainResult, TrainSettings, compiled_if, fit, started

KERNELS = (0.55, 0.8, 1.1, 1.8)  # Hann cut-offs from soft to sharp
_SPACINGS = np.array([0.6, 0.7, 0.8, 0.9, 0.98])  # mm: slices are simulated in groups
_SYNTHETIC_PERSON = "dead leaves"


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
    """What shapes the training of a denoiser."""

    train: TrainSettings
    batch: int = 16
    patch: int = 96
    size: int = 512  # slices are cut or filled with air to this square
    clean_below: float = 16.0  # HU: slices with more noise of their own are no targets
    synthetic_slices: int = 64
    synthetic_share: float = 0.35  # of the patches
    realisations: int = 2  # of the noise of each slice
    views: int = 360
    noise: tuple[float, float] = (4.0, 80.0)  # SD in HU, log-uniform
    least_ratio: float = 1.5  # of the noise that is added to a slice's own
    validation_people: float = 0.12
    loss: str = "mse"  # or "charbonnier", of the error over the noise that was added
    architecture: dict[str, Any] = field(default_factory=dict)  # arguments of BFRAE

    def __post_init__(self) -> None:
        if self.loss not in OF_NOISE:
            raise ValueError(f"a denoiser is trained with {' or '.join(OF_NOISE)}, not {self.loss}")
        if self.patch % 8 or self.patch + 2 * MARGIN > self.size // 2:
            raise ValueError(
                f"patches of {self.patch} are not multiples of 8 that fit into half of {self.size} pixels"
            )


@dataclass
class _Slice:
    image: NDArray[np.float32]  # (size, size) HU
    spacing: float
    own_noise: float
    inside: NDArray[np.int32]  # (N, 2) where patches may be centred
    beside: list[NDArray[np.float32] | None] = field(default_factory=lambda: [None, None])  # real neighbours
    noise: NDArray[np.float16] = field(default_factory=lambda: np.empty(0, np.float16))  # (R, K, Y, X), SD 1


def train_denoiser(
    cases: Sequence[Case],
    settings: DenoiserSettings,
    run_folder: Path,
    progress: Callable[[Progress], None] | None = None,
    prepared: Callable[[int, int], None] | None = None,
    initial: Mapping[str, torch.Tensor] | None = None,
    compiled: bool = False,
) -> TrainResult:
    """Train a BFRAE on the clean slices of CT cases in HU, and go on where a run in `run_folder` stopped.

    Part of the people only validate; settings.json tells how many. `prepared` gets how many slices have
    their simulated noise, and how many will; `initial` weights are fine-tuned. Without cases it learns
    from dead leaves alone. Raises TrainingError when the cases hold no clean slice.
    """
    held_out = kept_apart(cases, settings.validation_people, settings.train.seed)
    training: list[_Slice] = []
    validation: list[_Slice] = []
    for case in sorted(cases, key=lambda case: case.person):
        (validation if case.person in held_out else training).extend(_clean_slices(case, settings))
    if cases and not training:
        raise TrainingError(f"no slice has less than {settings.clean_below:g} HU of noise of its own")
    made = [_synthetic(settings, settings.train.seed * 10_000 + n) for n in range(settings.synthetic_slices)]
    kept_made = made[: len(made) // 8] if len(made) >= 8 else []
    banks = (
        _Bank(training, made[len(kept_made) :], settings),
        _Bank(validation, kept_made or made, settings),
    )
    total, done = sum(len(bank.slices) for bank in banks), 0
    run_folder.mkdir(parents=True, exist_ok=True)
    for bank in banks:
        for count in bank.add_noise(settings.train.seed, run_folder):
            done += count
            if prepared is not None:
                prepared(done, total)
    held = banks[1].draw(np.random.default_rng(settings.train.seed + 1), 96)

    description = asdict(settings) | {
        "people": len({case.person for case in cases} - held_out),
        "people_validating": len(held_out),
        "slices": len(banks[0].real),
        "slices_validating": len(banks[1].real),
        "kernels": KERNELS,
    }
    torch.manual_seed(settings.train.seed)
    network = channels_last(started(BFRAE(**settings.architecture), initial))
    stepped = compiled_if(compiled, network)
    return fit(
        network,
        draw=lambda generator: banks[0].draw(generator, settings.batch),
        loss=lambda _, patches: noise_loss(stepped, patches, settings.loss),
        settings=settings.train,
        run_folder=run_folder,
        validate=validation_of(held),
        judged_by="validation",
        describe=description,
        progress=progress,
    )


class _Bank:
    """Slices with noise in store, from which patches are drawn."""

    def __init__(self, real: list[_Slice], made: list[_Slice], settings: DenoiserSettings) -> None:
        self.real, self.made, self.slices, self.settings = real, made, real + made, settings

    def add_noise(self, seed: int, folder: Path) -> Iterator[int]:
        """Simulate all slices' noise in groups of one spacing; yields how many each group has.

        It is kept in `folder`, so that a run that goes on need not simulate again.
        """
        store = folder / f"noise-{self._digest(seed)}.npz"
        if store.exists():
            with np.load(store) as kept:
                for n, item in enumerate(self.slices):
                    item.noise = kept[str(n)]
            yield len(self.slices)
            return
        groups: dict[tuple[int, float], list[_Slice]] = {}
        for item in self.slices:
            nearest = float(_SPACINGS[np.abs(_SPACINGS - item.spacing).argmin()])
            groups.setdefault((len(item.image), nearest), []).append(item)
        each = max(1, 24 // (len(KERNELS) * self.settings.realisations))
        for (size, spacing), members in sorted(groups.items()):
            for start in range(0, len(members), each):
                part = members[start : start + each]
                self._simulate(part, spacing, [seed, size, round(spacing * 100), start])
                yield len(part)
        temporary = store.with_suffix(".part")
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **{str(n): item.noise for n, item in enumerate(self.slices)})
        temporary.replace(store)

    def _digest(self, seed: int) -> str:
        known = sha256(repr((seed, self.settings.realisations, self.settings.views, KERNELS)).encode())
        for item in self.slices:
            known.update(item.image.tobytes())
        return known.hexdigest()[:16]

    def _simulate(self, part: list[_Slice], spacing: float, seed: list[int]) -> None:
        rng = np.random.default_rng(seed)
        repeats = self.settings.realisations
        images = np.stack([item.image for item in part for _ in range(repeats)])
        dose = np.exp(rng.uniform(np.log(0.1), 0, len(images)))
        noise = ct_noise(
            images,
            spacing,
            dose=dose.tolist(),
            seed=int(rng.integers(2**31)),
            cutoffs=KERNELS,
            views=self.settings.views,
        )
        for n, item in enumerate(part):
            fields = noise[:, n * repeats : (n + 1) * repeats].swapaxes(0, 1)
            inside = fields[..., item.inside[:, 0], item.inside[:, 1]]
            item.noise = (fields / inside.std(-1)[..., None, None]).astype(np.float16)

    def draw(self, rng: np.random.Generator, count: int) -> Patches:
        """`count` patches with noise, neighbours and inserts."""
        drawn = [self._patch(rng) for _ in range(count)]
        noisy, clean, sigma, level = (np.stack(parts) for parts in zip(*drawn, strict=True))
        maps = np.broadcast_to(level[:, None, None, None], (count, 1, *noisy.shape[2:]))
        whole = np.concatenate((noisy, maps), 1).astype(np.float32) / np.float32(HU_UNIT)
        return Patches(
            torch.from_numpy(whole),
            torch.from_numpy((clean / HU_UNIT).astype(np.float32)),
            torch.from_numpy((sigma / HU_UNIT).astype(np.float32))[:, None, None, None],
        )

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], Any, Any]:
        made = not self.real or (bool(self.made) and rng.random() < self.settings.synthetic_share)
        item = (self.made if made else self.real)[rng.integers(len(self.made if made else self.real))]
        patch = self.settings.patch
        wide = patch + 2 * MARGIN
        centre = item.inside[rng.integers(len(item.inside))]
        top, left = np.clip(centre - wide // 2, 0, item.image.shape[0] - wide)
        window = (slice(top, top + wide), slice(left, left + wide))
        kernel, shown = rng.integers(len(KERNELS)), rng.integers(item.noise.shape[0])
        low, high = self.settings.noise
        sigma = float(
            np.exp(rng.uniform(np.log(max(low, self.settings.least_ratio * item.own_noise)), np.log(high)))
        )
        kind = rng.choice(NEIGHBOURS, p=SHARES)
        drawn = inserts(rng, wide)
        clean = [item.image[window] + drawn[0]]
        noise = [item.noise[shown, kernel][window]]
        for side in range(2):
            if kind == "repeated" or (kind == "half" and side == 0):
                clean.append(clean[0])
                noise.append(noise[0])
                continue
            stranger = self.slices[rng.integers(len(self.slices))]
            while len(stranger.image) != len(item.image):
                stranger = self.slices[rng.integers(len(self.slices))]
            if kind == "other":
                beside = item.beside[side]
                clean.append((stranger.image if beside is None else beside)[window] + drawn[1 + side])
            else:
                clean.append(shifted(rng, item.image[window]) + drawn[1 + side])
            # The realisations of a slice are independent; where there is no other, a stranger's is.
            spare = item if side == 0 and len(item.noise) > 1 else stranger
            noise.append(spare.noise[(shown + 1) % len(spare.noise), kernel][window])
        stack = np.stack(clean) * rng.uniform(0.85, 1.15) + rng.normal(0, 15)
        stack = np.maximum(stack, -1024)
        noisy = np.maximum(stack + np.stack(noise).astype(np.float32) * (sigma * rng.choice((-1, 1))), -1024)
        inner = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        turn, mirror = int(rng.integers(4)), rng.random() < 0.5
        both = np.concatenate((noisy, stack[:1]))[(slice(None), *inner)]
        both = np.rot90(both[:, :, ::-1] if mirror else both, turn, (1, 2))[[1, 0, 2, 3]]
        level = np.hypot(sigma, item.own_noise) * np.exp(rng.normal(0, 0.15))
        return both[:3], both[3:], np.float64(sigma), np.float64(level)


def _clean_slices(case: Case, settings: DenoiserSettings) -> list[_Slice]:
    """The slices of a case that can be targets, with their neighbours among them.

    Each comes twice: as it is, and at half the size with the same spacing, as a small person of half
    the noise would look; routine doses are far from free of noise.
    """
    kept: dict[int, list[_Slice]] = {}
    for z, image in enumerate(case.volume):
        padding = _square(case.padding[z], settings.size, True)
        filled = _square(image, settings.size, -1000)
        filled = np.maximum(np.where(padding, np.float32(-1000), filled), np.float32(-1024))
        half = filled.reshape(settings.size // 2, 2, settings.size // 2, 2).mean((1, 3))
        body = body_mask(filled[None], padding[None])[0]
        if 0 < _own_noise(filled, body) < settings.clean_below:
            kept[z] = [
                _slice(filled, body, case.spacing[1]),
                _slice(half, body[::2, ::2], case.spacing[1]),
            ]
    for z, pair in kept.items():
        around = (z, z, z) if case.neighbours is None else case.neighbours[z]
        for side, other in enumerate((int(around[0]), int(around[2]))):
            if other != z and other in kept:
                for item, beside in zip(pair, kept[other], strict=True):
                    item.beside[side] = beside.image
    return [item for pair in kept.values() for item in pair]


def _slice(image: NDArray[np.float32], body: NDArray[np.bool_], spacing: float) -> _Slice:
    return _Slice(image, spacing, _own_noise(image, body), np.argwhere(body).astype(np.int32))


def _own_noise(image: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    return float(estimate_noise(image[None], body[None])[0])


def _synthetic(settings: DenoiserSettings, seed: int) -> _Slice:
    image = dead_leaves(settings.size, seed)
    inside = np.argwhere(body_mask(image[None], np.zeros((1, *image.shape), bool))[0])
    spacing = float(np.random.default_rng(seed).choice(_SPACINGS))
    return _Slice(image, spacing, 0.0, inside.astype(np.int32))


def _square(image: NDArray[Any], size: int, fill: float) -> NDArray[Any]:
    """The middle of an image in a square of `size`, filled around."""
    for axis in (0, 1):
        spare = image.shape[axis] - size
        if spare > 0:
            image = np.take(image, np.arange(spare // 2, spare // 2 + size), axis)
        elif spare < 0:
            before = -spare // 2
            widths = [(0, 0), (0, 0)]
            widths[axis] = (before, -spare - before)
            image = np.pad(image, widths, constant_values=fill)
    return image

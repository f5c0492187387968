"""Teaching the anomaly network: coarse noise is laid on normal images, and it learns to take it off.

Kascenas, Pugeault and O'Neil 2022 ("Denoising autoencoders for unsupervised anomaly detection in
brain MRI"): the noise has the size of lesions, so that at test time a lesion is taken off as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models import calibration
from models.anomaly import CoarseDAE, errors
from models.cases import Case
from models.losses import pixel_error
from models.pca import fitted
from models.preparation import Contract, OutsideDomain, Prepared, prepare
from models.train import Progress, TrainResult, TrainSettings, compiled_if, fit, seconds_a_step, started

ARCHITECTURE: dict[str, Any] = {"id": "coarse-dae", "arguments": {"widths": [24, 48, 96, 192], "groups": 8}}
INPUTS: dict[str, dict[str, Any]] = {
    "ct-anomaly": {
        "modality": "CT",
        "plane": "axial",
        "body_part": "chest or abdomen",
        "pixel_mm": 2.0,
        "canvas": [168, 216],
        "foreground": "body",
        "erode": 3,
        "median": 3,
        "shading_mm": 0,
        "tissues": True,
        "sign": 1,
        # Lung, soft tissue and bone each get a share of 0…1 that fits what is looked for there.
        "normalisation": {"knots": [-1000, -200, 250, 1200], "values": [0.0, 0.35, 0.85, 1.0]},
    },
    "brain-mr-anomaly": {
        "modality": "MR",
        "plane": "axial",
        "body_part": "brain, extracted",
        "contrast": "T1-weighted, no contrast agent",
        "pixel_mm": 1.25,
        "canvas": [152, 128],
        "foreground": "brain",
        "erode": 3,
        "median": 3,
        "shading_mm": 20,
        "tissues": False,
        "sign": -1,
        "normalisation": {"percentiles": [1, 10, 25, 50, 75, 90, 99.5], "values": []},
    },
    "chest-xray-anomaly": {
        "modality": "DX",
        "plane": "frontal",
        "body_part": "chest",
        "pixel_mm": 2.0,
        "canvas": [128, 128],
        "foreground": "film",
        "erode": 8,
        "median": 5,
        "shading_mm": 0,
        "tissues": False,
        "sign": 1,
        "quantile": 90,
        "normalisation": {"percentiles": [1, 10, 25, 50, 75, 90, 99.5], "values": []},
    },
}
MIRRORED = frozenset({"brain-mr-anomaly"})  # left and right look alike; the body's organs do not
# A nodule in a lung is far outside of Gaussian noise: without blobs the network keeps it as a vessel.
_BLOBS = {"ct-anomaly": 0.67, "chest-xray-anomaly": 0.5}
_CELLS = {"chest-xray-anomaly": (8, 16, 24)}  # consolidations are larger than lesions of a brain
FALSE_POSITIVE_RATE = 0.005
_BATCH = 8


@dataclass(frozen=True)
class NoiseSettings:
    """The coarse noise, in normalised units and pixels of the training grid."""

    sd: float = 0.2
    cells: tuple[int, ...] = (4, 8, 12)  # pixels from one drawn value to the next
    fine_sd: float = 0.02  # at most; fine noise makes other scanners' grain familiar
    blobs: float = 0.0  # share of slices with bright blobs, half of them with nothing else
    blob_height: tuple[float, float] = (0.15, 0.8)


def contract_for(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    """The "input" of a new model's card; landmarks of intensity are learned from the cases."""
    words = {**INPUTS[name], "normalisation": dict(INPUTS[name]["normalisation"])}
    rule = words["normalisation"]
    if "percentiles" in rule:
        ends = {"percentiles": [rule["percentiles"][0], rule["percentiles"][-1]], "values": [0.05, 0.95]}
        contract = Contract.of({"input": {**words, "normalisation": ends}})
        found = [
            np.percentile(ready.image[ready.foreground], rule["percentiles"])
            for ready in prepare_cases(cases, contract)[0]
        ]
        rule["values"] = [round(float(v), 4) for v in np.mean(found, axis=0)]
    return words


def prepare_cases(cases: Sequence[Case], contract: Contract) -> tuple[list[Prepared], list[str]]:
    """Every case on the network's canvas, and a sentence for each that was left out."""
    ready, notes = [], []
    for case in cases:
        try:
            ready.append(prepare(case.volume, case.padding, case.spacing, contract))
        except OutsideDomain as error:
            notes.append(f"{case.source}: a case of {len(case.volume)} slices is left out: {error}")
    return ready, notes


@dataclass(frozen=True)
class Pool:
    """Training slices on one canvas."""

    image: Tensor  # (N, 1, H, W)
    foreground: Tensor  # (N, 1, H, W), 0 or 1
    weights: NDArray[np.float64]  # (N,), so that each case has the same say up to 8 slices' worth

    @classmethod
    def of(cls, ready: Sequence[Prepared], canvas: tuple[int, int]) -> "Pool":
        """Lay every slice with enough foreground onto `canvas`, centred; what exceeds it is cut."""
        images, masks, weights = [], [], []
        for case in ready:
            kept = [k for k, plane in enumerate(case.foreground) if plane.mean() > 0.02]
            for k in kept:
                images.append(fitted(case.image[k], canvas))
                masks.append(fitted(case.foreground[k].astype(np.float32), canvas))
                weights.append(min(1.0, 8 / len(kept)))
        if not images:
            raise ValueError("no slice to train on is left")
        share = np.array(weights) / np.sum(weights)
        return cls(
            torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(masks))[:, None], share
        )


Batch = tuple[Tensor, Tensor, Tensor]  # noisy, clean, foreground, each (B, 1, H, W)


def draw(pool: Pool, rng: np.random.Generator, noise: NoiseSettings, *, mirror: bool) -> Batch:
    """A batch: slices moved, turned and re-lit at random, with coarse noise on the foreground."""
    chosen = torch.from_numpy(rng.choice(len(pool.weights), size=_BATCH, p=pool.weights))
    stack = torch.cat([pool.image[chosen], pool.foreground[chosen]], dim=1)
    stack = functional.grid_sample(stack, movement(stack, rng, mirror=mirror), align_corners=False)
    mask = (stack[:, 1:] > 0.5).float()
    gamma = torch.from_numpy(rng.uniform(0.9, 1.1, (_BATCH, 1, 1, 1)).astype(np.float32))
    clean = stack[:, :1].clamp(0, 1).pow(gamma) * mask
    return add_coarse_noise(clean, mask, rng, noise), clean, mask


def add_coarse_noise(clean: Tensor, mask: Tensor, rng: np.random.Generator, noise: NoiseSettings) -> Tensor:
    """Noise drawn on a coarse grid, upsampled, rolled by a random shift, on the foreground only."""
    count, _, height, width = clean.shape
    noisy = clean.clone()
    for k in range(count):
        cell = int(rng.choice(noise.cells))
        grid = rng.normal(0, noise.sd, (1, 1, -(-height // cell), -(-width // cell))).astype(np.float32)
        coarse = functional.interpolate(
            torch.from_numpy(grid), scale_factor=float(cell), mode="bilinear", align_corners=False
        )
        shift = (int(rng.integers(cell)), int(rng.integers(cell)))
        field = torch.roll(coarse, shift, dims=(2, 3))[0, :, :height, :width]
        draw_blobs = noise.blobs > 0 and rng.random() < noise.blobs
        if not draw_blobs or rng.random() < 0.5:
            noisy[k] += field
        if draw_blobs:
            # The peaks of the field, made steep: patches of irregular shape, a tenth of the area.
            peaks = ((field / noise.sd - rng.uniform(0.7, 1.3)) / 0.3).clamp(0, 1)
            noisy[k] += peaks * float(rng.uniform(*noise.blob_height))
        fine = rng.normal(0, rng.uniform(0, noise.fine_sd), (1, height, width)).astype(np.float32)
        noisy[k] += torch.from_numpy(fine)
    return noisy * mask


def masked_error(network: nn.Module, batch: Batch, kind: str = "mse") -> Tensor:
    """Mean error over the foreground; `kind` is one of models.losses."""
    device = next(network.parameters()).device
    noisy, clean, mask = (part.to(device) for part in batch)
    drawn = network(noisy).float()
    value: Tensor = (pixel_error(drawn, clean, kind) * mask).sum() / mask.sum().clamp(min=1)
    return value


def train(
    name: str,
    pool: Pool,
    held_out: Pool,
    settings: TrainSettings,
    run_folder: Path,
    *,
    describe: Mapping[str, Any],
    noise: NoiseSettings | None = None,
    compiled: bool = False,
    loss: str = "mse",
    initial: Mapping[str, Tensor] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a network of ARCHITECTURE on `pool`; the best is the lowest error on `held_out`."""
    noise = noise or NoiseSettings(blobs=_BLOBS.get(name, 0.0), cells=_CELLS.get(name, NoiseSettings.cells))
    torch.manual_seed(settings.seed)
    network = CoarseDAE(**ARCHITECTURE["arguments"])
    started(network, initial)
    mirror = name in MIRRORED
    fixed = [
        draw(held_out, np.random.default_rng([settings.seed, k]), noise, mirror=mirror) for k in range(4)
    ]

    def validate(averaged: nn.Module) -> dict[str, float]:
        return {"held_out": float(np.mean([float(masked_error(averaged, batch)) for batch in fixed]))}

    stepped = compiled_if(compiled, network)
    return fit(
        network,
        draw=lambda rng: draw(pool, rng, noise, mirror=mirror),
        loss=lambda _, batch: masked_error(stepped, batch, loss),
        settings=settings,
        run_folder=run_folder,
        validate=validate,
        judged_by="held_out",
        describe=dict(describe),
        progress=progress,
    )


def step_seconds(pool: Pool, seed: int, settings: TrainSettings) -> float:
    """How long a step takes here (models.train.seconds_a_step)."""
    network = CoarseDAE(**ARCHITECTURE["arguments"]).to(settings.device)
    rng = np.random.default_rng(seed)
    return seconds_a_step(
        settings, lambda: masked_error(network, draw(pool, rng, NoiseSettings(), mirror=False))
    )


def calibrate(
    network: nn.Module, normals: Sequence[Prepared], contract: Contract, device: str = "cpu"
) -> calibration.Calibration:
    """Regions, threshold and series scores from normal people who were not trained on."""
    return calibration.fit(
        [normal_errors(network, n, contract, device) for n in normals], FALSE_POSITIVE_RATE, contract.quantile
    )


def normal_errors(
    network: nn.Module, ready: Prepared, contract: Contract, device: str = "cpu"
) -> calibration.NormalErrors:
    """The judged pixels of one prepared series, as a calibration takes them."""
    signed, level = errors(network, ready, contract, device)
    judged = ready.depth > contract.erode
    return calibration.NormalErrors(
        [e[j] for e, j in zip(signed, judged, strict=True)],
        [e[j] for e, j in zip(level, judged, strict=True)],
        [e[j] for e, j in zip(ready.depth, judged, strict=True)],
    )


def movement(stack: Tensor, rng: np.random.Generator, *, mirror: bool) -> Tensor:
    """Sampling grid of a random turn (±10°), stretch (±12 %), shift (±5 %) and mirroring per slice."""
    count, _, height, width = stack.shape
    angle = np.deg2rad(rng.uniform(-10, 10, count))
    stretch = rng.uniform(0.88, 1.12, (count, 2))
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0) if mirror else np.ones(count)
    ratio = height / width
    matrix = np.zeros((count, 2, 3), np.float32)
    matrix[:, 0, 0] = np.cos(angle) * stretch[:, 0] * flip
    matrix[:, 0, 1] = -np.sin(angle) * stretch[:, 0] * ratio
    matrix[:, 1, 0] = np.sin(angle) * stretch[:, 1] / ratio * flip
    matrix[:, 1, 1] = np.cos(angle) * stretch[:, 1]
    matrix[:, :, 2] = rng.uniform(-0.05, 0.05, (count, 2))
    grid: Tensor = functional.affine_grid(torch.from_numpy(matrix), list(stack.shape), align_corners=False)
    return grid

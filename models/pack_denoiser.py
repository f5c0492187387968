"""From a trained denoiser to a model folder: figures, the card and its text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from models import weights
from models.card_denoiser import denoiser_card_text
from models.cases import Case
from models.evaluate import Figures, Shown, evaluate_denoiser
from models.intensity import HU_UNIT, MR_PERCENTILE
from models.pack_anomaly import Lineage

STRENGTH, MAX_STRENGTH = 0.65, 0.8
LIMIT_SIGMA, MAX_LIMIT_SIGMA = 3.0, 4.0
GOLDEN_TOLERANCE = 2e-4  # of HU / 1000
_GOLDEN_SIDE = 96

CHANNELS = ["slice below", "slice", "slice above", "noise level"]
INPUTS: Mapping[str, Mapping[str, Any]] = {
    "CT": {"modality": "CT", "unit": "HU", "scale": HU_UNIT, "plane": "axial, trunk"},
    "MR": {
        "modality": "MR",
        "unit": f"{MR_PERCENTILE:g}th percentile of the person in the series",
        "scale": 1.0,
        "plane": "any",
        "normalisation": f"A series is divided by the {MR_PERCENTILE:g}th percentile of what it shows of the "
        "person, and the result is multiplied by it again.",
    },
}
_NOISE_KEY = {"CT": "noise_hu", "MR": "noise"}


def make_denoiser(
    network: nn.Module,
    *,
    name: str,
    version: str,
    arguments: Mapping[str, Any],
    noise: tuple[float, float],
    trained_people: int,
    lineage: Lineage,
    modality: str = "CT",
    calibration: Mapping[str, NDArray[Any]] | None = None,
) -> weights.LoadedModel:
    """A denoiser in memory with its card; not yet judged or saved.

    `noise` is what it was trained on, in HU or in parts of an MR series' unit; `calibration` are the
    statistics of its domain gate.
    """
    card = {
        "name": name,
        "version": version,
        "kind": "denoiser",
        "architecture": {"id": "bf-rae", "arguments": dict(arguments)},
        "input": {**INPUTS[modality], "channels": CHANNELS, _NOISE_KEY[modality]: list(noise)},
        "strength": STRENGTH,
        "max_strength": MAX_STRENGTH,
        "limit_sigma": LIMIT_SIGMA,
        "max_limit_sigma": MAX_LIMIT_SIGMA,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "equipment": {
            "Manufacturer": "aenode",
            "ManufacturerModelName": name,
            "SoftwareVersions": version,
        },
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
    }
    return weights.LoadedModel(
        name, version, "denoiser", "", card, network.eval(), "cpu", dict(calibration or {})
    )


def judge_and_save_denoiser(
    model: weights.LoadedModel,
    test_cases: Sequence[Case],
    folder: Path,
    *,
    measured_by: str,
    tuning: Sequence[Case] = (),
    filters: Sequence[str] | None = None,
    scans: int = 100,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
    shown: Callable[[Shown], None] | None = None,
) -> Figures:
    """Measure the denoiser on `test_cases` and phantoms, write its folder, and return the figures.

    `measured_by` is the command that measures again; it stands beside the figures. `tuning` are people
    the classical `filters` (all by default) are tuned on; `scans` those of a phantom.
    """
    figures = evaluate_denoiser(
        model,
        test_cases,
        tuning=tuning,
        filters=filters,
        scans=scans,
        seed=seed,
        progress=progress,
        shown=shown,
    )
    card = {**model.card, "metrics": figures, "measured_by": measured_by}
    text = denoiser_card_text(card, figures)
    weights.save(folder, model.network, card, golden_input(), text, calibration=model.calibration or None)
    return figures


def golden_input() -> NDArray[np.float32]:
    """A made-up batch (1, 4, 96, 96): a disc of cloudy tissue with noise, so that no person is in it."""
    rng = np.random.default_rng(0)
    side = np.linspace(-1, 1, _GOLDEN_SIDE)
    clouds = ndimage.gaussian_filter(rng.normal(size=(_GOLDEN_SIDE, _GOLDEN_SIDE)), 3)
    disc = np.hypot(*np.meshgrid(side, side)) < 0.8
    plane = np.where(disc, 50 + 60 * clouds / clouds.std(), -1000.0)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, _GOLDEN_SIDE, _GOLDEN_SIDE)), (0, 0.7, 0.7))
    slices = plane + 25 * noise / noise.std()
    return np.asarray(np.concatenate((slices, np.full_like(slices[:1], 25)))[None] / HU_UNIT, np.float32)

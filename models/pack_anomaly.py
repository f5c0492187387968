"""From a trained anomaly network to a model folder: calibration, figures, the card and its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from models import weights
from models.card_anomaly import card_text
from models.cases import Case
from models.domain_of import anomaly_domain, domain_arrays
from models.evaluate_anomaly import Figures, ShownCase, evaluate
from models.pca import fit_components
from models.preparation import Contract, Prepared
from models.train_anomaly import ARCHITECTURE, FALSE_POSITIVE_RATE, calibrate, prepare_cases

GOLDEN_TOLERANCE = 1e-3  # of the normalised range; processors differ by 1e-5
_GOLDEN_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a model comes from; everything in it is shown to people."""

    description: str  # what it is for, one paragraph
    training_data: str  # data sets and licences
    warning: str  # what "normal" is not, in this data
    licence: str
    command: str  # that trained it
    git: str
    steps: int
    minutes: float | None = None


def make_model(
    network: nn.Module,
    words: Mapping[str, Any],
    *,
    name: str,
    version: str,
    calibration_cases: Sequence[Case],
    trained_people: int,
    lineage: Lineage,
    trained_on: Sequence[Prepared] = (),
    trained_cases: Sequence[Case] = (),
) -> weights.LoadedModel:
    """A model in memory, calibrated on people it was not trained on; not yet judged or saved.

    `words` is the "input" of the card; the baseline of principal components learns from `trained_on`,
    the domain gate from `trained_cases`.
    Raises ValueError where too few normal pixels are left.
    """
    contract = Contract.of({"input": words})
    normals, _ = prepare_cases(calibration_cases, contract)
    calibration = calibrate(network.eval(), normals, contract)
    card = {
        "name": name,
        "version": version,
        "kind": "anomaly",
        "architecture": ARCHITECTURE,
        "input": dict(words),
        "golden_tolerance": GOLDEN_TOLERANCE,
        "false_positive_rate": FALSE_POSITIVE_RATE,
        "threshold": calibration.threshold,
        "normals": len(calibration.series_scores),
        "calibration_people": len({case.person for case in calibration_cases}),
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
    }
    return weights.LoadedModel(
        name=name,
        version=version,
        kind="anomaly",
        weights_sha256="",
        card=card,
        network=network.eval(),
        device="cpu",
        calibration={
            **calibration.to_arrays(),
            **component_arrays(trained_on, contract),
            **domain_arrays(anomaly_domain(network.eval(), trained_cases, contract)),
        },
    )


def component_arrays(ready: Sequence[Prepared], contract: Contract) -> dict[str, NDArray[Any]]:
    """What calibration.npz holds of the baseline's principal components; nothing of under three slices."""
    images = [
        plane
        for case in ready
        for plane, inside in zip(case.image, case.foreground, strict=True)
        if inside.mean() > 0.02
    ]
    return fit_components(images, contract.canvas).to_arrays() if len(images) >= 3 else {}


def judge_and_save(
    model: weights.LoadedModel,
    test_cases: Sequence[Case],
    folder: Path,
    *,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
    shown: Callable[[ShownCase], None] | None = None,
) -> Figures:
    """Measure the model on `test_cases`, write its folder, and return the figures.

    `shown` gets a slice of each case, for pictures.
    """
    figures = evaluate(model, test_cases, seed=seed, progress=progress, shown=shown)
    card = {**model.card, "metrics": figures}
    weights.save(
        folder, model.network, card, _golden(), card_text(card, figures), calibration=model.calibration
    )
    return figures


def _golden() -> NDArray[np.float32]:
    """A made-up batch (1, 1, 96, 96): cloudy tissue in a disc, so that no person's image is shipped."""
    side = np.linspace(-1, 1, _GOLDEN_SIDE)
    clouds = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(_GOLDEN_SIDE, _GOLDEN_SIDE)), 3)
    disc = np.hypot(*np.meshgrid(side, side)) < 0.8
    plane = np.clip(0.5 + 0.15 * clouds / clouds.std(), 0, 1) * disc
    return np.asarray(plane[None, None], np.float32)

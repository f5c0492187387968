"""What `aenode train` and `aenode evaluate` do for each model: read, train, measure, write the folder."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from models import evaluate_anomaly, pack_vae, weights
from models.cases import Case
from models.evaluate import Shown, evaluate_denoiser
from models.evaluate_anomaly import ShownCase
from models.evaluate_vae import CodeSpread, evaluate_vae
from models.preparation import Contract
from models.vae import VAE
from workers import asked
from workers.recipe_anomaly import train_anomaly_model
from workers.recipe_denoiser import train_denoiser_model, tuning_people
from workers.recipe_vae import train_vae_model
from workers.request import (
    MODALITY,
    MODEL_FOLDER,
    Request,
    TrainingRefused,
    Watch,
    kind_of,
    read,
    require_sense,
    require_yardsticks,
)

__all__ = [
    "MODEL_FOLDER",
    "NAMES",
    "Request",
    "TrainingRefused",
    "Watch",
    "evaluate",
    "read",
    "recipe_of",
    "train",
]

NAMES = tuple(MODALITY)
_RECIPES = {"denoiser": train_denoiser_model, "anomaly": train_anomaly_model, "vae": train_vae_model}


def train(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, measure and write `request.out`/model; returns its card.

    Raises TrainingRefused, DataRefused, models.train.TrainingError or models.weights.WeightsError.
    """
    try:
        asked.require_folder(request.out, resume=request.resume)
        require_sense(request)
        if request.resume:
            asked.require_same(request)
        request.out.mkdir(parents=True, exist_ok=True)
        if not request.resume:
            (request.out / asked.REQUEST).unlink(missing_ok=True)
        return _RECIPES[kind_of(request.name)](request, watch)
    except OSError as error:
        raise TrainingRefused(f"{error.filename or request.out}: {error.strerror or error}") from error


def evaluate(
    model: weights.LoadedModel,
    data: Sequence[Case],
    seed: int,
    watch: Watch,
    *,
    tuning: Sequence[Case] = (),
    shown: Callable[[Shown | ShownCase], None] | None = None,
) -> dict[str, Any]:
    """The figures of the card, on these cases. Raises ValueError where none can be judged.

    Classical filters are tuned on a few of the people of `tuning`; `shown` gets the slices
    that pictures show.
    """
    if model.kind == "denoiser":
        require_yardsticks()
        people = tuning_people(tuning)
        return evaluate_denoiser(model, data, tuning=people, seed=seed, progress=watch.measured, shown=shown)
    if model.kind == "vae":
        known = np.asarray(model.calibration[pack_vae.NOVELTY], np.float64)
        spread = CodeSpread.of_arrays(model.calibration)
        return evaluate_vae(cast(VAE, model.network), Contract.of(model.card), data, known, spread, seed=seed)
    return evaluate_anomaly.evaluate(model, data, seed=seed, progress=watch.measured, shown=shown)


def recipe_of(model: weights.LoadedModel) -> str:
    """Which of NAMES reads data for this model. Raises TrainingRefused where none does."""
    modality = model.card.get("input", {}).get("modality")
    for name in NAMES:
        if kind_of(name) == model.kind and MODALITY[name] == modality:
            return name
    raise TrainingRefused(f"nothing is known of how to measure {model.kind} models of {modality}")

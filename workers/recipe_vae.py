"""The recipe of variational autoencoders: normal people on the canvas of the anomaly model, codes for all."""

import time
from dataclasses import asdict, replace
from typing import Any

from models import pack_vae, train_anomaly, weights
from models.cases import split
from models.preparation import Contract
from models.train import TrainSettings
from models.train_anomaly import Pool, contract_for, prepare_cases
from models.train_vae import step_seconds, train_vae, vae_canvas
from workers import asked
from workers.request import (
    MODEL_FOLDER,
    Request,
    TrainingRefused,
    Watch,
    base_of,
    lineage,
    precision,
    read,
    read_test,
    require_apart,
    steps_of,
)

_CONTRACT = {"brain-mr-vae": "brain-mr-anomaly", "chest-xray-vae": "chest-xray-anomaly"}


def train_vae_model(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, measure and write a variational autoencoder; returns its card."""
    base = base_of(request)
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    normals = [case for case in data.cases if case.lesion is None and not case.abnormal]
    shares = (0.85, 0.15) if request.test else (0.7, 0.15, 0.15)
    try:
        fitted, held, *rest = split(normals, shares, request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = read_test(request, watch) or rest[0]
    require_apart(fitted + held, test)
    frame = _CONTRACT[request.name]
    words = contract_for(frame, fitted) if base is None else dict(base.card["input"])
    words["canvas"] = list(vae_canvas((words["canvas"][0], words["canvas"][1])))
    contract = Contract.of({"input": words})
    pools = [Pool.of(prepare_cases(cases, contract)[0], contract.canvas) for cases in (fitted, held)]
    arguments = {"canvas": words["canvas"]} if base is None else base.card["architecture"]["arguments"]
    settings = _settings(request, arguments)
    parts = {"training": fitted, "calibration": held, "test": test}
    asked.keep(request, asdict(settings), settings.steps, base, parts)
    began = time.monotonic()
    result = train_vae(
        pools[0],
        pools[1],
        settings,
        request.out,
        arguments=arguments,
        describe={"model": request.name, "input": words, "people": len({case.person for case in fitted})},
        loss=request.loss or "mse",
        initial=None if base is None else base.network.state_dict(),
        mirror=frame in train_anomaly.MIRRORED,
        compiled=request.compiled,
        progress=watch.step,
    )
    pack_vae.judge_and_save_vae(
        result.network,
        words,
        request.out / MODEL_FOLDER,
        name=request.name,
        version=request.version,
        arguments=arguments,
        calibration_cases=held,
        test_cases=test,
        trained_people=len({case.person for case in fitted}),
        lineage=lineage(request, base, settings, time.monotonic() - began),
        seed=request.seed,
    )
    return weights.read_card(request.out / MODEL_FOLDER)


def _settings(request: Request, arguments: dict[str, Any]) -> TrainSettings:
    if request.resume:
        return asked.kept_settings(request, TrainSettings)
    draft = TrainSettings(
        steps=1,
        learning_rate=2e-3,
        weight_decay=1e-5,
        seed=request.seed,
        precision=precision(request),
        device=request.device,
    )
    steps = steps_of(request, lambda: step_seconds(draft, arguments))
    return replace(
        draft,
        steps=steps,
        warmup=min(100, steps // 4),
        ema_decay=0.99 if steps > 500 else 0.9,
        validate_every=max(1, min(200, steps // 2)),
    )

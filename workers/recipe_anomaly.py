"""The recipe of anomaly models: normal people, divided, trained on, calibrated with and judged."""

import time
from dataclasses import asdict, replace
from typing import Any

from models import pack_anomaly, train_anomaly, weights
from models.cases import split
from models.preparation import Contract, Prepared
from models.train import TrainSettings
from workers import asked
from workers.album import Album
from workers.request import (
    MODEL_FOLDER,
    PICTURES,
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


def train_anomaly_model(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, calibrate, judge and write an anomaly model; returns its card."""
    base = base_of(request)
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    normals = [case for case in data.cases if case.lesion is None and not case.abnormal]
    if len(normals) < len(data.cases):
        watch.note(f"{len(data.cases) - len(normals)} cases with a lesion are not trained on")
    shares = (0.8, 0.2) if request.test else (0.7, 0.15, 0.15)
    try:
        fitted, calibrating, *rest = split(normals, shares, request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = read_test(request, watch) or rest[0]
    require_apart(fitted + calibrating, test)
    words = train_anomaly.contract_for(request.name, fitted) if base is None else dict(base.card["input"])
    contract = Contract.of({"input": words})
    pools = []
    fitted_ready: list[Prepared] = []
    for cases in (fitted, calibrating):
        ready, notes = train_anomaly.prepare_cases(cases, contract)
        for note in notes:
            watch.note(note)
        pools.append(train_anomaly.Pool.of(ready, contract.canvas))
        fitted_ready = fitted_ready or ready
    settings = _settings(request, pools[0])
    parts = {"training": fitted, "calibration": calibrating, "test": test}
    asked.keep(request, asdict(settings), settings.steps, base, parts)
    began = time.monotonic()
    result = train_anomaly.train(
        request.name,
        pools[0],
        pools[1],
        settings,
        request.out,
        describe={"model": request.name, "input": words, "people": len({c.person for c in fitted})},
        compiled=request.compiled,
        loss=request.loss or "mse",
        initial=None if base is None else base.network.state_dict(),
        progress=watch.step,
    )
    model = pack_anomaly.make_model(
        result.network,
        words,
        name=request.name,
        version=request.version,
        calibration_cases=calibrating,
        trained_people=len({case.person for case in fitted}),
        trained_on=fitted_ready,
        trained_cases=fitted,
        lineage=lineage(request, base, settings, time.monotonic() - began),
    )
    album = Album()
    pack_anomaly.judge_and_save(
        model,
        test,
        request.out / MODEL_FOLDER,
        seed=request.seed,
        progress=watch.measured,
        shown=album.add,
    )
    album.write(request.out / PICTURES)
    return weights.read_card(request.out / MODEL_FOLDER)


def _settings(request: Request, pool: train_anomaly.Pool) -> TrainSettings:
    if request.resume:
        # The steps were fixed when the run began; a stopped run ends as one that was not.
        return asked.kept_settings(request, TrainSettings)
    draft = TrainSettings(
        steps=1,
        weight_decay=1e-5,
        seed=request.seed,
        precision=precision(request),
        device=request.device,
    )
    steps = steps_of(request, lambda: train_anomaly.step_seconds(pool, request.seed, draft))
    return replace(
        draft,
        steps=steps,
        warmup=min(100, steps // 4),
        ema_decay=0.995 if steps > 1000 else 0.9,
        validate_every=max(1, min(200, steps // 2)),
    )

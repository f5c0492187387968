"""The recipe of denoisers: clean slices of CT or MR, simulated noise, and other people to be judged on."""

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from models import pack_denoiser, weights
from models.cases import Case, split
from models.denoiser import BFRAE
from models.domain_of import denoiser_domain, domain_arrays
from models.train import SETTINGS, TrainResult, TrainSettings
from models.train_denoiser import DenoiserSettings, train_denoiser
from models.train_mr_denoiser import MRDenoiserSettings, train_mr_denoiser
from models.train_noisy import train_noisy
from workers.request import (
    MODALITY,
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
    require_yardsticks,
)

Settings = DenoiserSettings | MRDenoiserSettings
_SETTINGS: dict[str, type[Settings]] = {"CT": DenoiserSettings, "MR": MRDenoiserSettings}


def train_denoiser_model(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, judge and write a denoiser; returns its card."""
    require_yardsticks()
    if request.noisy and not request.test:
        raise TrainingRefused("without clean images nothing can be measured: name some of others by --test")
    modality = MODALITY[request.name]
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    try:
        parts = [data.cases] if request.test else split(data.cases, (0.85, 0.15), request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = read_test(request, watch) or parts[1]
    require_apart(parts[0], test)
    base = base_of(request)
    settings = _settings(request, modality, base)
    began = time.monotonic()
    result = _train(parts[0], settings, request, watch, base)
    model = pack_denoiser.make_denoiser(
        result.network,
        name=request.name,
        version=request.version,
        arguments=settings.architecture,
        noise=settings.noise,
        trained_people=len({case.person for case in parts[0]}),
        lineage=lineage(request, settings.train, time.monotonic() - began),
        modality=modality,
        calibration=domain_arrays(denoiser_domain(result.network.eval(), parts[0], modality, request.seed)),
    )
    again = ["aenode", "evaluate", request.name]
    for option, paths in (("--data", request.test), ("--tune", request.data)):
        again += [word for path in paths for word in (option, path.name)]
    if request.pixel_mm is not None:
        again += ["--pixel-mm", f"{request.pixel_mm:g}"]
    pack_denoiser.judge_and_save_denoiser(
        model,
        test,
        request.out / MODEL_FOLDER,
        measured_by=shlex.join(again) if request.test else model.card["lineage"]["command"],
        tuning=tuning_people(parts[0]),
        seed=request.seed,
        progress=watch.measured,
    )
    return weights.read_card(request.out / MODEL_FOLDER)


def tuning_people(cases: Sequence[Case], most: int = 4) -> list[Case]:
    """A few people, none of them to be judged, on whom the classical filters are tuned."""
    people = sorted({case.person for case in cases})[:most]
    return [case for case in cases if case.person in people]


def _train(
    cases: Sequence[Case],
    settings: Settings,
    request: Request,
    watch: Watch,
    base: weights.LoadedModel | None,
) -> TrainResult:
    initial = None if base is None else base.network.state_dict()
    if request.noisy:
        return train_noisy(
            cases,
            MODALITY[request.name],
            settings.train,
            request.out,
            architecture=settings.architecture,
            batch=settings.batch,
            patch=settings.patch,
            initial=initial,
            progress=watch.step,
        )
    if isinstance(settings, MRDenoiserSettings):
        return train_mr_denoiser(cases, settings, request.out, progress=watch.step, initial=initial)
    return train_denoiser(
        cases, settings, request.out, progress=watch.step, prepared=watch.prepared, initial=initial
    )


def _settings(request: Request, modality: str, base: weights.LoadedModel | None) -> Settings:
    kind = _SETTINGS[modality]
    changes = dict(request.changes)
    if base is not None:
        changes["architecture"] = base.card["architecture"]["arguments"]
    if request.loss:
        changes["loss"] = request.loss
    if request.resume and not request.noisy:
        whole = json.loads((request.out / SETTINGS).read_text())
        kept: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value := whole["described"][field.name], list) else value
            for field in fields(kind)
            if field.name in whole["described"]
        }
        kept["train"] = TrainSettings(**whole["settings"])
        return kind(**kept)
    draft = TrainSettings(steps=1, seed=request.seed, precision=precision(request), device=request.device)
    settings = kind(train=draft, **changes)
    if request.resume:
        kept_settings = json.loads((request.out / SETTINGS).read_text())["settings"]
        return replace(settings, train=TrainSettings(**kept_settings))
    steps = request.steps or max(4, round(request.minutes * 60 / seconds_a_step(settings)))
    chosen = replace(
        draft,
        steps=steps,
        warmup=min(300, steps // 4),
        ema_decay=0.999 if steps > 3000 else 0.9,
        validate_every=max(1, min(500, steps // 2)),
    )
    return replace(settings, train=chosen)


def seconds_a_step(settings: Settings) -> float:
    """How long a denoiser's step takes here, measured on three after a first one."""
    network = BFRAE(**settings.architecture).to(settings.train.device)
    shape = (settings.batch, 4, settings.patch, settings.patch)
    batch = torch.zeros(shape, device=settings.train.device)
    bfloat16 = settings.train.precision == "bfloat16"
    began = 0.0
    for _ in range(4):
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=bfloat16):
            value = network(batch).float().square().mean()
        value.backward()
        float(value.detach())  # waits for the device
        began = began or time.monotonic()
    return (time.monotonic() - began) / 3

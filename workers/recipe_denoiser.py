"""The recipe of denoisers: clean slices of CT or MR, simulated noise, and other people to be judged on."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from models import pack_denoiser, weights
from models.cases import Case, split
from models.denoiser import BFRAE
from models.domain_of import denoiser_domain, domain_arrays
from models.train import TrainResult, TrainSettings, seconds_a_step
from models.train_denoiser import DenoiserSettings, train_denoiser
from models.train_mr_denoiser import MRDenoiserSettings, train_mr_denoiser
from models.train_noisy import train_noisy
from workers import asked
from workers.album import Album
from workers.options import command_line
from workers.request import (
    MODALITY,
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
    require_yardsticks,
    steps_of,
)

Settings = DenoiserSettings | MRDenoiserSettings
_SETTINGS: dict[str, type[Settings]] = {"CT": DenoiserSettings, "MR": MRDenoiserSettings}


def train_denoiser_model(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, judge and write a denoiser; returns its card."""
    require_yardsticks()
    base = base_of(request)
    modality = MODALITY[request.name]
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    try:
        parts = [data.cases] if request.test else split(data.cases, (0.85, 0.15), request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = read_test(request, watch) or parts[1]
    require_apart(parts[0], test)
    settings = _settings(request, modality, base)
    asked.keep(request, asdict(settings), settings.train.steps, base, {"training": parts[0], "test": test})
    began = time.monotonic()
    result = _train(parts[0], settings, request, watch, base)
    model = pack_denoiser.make_denoiser(
        result.network,
        name=request.name,
        version=request.version,
        arguments=settings.architecture,
        noise=settings.noise,
        trained_people=len({case.person for case in parts[0]}),
        lineage=lineage(request, base, settings.train, time.monotonic() - began),
        modality=modality,
        calibration=domain_arrays(denoiser_domain(result.network.eval(), parts[0], modality, request.seed)),
    )
    again = {
        "--data": request.test,
        "--tune": request.data,
        "--pixel-mm": request.pixel_mm,
        "--volume": request.volume,
        "--seed": request.seed,
    }
    album = Album()
    pack_denoiser.judge_and_save_denoiser(
        model,
        test,
        request.out / MODEL_FOLDER,
        measured_by=command_line("evaluate", request.name, again)
        if request.test
        else model.card["lineage"]["command"],
        tuning=tuning_people(parts[0]),
        seed=request.seed,
        progress=watch.measured,
        shown=album.add,
    )
    album.write(request.out / PICTURES)
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
            validation_people=settings.validation_people,
            compiled=request.compiled,
            initial=initial,
            progress=watch.step,
        )
    if isinstance(settings, MRDenoiserSettings):
        return train_mr_denoiser(
            cases,
            settings,
            request.out,
            progress=watch.step,
            initial=initial,
            compiled=request.compiled,
        )
    return train_denoiser(
        cases,
        settings,
        request.out,
        progress=watch.step,
        prepared=watch.prepared,
        initial=initial,
        compiled=request.compiled,
    )


def _settings(request: Request, modality: str, base: weights.LoadedModel | None) -> Settings:
    kind = _SETTINGS[modality]
    if request.resume:
        return asked.kept_settings(request, kind)
    changes = dict(request.changes)
    if base is not None:
        changes["architecture"] = base.card["architecture"]["arguments"]
    if request.loss:
        changes["loss"] = request.loss
    draft = TrainSettings(steps=1, seed=request.seed, precision=precision(request), device=request.device)
    settings = kind(train=draft, **changes)
    steps = steps_of(request, lambda: step_seconds(settings))
    chosen = replace(
        draft,
        steps=steps,
        warmup=min(300, steps // 4),
        ema_decay=0.999 if steps > 3000 else 0.9,
        validate_every=max(1, min(500, steps // 2)),
    )
    return replace(settings, train=chosen)


def step_seconds(settings: Settings) -> float:
    """How long a denoiser's step takes here (models.train.seconds_a_step)."""
    network = BFRAE(**settings.architecture).to(settings.train.device)
    shape = (settings.batch, 4, settings.patch, settings.patch)
    batch = torch.zeros(shape, device=settings.train.device)
    return seconds_a_step(settings.train, lambda: network(batch).float().square().mean())

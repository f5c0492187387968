"""What `aenode train` and `aenode evaluate` do for each model: read, train, measure, write the folder."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from models import evaluate_anomaly, pack_anomaly, pack_denoiser, train_anomaly, weights
from models.cases import Case, split
from models.denoiser import BFRAE
from models.evaluate import evaluate_denoiser
from models.preparation import Contract
from models.train import SETTINGS, Progress, TrainSettings
from models.train_denoiser import DenoiserSettings, train_denoiser
from node.errors import AenodeError
from workers.training import TrainingData, read_cases

NAMES = ("ct-denoise", "ct-anomaly", "brain-mr-anomaly")
MODEL_FOLDER = "model"  # inside the run folder
_MODALITY = {"ct-denoise": "CT", "ct-anomaly": "CT", "brain-mr-anomaly": "MR"}
_UNKNOWN_LINEAGE = "The data of the site that trained it."


class TrainingRefused(AenodeError):
    """A training cannot begin or go on; the sentence is for a person."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked `aenode train` for."""

    name: str
    data: tuple[Path, ...]
    out: Path
    test: tuple[Path, ...] = ()  # people for the figures; without it, some of `data` are kept apart
    minutes: float = 30.0
    steps: int | None = None  # instead of minutes, to do a training again
    seed: int = 1
    resume: bool = False
    version: str = "0.1.0"
    device: str = "cpu"
    compiled: bool = False
    pixel_mm: float | None = None
    volume: str | None = None
    lineage: dict[str, str] = field(default_factory=dict)  # description, training_data, warning, licence
    command: str = ""
    changes: dict[str, Any] = field(default_factory=dict)  # of DenoiserSettings


@dataclass(frozen=True)
class Watch:
    """Whom to tell: of files read, slices given noise, steps, cases measured, and what was left out."""

    read: Callable[[int, int], None] = lambda _done, _all: None
    prepared: Callable[[int, int], None] = lambda _done, _all: None
    step: Callable[[Progress], None] = lambda _progress: None
    measured: Callable[[int, int], None] = lambda _done, _all: None
    note: Callable[[str], None] = lambda _sentence: None


def train(request: Request, watch: Watch) -> dict[str, Any]:
    """Train, measure and write `request.out`/model; returns its card.

    Raises TrainingRefused, DataRefused, models.train.TrainingError or models.weights.WeightsError.
    """
    if (request.out / MODEL_FOLDER).exists():
        raise TrainingRefused(f"{request.out} holds a finished model; choose another run folder")
    if (request.out / SETTINGS).exists() and not request.resume:
        raise TrainingRefused(f"{request.out} holds a run; go on with --resume or choose another run folder")
    if request.resume and not (request.out / SETTINGS).exists():
        raise TrainingRefused(f"{request.out} holds no run to resume")
    return _train_denoiser(request, watch) if request.name == "ct-denoise" else _train_anomaly(request, watch)


def evaluate(model: weights.LoadedModel, data: Sequence[Case], seed: int, watch: Watch) -> dict[str, Any]:
    """The figures of the card, on these cases. Raises ValueError where none can be judged."""
    if model.kind == "denoiser":
        _require_yardsticks()
        return evaluate_denoiser(model, data, seed=seed, progress=watch.measured)
    return evaluate_anomaly.evaluate(model, data, seed=seed, progress=watch.measured)


def recipe_of(model: weights.LoadedModel) -> str:
    """Which of NAMES reads data for this model. Raises TrainingRefused where none does."""
    modality = model.card.get("input", {}).get("modality")
    for name in NAMES:
        if (name == "ct-denoise") == (model.kind == "denoiser") and _MODALITY[name] == modality:
            return name
    raise TrainingRefused(f"nothing is known of how to measure {model.kind} models of {modality}")


def read(
    paths: Sequence[Path], name: str, pixel_mm: float | None, volume: str | None, watch: Watch
) -> TrainingData:
    """Cases of the modality that a model takes; what was left out is told to `watch`."""
    found = read_cases(
        paths, modality=_MODALITY[name], pixel_mm=pixel_mm, volume_name=volume, progress=watch.read
    )
    for note in found.notes:
        watch.note(note)
    return found


def _train_anomaly(request: Request, watch: Watch) -> dict[str, Any]:
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    normals = [case for case in data.cases if case.lesion is None]
    if len(normals) < len(data.cases):
        watch.note(f"{len(data.cases) - len(normals)} cases with a lesion mask are not trained on")
    shares = (0.8, 0.2) if request.test else (0.7, 0.15, 0.15)
    try:
        fitted, calibrating, *rest = split(normals, shares, request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = _read_test(request, watch) or rest[0]
    _require_apart(fitted + calibrating, test)
    words = train_anomaly.contract_for(request.name, fitted)
    contract = Contract.of({"input": words})
    pools = []
    for cases in (fitted, calibrating):
        ready, notes = train_anomaly.prepare_cases(cases, contract)
        for note in notes:
            watch.note(note)
        pools.append(train_anomaly.Pool.of(ready, contract.canvas))
    settings = _settings(request, pools[0])
    began = time.monotonic()
    result = train_anomaly.train(
        request.name,
        pools[0],
        pools[1],
        settings,
        request.out,
        describe={"model": request.name, "input": words, "people": len({c.person for c in fitted})},
        compiled=request.compiled,
        progress=watch.step,
    )
    model = pack_anomaly.make_model(
        result.network,
        words,
        name=request.name,
        version=request.version,
        calibration_cases=calibrating,
        trained_people=len({case.person for case in fitted}),
        lineage=_lineage(request, settings, time.monotonic() - began),
    )
    pack_anomaly.judge_and_save(
        model, test, request.out / MODEL_FOLDER, seed=request.seed, progress=watch.measured
    )
    return weights.read_card(request.out / MODEL_FOLDER)


def _train_denoiser(request: Request, watch: Watch) -> dict[str, Any]:
    _require_yardsticks()
    data = read(request.data, request.name, request.pixel_mm, request.volume, watch)
    try:
        parts = [data.cases] if request.test else split(data.cases, (0.85, 0.15), request.seed)
    except ValueError as error:
        raise TrainingRefused(str(error)) from error
    test = _read_test(request, watch) or parts[1]
    _require_apart(parts[0], test)
    settings = _denoiser_settings(request)
    began = time.monotonic()
    result = train_denoiser(parts[0], settings, request.out, progress=watch.step, prepared=watch.prepared)
    model = pack_denoiser.make_denoiser(
        result.network,
        name=request.name,
        version=request.version,
        arguments=settings.architecture,
        noise_hu=settings.noise,
        trained_people=len({case.person for case in parts[0]}),
        lineage=_lineage(request, settings.train, time.monotonic() - began),
    )
    again = shlex.join(["aenode", "evaluate", request.name, "--data", *(path.name for path in request.test)])
    pack_denoiser.judge_and_save_denoiser(
        model,
        test,
        request.out / MODEL_FOLDER,
        measured_by=again if request.test else model.card["lineage"]["command"],
        seed=request.seed,
        progress=watch.measured,
    )
    return weights.read_card(request.out / MODEL_FOLDER)


def _denoiser_settings(request: Request) -> DenoiserSettings:
    if request.resume:
        whole = json.loads((request.out / SETTINGS).read_text())
        kept = {field.name: whole["described"][field.name] for field in fields(DenoiserSettings)}
        kept |= {"train": TrainSettings(**whole["settings"]), "noise": tuple(kept["noise"])}
        return DenoiserSettings(**kept)
    draft = TrainSettings(steps=1, seed=request.seed, precision=_precision(request), device=request.device)
    settings = DenoiserSettings(train=draft, **request.changes)
    steps = request.steps or max(4, round(request.minutes * 60 / seconds_a_step(settings)))
    chosen = replace(
        draft,
        steps=steps,
        warmup=min(300, steps // 4),
        ema_decay=0.999 if steps > 3000 else 0.9,
        validate_every=max(1, min(500, steps // 2)),
    )
    return replace(settings, train=chosen)


def seconds_a_step(settings: DenoiserSettings) -> float:
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


def _read_test(request: Request, watch: Watch) -> list[Case]:
    if not request.test:
        return []
    return read(request.test, request.name, request.pixel_mm, request.volume, watch).cases


def _require_yardsticks() -> None:
    if find_spec("skimage") is None:
        raise TrainingRefused("measuring a denoiser needs scikit-image: pip install scikit-image")


def _precision(request: Request) -> Literal["float32", "bfloat16"]:
    fast = request.device == "cpu" and bool(_cpu().get("amx_tile"))
    return "bfloat16" if fast else "float32"


def _require_apart(trained: Sequence[Case], test: Sequence[Case]) -> None:
    both = {case.person for case in trained} & {case.person for case in test}
    if both:
        raise TrainingRefused(f"{len(both)} people are in the training data and in the test data")


def _settings(request: Request, pool: train_anomaly.Pool) -> TrainSettings:
    if request.resume:
        # The steps were fixed when the run began; a stopped run ends as one that was not.
        return TrainSettings(**json.loads((request.out / SETTINGS).read_text())["settings"])
    settings = TrainSettings(
        steps=request.steps or 1,
        weight_decay=1e-5,
        seed=request.seed,
        precision=_precision(request),
        device=request.device,
    )
    steps = request.steps
    if steps is None:
        steps = max(
            4, round(request.minutes * 60 / train_anomaly.seconds_a_step(pool, request.seed, settings))
        )
    return replace(
        settings,
        steps=steps,
        warmup=min(100, steps // 4),
        ema_decay=0.995 if steps > 1000 else 0.9,
        validate_every=max(1, min(200, steps // 2)),
    )


def _lineage(request: Request, settings: TrainSettings, seconds: float) -> pack_anomaly.Lineage:
    words = request.lineage
    return pack_anomaly.Lineage(
        description=words.get("description", "Trained by `aenode train`."),
        training_data=words.get("training_data", _UNKNOWN_LINEAGE),
        warning=words.get("warning", "Nobody certified these people as normal."),
        licence=words.get("licence", "not stated"),
        command=request.command or shlex.join(["aenode", "train", request.name]),
        git=json.loads((request.out / SETTINGS).read_text())["git"],
        steps=settings.steps,
        minutes=None if request.resume else round(seconds / 60, 1),
    )


def _cpu() -> dict[str, Any]:
    # Younger than the oldest torch that is supported; without it bfloat16 is not worth its rounding.
    ask: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return ask()

"""What a person asks `aenode train` for, and what every recipe does with it: read, keep apart, tell."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from models.cases import Case
from models.losses import LOSSES, OF_NOISE
from models.pack_anomaly import Lineage
from models.train import SETTINGS, Progress, TrainSettings
from models.weights import Kind, LoadedModel, load
from node.errors import AenodeError
from workers.options import command_line
from workers.training import TrainingData, read_cases

MODEL_FOLDER, PICTURES = "model", "pictures"  # inside the run folder
MINUTES = 30.0  # of training where neither minutes nor steps are asked for
MODALITY = {
    "ct-denoise": "CT",
    "mr-denoise": "MR",
    "ct-anomaly": "CT",
    "brain-mr-anomaly": "MR",
    "chest-xray-anomaly": "DX",
    "brain-mr-vae": "MR",
    "chest-xray-vae": "DX",
}
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
    minutes: float | None = None
    steps: int | None = None  # instead of minutes, to do a training again
    seed: int = 1
    resume: bool = False
    version: str = "0.1.0"
    device: str = "cpu"
    compiled: bool = False
    pixel_mm: float | None = None
    volume: str | None = None
    loss: str = ""  # instead of the recipe's own
    start: str = ""  # the model to fine-tune
    noisy: bool = False  # a denoiser without clean images
    lineage: dict[str, str] = field(default_factory=dict)  # description, training_data, warning, licence
    about: str = ""  # the name of the file that says so
    changes: dict[str, Any] = field(default_factory=dict)  # of the recipe's settings


@dataclass(frozen=True)
class Watch:
    """Whom to tell: of files read, slices given noise, steps, cases measured, and what was left out."""

    read: Callable[[int, int], None] = lambda _done, _all: None
    prepared: Callable[[int, int], None] = lambda _done, _all: None
    step: Callable[[Progress], None] = lambda _progress: None
    measured: Callable[[int, int], None] = lambda _done, _all: None
    note: Callable[[str], None] = lambda _sentence: None


def kind_of(name: str) -> Kind:
    """Which kind of model a recipe makes."""
    if name.endswith("-vae"):
        return "vae"
    return "denoiser" if name.endswith("-denoise") else "anomaly"


def read(
    paths: Sequence[Path], name: str, pixel_mm: float | None, volume: str | None, watch: Watch
) -> TrainingData:
    """Cases of the modality that a model takes; what was left out is told to `watch`."""
    found = read_cases(
        paths, modality=MODALITY[name], pixel_mm=pixel_mm, volume_name=volume, progress=watch.read
    )
    for note in found.notes:
        watch.note(note)
    return found


def read_test(request: Request, watch: Watch) -> list[Case]:
    """The cases of `--test`; none without it."""
    if not request.test:
        return []
    return read(request.test, request.name, request.pixel_mm, request.volume, watch).cases


def require_yardsticks() -> None:
    """Raise TrainingRefused where the classical filters cannot be run."""
    if find_spec("skimage") is None:
        raise TrainingRefused("measuring a denoiser needs scikit-image: pip install scikit-image")


def precision(request: Request) -> Literal["float32", "bfloat16"]:
    """What training computes in here."""
    fast = request.device != "cpu" or bool(_cpu().get("amx_tile"))
    return "bfloat16" if fast else "float32"


def require_apart(trained: Sequence[Case], test: Sequence[Case]) -> None:
    """Raise TrainingRefused where a person is trained on and tested."""
    both = {case.person for case in trained} & {case.person for case in test}
    if both:
        raise TrainingRefused(f"{len(both)} people are in the training data and in the test data")


def require_sense(request: Request) -> None:
    """Raise TrainingRefused where an option would have no effect on this recipe, or there is no compiler."""
    denoiser = kind_of(request.name) == "denoiser"
    if request.noisy and not denoiser:
        raise TrainingRefused(f"--noisy is for denoisers, not for {request.name}")
    if request.noisy and request.loss:
        raise TrainingRefused("--noisy has its own loss: leave out --loss")
    if request.noisy and not request.test:
        raise TrainingRefused("without clean images nothing can be measured: name some of others by --test")
    taken = OF_NOISE if denoiser else LOSSES
    if request.loss and request.loss not in taken:
        raise TrainingRefused(f"--loss {request.loss} is not for {request.name}: {' or '.join(taken)} is")
    if request.minutes is not None and request.steps is not None and not request.resume:
        raise TrainingRefused("--minutes or --steps, not both")
    if request.device.partition(":")[0] not in ("cpu", "cuda"):
        raise TrainingRefused(f'--device {request.device}: a training computes on "cpu" or "cuda"')
    if request.compiled and not can_compile(request.device):
        needed = "g++" if request.device == "cpu" else "triton and a C compiler"
        raise TrainingRefused(f"--compiled needs {needed}, which this machine has not")


def can_compile(device: str) -> bool:
    """Whether torch can compile for the device: by g++ for a CPU, by triton and a C compiler for a GPU."""
    variable, usual = ("CXX", ("g++", "clang++")) if device == "cpu" else ("CC", ("gcc", "cc", "clang"))
    compilers = (os.environ[variable],) if variable in os.environ else usual
    found = any(map(shutil.which, compilers))
    return found and (device == "cpu" or find_spec("triton") is not None)


def base_of(request: Request) -> LoadedModel | None:
    """The model of `--from`, of the kind and modality that is trained; None without it."""
    if not request.start:
        return None
    base = load(request.start)
    if base.card.get("input", {}).get("modality", "CT") != MODALITY[request.name]:
        raise TrainingRefused(f"{base.name} is for another modality than {request.name}")
    if base.kind != kind_of(request.name):
        raise TrainingRefused(f"{base.name} is another kind of model than {request.name}")
    return base


def steps_of(request: Request, seconds_a_step: Callable[[], float]) -> int:
    """The steps that are asked for, or as many as fit into the minutes here."""
    if request.steps is not None:
        return request.steps
    return max(4, round((request.minutes or MINUTES) * 60 / seconds_a_step()))


def lineage(request: Request, base: LoadedModel | None, settings: TrainSettings, seconds: float) -> Lineage:
    """What the card tells of the training."""
    words = request.lineage
    origin = (
        ""
        if base is None
        else f" Fine-tuned from {base.name} {base.version} (weights {base.weights_sha256[:16]})."
    )
    return Lineage(
        description=words.get("description", "Trained by `aenode train`.") + origin,
        training_data=words.get("training_data", _UNKNOWN_LINEAGE),
        warning=words.get("warning", "Nobody certified these people as normal."),
        licence=words.get("licence", "not stated"),
        command=command_again(request, settings.steps),
        git=json.loads((request.out / SETTINGS).read_text())["git"],
        steps=settings.steps,
        minutes=None if request.resume else round(seconds / 60, 1),
    )


def command_again(request: Request, steps: int) -> str:
    """The one command that does the training again."""
    gpu = request.device != "cpu"
    options: dict[str, object] = {
        "--data": request.data,
        "--test": request.test,
        "--pixel-mm": request.pixel_mm,
        "--volume": request.volume,
        "--steps": steps,
        "--seed": request.seed,
        "--version": request.version,
        "--from": Path(request.start).name if Path(request.start).is_absolute() else request.start,
        "--loss": request.loss,
        "--noisy": request.noisy,
        "--compiled": request.compiled,
        "--no-compiled": gpu and not request.compiled,  # a GPU compiles unless told not to
        "--device": request.device.partition(":")[0],
        "--about": request.about,
    }
    return command_line("train", request.name, options)


def _cpu() -> dict[str, Any]:
    # Younger than the oldest torch that is supported; without it bfloat16 is not worth its rounding.
    ask: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return ask()

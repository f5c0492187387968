"""What a run was asked for, kept in its folder: a stopped run goes on as it began, or not at all.

request.json holds every option with its value, the recipe's settings, the weights that were fine-tuned,
and one hash for the people and images of each part. `--resume` takes from it what is not given again.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from models import weights
from models.cases import Case
from models.train import SETTINGS, Stopped, TrainSettings, write_whole
from workers import device as devices
from workers.request import MODEL_FOLDER, Request, TrainingRefused, can_compile

Settings = TypeVar("Settings")

REQUEST = "request.json"
_OPTIONS = {
    "data": "--data",
    "test": "--test",
    "minutes": "--minutes",
    "steps": "--steps",
    "seed": "--seed",
    "version": "--version",
    "device": "--device",
    "compiled": "--compiled",
    "pixel_mm": "--pixel-mm",
    "volume": "--volume",
    "loss": "--loss",
    "start": "--from",
    "noisy": "--noisy",
    "lineage": "--about",
    "changes": "changes",
}


def request_of(name: str, out: Path, given: Mapping[str, Any], *, resume: bool) -> Request:
    """The request of a command; `given` are the fields of Request that were typed.

    With `resume` the others are those of the run in `out`. Raises TrainingRefused where it holds none
    that can go on, ModelRefused where its GPU is absent, WeightsError where `start` is no model.
    """
    kept: dict[str, Any] = {}
    if resume:
        require_folder(out, resume=True)
        kept = dict(_read(out, name)["request"])
        kept |= {field: tuple(map(Path, kept[field])) for field in ("data", "test") if field in kept}
    typed = dict(given)
    for field in ("data", "test"):
        if field in typed:
            typed[field] = tuple(path.absolute() for path in typed[field])
    if typed.get("start"):
        typed["start"] = _exact(typed["start"])
    asked = {**kept, **typed, "name": name, "out": out, "resume": resume}
    asked["device"] = devices.choose(asked.get("device", "auto"))
    asked.setdefault("compiled", asked["device"] != "cpu" and can_compile(asked["device"]))
    try:
        return Request(**asked)
    except TypeError as error:
        raise _damaged(out / REQUEST) from error


def require_folder(out: Path, *, resume: bool) -> None:
    """Raise TrainingRefused where the run folder does not fit: finished, begun, or not begun."""
    if (out / MODEL_FOLDER).exists():
        raise TrainingRefused(f"{out} holds a finished model; choose another run folder")
    begun = (out / SETTINGS).exists()
    if begun and not resume:
        raise TrainingRefused(f"{out} holds a run; go on with --resume or choose another run folder")
    if resume and not (out / REQUEST).exists():
        why = f"does not say what was asked (no {REQUEST}); choose another run folder"
        raise TrainingRefused(f"{out} {why}" if begun else f"{out} holds no run to resume")


def require_same(request: Request) -> None:
    """Raise TrainingRefused where something else is asked than what the run in the folder began with."""
    began, now = _read(request.out, request.name)["request"], _plain(request)
    for field, option in _OPTIONS.items():
        if began.get(field) != now[field]:
            raise TrainingRefused(
                f"{option} {_shown(now[field])} is asked, and the run in {request.out} began with "
                f"{_shown(began.get(field))}; leave it out or choose another run folder"
            )


def keep(
    request: Request,
    settings: Mapping[str, Any],
    steps: int,
    base: weights.LoadedModel | None,
    parts: Mapping[str, Sequence[Case]],
) -> None:
    """Write what a new run is asked for; of a resumed one, raise TrainingRefused where images differ.

    `parts` are the people of "training", "calibration" and "test".
    """
    marks = {part: _mark(cases) for part, cases in parts.items()}
    start = None if base is None else base.weights_sha256
    now = {
        "request": {**_plain(request), "steps": steps},
        "settings": dict(settings),
        "start_weights": start,
        "parts": marks,
    }
    if not request.resume:
        request.out.mkdir(parents=True, exist_ok=True)
        write_whole(request.out / REQUEST, json.dumps(now, indent=2) + "\n")
        return
    began = _read(request.out, request.name)
    if began.get("start_weights") != start:
        raise TrainingRefused(f"--from {request.start}: its weights are not those that the run began with")
    for part, mark in marks.items():
        if began["parts"].get(part) != mark:
            raise TrainingRefused(
                f"the {part} part is not the one that the run in {request.out} began with: its people or "
                "their images changed; choose another run folder"
            )


def kept_settings(request: Request, kind: type[Settings]) -> Settings:
    """The recipe's settings, of that class, that the run in the folder began with."""
    kept = dict(_read(request.out, request.name)["settings"])
    kept |= {name: tuple(value) for name, value in kept.items() if isinstance(value, list)}
    try:
        if "train" in kept:
            kept["train"] = TrainSettings(**kept["train"])
        return kind(**kept)
    except TypeError as error:
        raise _damaged(request.out / REQUEST) from error


def stopped(name: str, out: Path, stop: KeyboardInterrupt) -> str:
    """What a person reads after Ctrl-C: how far the run came, and the command that goes on."""
    if not (out / REQUEST).exists():
        return "stopped before there was anything to go on with"
    again = shlex.join(["aenode", "train", name, "--out", str(out), "--resume"])
    return f"{stop if isinstance(stop, Stopped) else 'stopped'}; go on with: {again}"


def _exact(start: str) -> str:
    """NAME/VERSION of a model of the zoo, the whole path of another: a newer version changes neither."""
    folder = weights.resolve(start).resolve()
    if folder.is_relative_to(weights.ZOO.resolve()):
        return f"{folder.parent.name}/{folder.name}"
    return str(folder)


def _plain(request: Request) -> dict[str, Any]:
    """As JSON gives it back; where the run lies is not part of it."""
    words = asdict(request)
    del words["out"], words["resume"]
    plain: dict[str, Any] = json.loads(json.dumps(words, default=str))
    return plain


def _read(out: Path, name: str) -> dict[str, Any]:
    """request.json of a run of this recipe; settings.json, where there is one, is whole too."""
    path = out / REQUEST
    try:
        whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        trained = whole["request"]["name"]
        for part in ("settings", "parts"):
            dict(whole[part])
        path = out / SETTINGS
        if path.exists():
            json.loads(path.read_text(encoding="utf-8"))["git"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if trained != name:
        raise TrainingRefused(f"{out} holds a run of {trained}, not of {name}; choose another run folder")
    return whole


def _damaged(path: Path) -> TrainingRefused:
    return TrainingRefused(f"{path} is damaged or of another version; choose another run folder")


def _mark(cases: Sequence[Case]) -> str:
    """One hash for people and pixels, whatever their order."""
    marks = []
    for case in cases:
        mark = sha256(f"{case.person} {case.volume.shape} {case.spacing}".encode())
        mark.update(np.ascontiguousarray(case.volume).data)
        marks.append(mark.hexdigest())
    return sha256("\n".join(sorted(marks)).encode()).hexdigest()


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else f"{value}"

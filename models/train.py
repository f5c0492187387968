"""One plain training loop for every network: seeded, with averaged weights, and able to go on after a stop.

A run folder holds settings.json (settings, git revision, versions), curves.csv and curves.png,
last.safetensors and best.safetensors (averaged weights), and state.pt, from which a stopped run goes
on. All randomness of a step comes from (seed, step), so a run that was stopped ends as one that was not.
Ctrl-C lets the step end and writes the state; a second one stops at once, and the steps since the last
state are done again.
"""

import json
import math
import pickle
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.curves import append_curves, cut_curves, plot_curves

Batch = TypeVar("Batch")

STATE, SETTINGS = "state.pt", "settings.json"
LAST, BEST = "last.safetensors", "best.safetensors"

# What torch and safetensors raise on a damaged file.
_PLAIN = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
_UNREADABLE = (*_PLAIN, pickle.PickleError, SafetensorError)


class TrainingError(Exception):
    """A run cannot start, go on, or came to values that are not finite."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a run after a whole step, and its state is kept."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after {step} of {steps} steps")
        self.step, self.steps = step, steps


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What shapes a run. A stopped run goes on only with the same settings."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200  # steps of a rising rate; then a half cosine down to a hundredth
    weight_decay: float = 0.0
    clip_gradient: float = 1.0
    ema_decay: float = 0.999
    seed: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    validate_every: int = 500  # steps; curves, weights and state are written as often


@dataclass(frozen=True)
class Progress:
    """Where a run stands; what a progress callback gets about once a second."""

    step: int
    steps: int
    loss: float  # mean since the last report of curves
    eta_seconds: float
    measures: dict[str, float]  # of the last validation


@dataclass(frozen=True)
class TrainResult:
    """A finished run; `network` has the averaged weights of the best validation."""

    network: torch.nn.Module
    run_folder: Path
    best_step: int
    best: float
    measures: dict[str, float]


@dataclass
class _Standing:
    """Where a run is, and what its next row of curves needs."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    total: float = 0.0  # of the losses since the last row
    counted: int = 0


def fit(
    network: torch.nn.Module,
    *,
    draw: Callable[[np.random.Generator], Batch],
    loss: Callable[[torch.nn.Module, Batch], torch.Tensor],
    settings: TrainSettings,
    run_folder: Path,
    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    judged_by: str = "loss",
    describe: dict[str, Any] | None = None,
    at_step: Callable[[int], None] = lambda _step: None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train `network` in place, or go on where a run in `run_folder` stopped.

    `draw` makes a batch from the step's generator (torch's own is seeded too); `loss` takes the network
    and a batch; `validate` measures the averaged network, and the lowest `judged_by` among its measures
    ("loss": the mean training loss) is the best. `at_step` is told each step before its batch is drawn;
    `describe` is kept with the settings. Raises TrainingError when the folder holds a run of other
    settings or a damaged one, or the loss is not finite; Stopped after Ctrl-C.
    """
    device = torch.device(settings.device)
    network.to(device).train()
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_averaging(settings.ema_decay))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    run_folder.mkdir(parents=True, exist_ok=True)
    at = _resume(run_folder, settings, network, average, optimizer)
    if at.step == 0:
        write_whole(run_folder / SETTINGS, _description(network, settings, describe or {}))
    measures: dict[str, float] = {}
    began, first, reported = time.monotonic(), at.step, 0.0
    with _interrupts() as interrupted:
        while at.step < settings.steps:
            torch.manual_seed(settings.seed * 1_000_003 + at.step)
            at_step(at.step)
            batch = draw(np.random.default_rng([settings.seed, at.step]))
            rate = _rate(settings, at.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with _autocast(settings):
                value = loss(network, batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
            optimizer.step()
            average.update_parameters(network)
            at.step, at.total, at.counted = at.step + 1, at.total + float(value.detach()), at.counted + 1
            if not math.isfinite(at.total):
                raise TrainingError(f"the loss is not finite at step {at.step}; try a lower learning rate")
            mean = at.total / at.counted
            if at.step % settings.validate_every == 0 or at.step == settings.steps:
                measures = {"loss": mean} | _validated(average.module, validate)
                save_file(_weights(average.module), run_folder / LAST)
                if measures[judged_by] <= at.best:
                    at.best, at.best_step = measures[judged_by], at.step
                    shutil.copyfile(run_folder / LAST, run_folder / BEST)
                append_curves(run_folder, {"step": float(at.step), "rate": rate, **measures})
                at.total, at.counted = 0.0, 0
                _save_state(run_folder, settings, network, average, optimizer, at)
            now = time.monotonic()
            if progress is not None and (now - reported >= 1 or at.step == settings.steps):
                reported = now
                eta = (now - began) / (at.step - first) * (settings.steps - at.step)
                progress(Progress(at.step, settings.steps, mean, eta, measures))
            if interrupted:
                _save_state(run_folder, settings, network, average, optimizer, at)
                raise Stopped(at.step, settings.steps)
    plot_curves(run_folder)
    network.load_state_dict(load_file(run_folder / BEST))
    return TrainResult(network.to("cpu").eval(), run_folder, at.best_step, at.best, measures)


def started(network: torch.nn.Module, initial: Mapping[str, torch.Tensor] | None) -> torch.nn.Module:
    """The network with the weights that a training begins from; as it is without.

    Raises TrainingError where they are another network's.
    """
    if initial is not None:
        try:
            network.load_state_dict(dict(initial))
        except RuntimeError as error:
            raise TrainingError("the model to begin from is of another architecture") from error
    return network


def compiled_if(wanted: bool, network: torch.nn.Module) -> torch.nn.Module:
    """What a loss calls: the network compiled on its first batch, or itself; both have the same weights.

    On a CPU a compiled step takes about 0.6 of the time with an anomaly model, 0.8 with a denoiser and no
    less with a VAE, after a minute of compiling; needs g++.
    """
    return cast(torch.nn.Module, torch.compile(network)) if wanted else network


def seconds_a_step(settings: TrainSettings, loss: Callable[[], torch.Tensor]) -> float:
    """How long a step takes here, measured on three after a first one; validation comes on top."""
    began = 0.0
    for _ in range(4):
        with _autocast(settings):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        float(value.detach())  # waits for the device
        began = began or time.monotonic()
    return (time.monotonic() - began) / 3


def git_revision() -> str:
    """The checkout's commit, with "+changes" where files differ from it; "unknown" outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def ask(*arguments: str) -> str:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            [git, *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return answer.stdout.strip()

    revision = ask("rev-parse", "HEAD")
    return (revision + ("+changes" if ask("status", "--porcelain", "--", ".") else "")) or "unknown"


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Fills with the first Ctrl-C, so that a step can end; a second one is raised at once.

    Where Ctrl-C is not Python's own to handle, it is left to whoever handles it.
    """
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    usual = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or usual is not signal.default_int_handler:
        yield came
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, usual)


def _validated(
    network: torch.nn.Module, validate: Callable[[torch.nn.Module], dict[str, float]] | None
) -> dict[str, float]:
    if validate is None:
        return {}
    network.eval()
    with torch.inference_mode():
        measures = validate(network)
    network.train()
    return measures


def _rate(settings: TrainSettings, step: int) -> float:
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))


def _averaging(decay: float) -> Callable[..., None]:
    """An exponential average that forgets the first, random weights soon."""

    def average(kept: Any, current: Any, count: Any) -> None:
        now = min(decay, (1 + float(count)) / (10 + float(count)))
        with torch.no_grad():
            torch._foreach_lerp_(kept, current, 1 - now)

    return average


def _autocast(settings: TrainSettings) -> Any:
    if settings.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(settings.device).type, torch.bfloat16)


def _weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _description(network: torch.nn.Module, settings: TrainSettings, describe: dict[str, Any]) -> str:
    whole = {
        "settings": asdict(settings),
        "network": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "git": git_revision(),
        "torch": torch.__version__,
        "described": describe,
    }
    return json.dumps(whole, indent=2) + "\n"


def _save_state(
    folder: Path,
    settings: TrainSettings,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    at: _Standing,
) -> None:
    state = {
        "settings": asdict(settings),
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "standing": asdict(at),
    }
    temporary = folder / (STATE + ".part")
    torch.save(state, temporary)
    temporary.replace(folder / STATE)


def _resume(
    folder: Path,
    settings: TrainSettings,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> _Standing:
    """Where to go on from; the beginning in a new folder."""
    path = folder / STATE
    if not path.exists():
        cut_curves(folder, 0)
        return _Standing()
    try:
        state = torch.load(path, map_location=settings.device, weights_only=True)
        kept, standing = state["settings"], _Standing(**state["standing"])
        if standing.best_step:
            path = folder / BEST
            load_file(path)
    except _UNREADABLE as error:
        raise TrainingError(
            f"{path} cannot be read: it is damaged or of another version; choose another run folder"
        ) from error
    if kept != asdict(settings):
        raise TrainingError(f"{folder.name!r} holds a run with other settings; choose another run folder")
    try:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"{folder.name!r} holds a run of another network") from error
    # What was written between the last state and the stop is done again.
    cut_curves(folder, standing.step)
    return standing


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

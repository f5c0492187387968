"""One plain training loop for every network: seeded, with averaged weights, and able to go on after a stop.

A run folder holds settings.json (settings, git revision, versions), curves.csv and curves.png,
last.safetensors and best.safetensors (averaged weights), and state.pt, from which a stopped run goes
on. All randomness of a step comes from (seed, step), so a run that was stopped ends as one that was not.
"""

import csv
import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Batch = TypeVar("Batch")

STATE, CURVES, PLOT, SETTINGS = "state.pt", "curves.csv", "curves.png", "settings.json"
LAST, BEST = "last.safetensors", "best.safetensors"


class TrainingError(Exception):
    """A run cannot start, go on, or came to values that are not finite."""


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
    `describe` is kept with the settings. Raises
    TrainingError when the folder holds a run of other settings or the loss is not finite.
    """
    device = torch.device(settings.device)
    network.to(device).train()
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_averaging(settings.ema_decay))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    run_folder.mkdir(parents=True, exist_ok=True)
    step, best, best_step = _resume(run_folder, settings, network, average, optimizer)
    if step == 0:
        _write_text(run_folder / SETTINGS, _description(network, settings, describe or {}))
    measures: dict[str, float] = {}
    total, counted, began, first, reported = 0.0, 0, time.monotonic(), step, 0.0
    while step < settings.steps:
        torch.manual_seed(settings.seed * 1_000_003 + step)
        at_step(step)
        batch = draw(np.random.default_rng([settings.seed, step]))
        rate = _rate(settings, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with _autocast(settings):
            value = loss(network, batch)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_gradient)
        optimizer.step()
        average.update_parameters(network)
        step += 1
        total, counted = total + float(value.detach()), counted + 1
        if not math.isfinite(total):
            raise TrainingError(f"the loss is not finite at step {step}; try a lower learning rate")
        if step % settings.validate_every == 0 or step == settings.steps:
            measures = {"loss": total / counted}
            if validate is not None:
                average.module.eval()
                with torch.inference_mode():
                    measures |= validate(average.module)
                average.module.train()
            save_file(_weights(average.module), run_folder / LAST)
            if measures[judged_by] <= best:
                best, best_step = measures[judged_by], step
                shutil.copyfile(run_folder / LAST, run_folder / BEST)
            _append_curves(run_folder, {"step": float(step), "rate": rate, **measures})
            _save_state(run_folder, settings, network, average, optimizer, step, best, best_step)
            total, counted = 0.0, 0
        now = time.monotonic()
        if progress is not None and (now - reported >= 1 or step == settings.steps):
            reported = now
            eta = (now - began) / (step - first) * (settings.steps - step)
            mean = total / counted if counted else measures["loss"]
            progress(Progress(step, settings.steps, mean, eta, measures))
    plot_curves(run_folder)
    network.load_state_dict(load_file(run_folder / BEST))
    return TrainResult(network.eval(), run_folder, best_step, best, measures)


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


def plot_curves(run_folder: Path) -> None:
    """Draw curves.csv as curves.png, a panel for each measure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only plots need it
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = _read_curves(run_folder)
    names = [name for name in rows[0] if name != "step"] if rows else []
    figure = Figure(figsize=(4 * max(1, len(names)), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        axes.plot([row["step"] for row in rows], [row[name] for row in rows])
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    figure.savefig(run_folder / PLOT, dpi=100)


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
    step: int,
    best: float,
    best_step: int,
) -> None:
    state = {
        "settings": asdict(settings),
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "best": best,
        "best_step": best_step,
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
) -> tuple[int, float, int]:
    """The step, best measure and its step to go on from; 0, infinity, 0 in a new folder."""
    path = folder / STATE
    if not path.exists():
        (folder / CURVES).unlink(missing_ok=True)
        return 0, math.inf, 0
    state = torch.load(path, map_location=settings.device, weights_only=True)
    if state["settings"] != asdict(settings):
        raise TrainingError(f"{folder.name!r} holds a run with other settings; choose another run folder")
    try:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"{folder.name!r} holds a run of another network") from error
    # What was written between the last state and the stop is done again.
    kept = [row for row in _read_curves(folder) if row["step"] <= state["step"]]
    (folder / CURVES).unlink(missing_ok=True)
    for row in kept:
        _append_curves(folder, row)
    return state["step"], state["best"], state["best_step"]


def _append_curves(folder: Path, row: dict[str, float]) -> None:
    path = folder / CURVES
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)


def _read_curves(folder: Path) -> list[dict[str, float]]:
    path = folder / CURVES
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)

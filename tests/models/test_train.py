"""The training loop: seeded, resumable, and honest about where it stands."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.train import Progress, Stopped, TrainingError, TrainResult, TrainSettings, fit
from tests.interrupts import press_ctrl_c

SETTINGS = TrainSettings(steps=12, learning_rate=0.02, warmup=2, ema_decay=0.9, seed=3, validate_every=4)


class _Stop(Exception):
    """What an impatient user does."""


def _fit(folder: Path, settings: TrainSettings = SETTINGS, **options: Any) -> TrainResult:
    """Learn to double a number, with dropout, so that torch's own randomness matters too."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def loss(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (network(batch) - 2 * batch).square().mean()

    def validate(network: nn.Module) -> dict[str, float]:
        return {"error": float(loss(network, torch.linspace(0, 1, 9)[:, None]))}

    return fit(
        network,
        draw=lambda rng: torch.from_numpy(rng.uniform(0, 1, (16, 1)).astype(np.float32)),
        loss=options.pop("loss", loss),
        settings=settings,
        run_folder=folder,
        validate=validate,
        judged_by="error",
        **options,
    )


def _curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Weights, averages and curves are the same to the last bit, wherever the run was stopped."""
    whole = _fit(tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step >= 6:
            raise _Stop

    torch_settings = TrainSettings(**{**vars(SETTINGS)})
    with pytest.raises(_Stop):
        _fit_reporting_each_step(tmp_path / "stopped", torch_settings, stop)
    assert not (tmp_path / "stopped" / "curves.png").exists()
    resumed = _fit(tmp_path / "stopped")
    for name in ("last.safetensors", "best.safetensors"):
        expected, found = (load_file(tmp_path / run / name) for run in ("whole", "stopped"))
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert _curves(tmp_path / "whole") == _curves(tmp_path / "stopped")
    assert (resumed.best_step, resumed.best) == (whole.best_step, whole.best)


def _interrupt_at(steps: set[int]) -> Any:
    """An `at_step` at which someone presses Ctrl-C."""
    return lambda step: press_ctrl_c() if step in steps else None


def test_ctrl_c_keeps_the_step_that_it_comes_in(tmp_path: Path) -> None:
    """Nothing is done again, and the means of the curves, too, are those of a run that was not stopped."""
    _fit(tmp_path / "whole")
    for stop in (5, 7, 11):  # within a stretch, at a validation, at the last step
        with pytest.raises(Stopped) as stopped:
            _fit(tmp_path / "stopped", at_step=_interrupt_at({stop}))
        assert (stopped.value.step, stopped.value.steps) == (stop + 1, 12)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    _fit(tmp_path / "stopped", at_step=_interrupt_at(set(range(12))))  # all steps are done
    assert _curves(tmp_path / "whole") == _curves(tmp_path / "stopped")
    expected, found = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "stopped"))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    """It is not held; the state is that of the last validation."""

    def twice(step: int) -> None:
        if step == 6:
            press_ctrl_c()
            press_ctrl_c()

    with pytest.raises(KeyboardInterrupt) as stopped:
        _fit(tmp_path, at_step=twice)
    assert not isinstance(stopped.value, Stopped)
    done: list[int] = []
    _fit(tmp_path, at_step=done.append)
    assert done[0] == 4


@pytest.mark.parametrize("name", ["state.pt", "best.safetensors", "curves.csv"])
def test_a_damaged_run_is_refused_by_file(tmp_path: Path, name: str) -> None:
    """A file cut short is named."""
    _fit(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with pytest.raises((TrainingError, ValueError), match=name):
        _fit(tmp_path)


def _fit_reporting_each_step(folder: Path, settings: TrainSettings, progress: Any) -> TrainResult:
    """A run whose loss tells the callback of each step, since reports come once a second at most."""
    steps = iter(range(1, 100))

    def loss(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        if network.training:
            progress(Progress(next(steps) - 1, settings.steps, 0.0, 0.0, {}))
        return (network(batch) - 2 * batch).square().mean()

    return _fit(folder, settings, loss=loss)


def test_training_lowers_the_loss_and_keeps_the_best(tmp_path: Path) -> None:
    """After some steps the error is far lower, and the result is the best of the validations."""
    settings = TrainSettings(steps=300, learning_rate=0.02, warmup=5, ema_decay=0.9, validate_every=50)
    result = _fit(tmp_path, settings)
    errors = [float(row["error"]) for row in _curves(tmp_path)]
    assert result.best == min(errors) < 0.2 * errors[0]
    assert result.best_step == 50 * (1 + errors.index(min(errors)))
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[key], tensor) for key, tensor in result.network.state_dict().items())
    assert not result.network.training


def test_a_run_folder_tells_how_it_was_made(tmp_path: Path) -> None:
    """settings.json has the settings, the network's size, the revision and what the caller describes."""
    heard: list[Progress] = []
    _fit(tmp_path, describe={"people": 7}, progress=heard.append)
    told = json.loads((tmp_path / "settings.json").read_text())
    assert told["settings"]["seed"] == 3
    assert told["parameters"] == 25
    assert told["described"] == {"people": 7}
    assert told["git"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert heard[-1].step == heard[-1].steps == 12
    assert heard[-1].eta_seconds == 0
    assert heard[-1].measures["error"] > 0


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    """A folder whose run had another seed is refused instead of mixed."""
    _fit(tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        _fit(tmp_path, TrainSettings(**{**vars(SETTINGS), "seed": 4}))


def test_a_run_of_another_network_is_not_continued(tmp_path: Path) -> None:
    """A folder whose weights do not fit the network is refused."""
    _fit(tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        fit(
            nn.Linear(1, 1),
            draw=lambda rng: torch.ones(1, 1),
            loss=lambda network, batch: network(batch).sum(),
            settings=SETTINGS,
            run_folder=tmp_path,
        )


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """The run stops with the step at which the loss was lost."""
    with pytest.raises(TrainingError, match="not finite at step 1"):
        _fit(tmp_path, loss=lambda network, batch: network(batch).sum() / 0)

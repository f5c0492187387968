"""Denoisers trained from end to end in seconds: files in, a model with its card out; stopped and resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models import evaluate, weights
from models import train as loop
from models import train_denoiser as td
from models.evaluate import WHOLE
from models.noise_mr import complex_noise, rician
from models.train import BEST, LAST, TrainSettings
from tests import series
from tests.models.test_mr_denoiser import _head as head
from workers import recipes
from workers.recipes import Request, Watch

SMALL = {"widths": (8, 16, 16), "blocks": 1}


def people(folder: Path, names: str, noise: float, slices: int = 5) -> Path:
    """Thin MR series of a made head, as files: neighbours show the same, their noise differs."""
    truth = 800 * head(slices, noise=0.001)
    for number, name in enumerate(names):
        drawn = complex_noise(truth.shape, 1.0, np.random.default_rng(100 * ord(name)))
        noisy = rician(truth, 800 * noise, drawn)
        images = [
            series.image(z + 1, plane, series=name, study=name, modality="MR", intercept=0.0)
            for z, plane in enumerate(noisy)
        ]
        for ds in images:
            ds.PatientID = f"{name}-{number}"
        series.write(folder / name, images)
    return folder


def test_a_denoiser_is_trained_from_noisy_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DICOM in; out comes a model that takes noise from people it never saw, and tells its promises."""
    torch.set_num_threads(1)
    monkeypatch.setattr(evaluate, "available", lambda: ("TV",))  # BM3D takes minutes
    request = Request(
        name="mr-denoise",
        data=(people(tmp_path / "train", "abc", 0.1),),
        test=(people(tmp_path / "test", "xyz", 0.01, 2),),
        out=tmp_path / "run",
        steps=120,
        noisy=True,
        changes={"architecture": SMALL, "batch": 4, "patch": 48},
    )
    said: list[str] = []
    card = recipes.train(request, Watch(note=said.append))
    model = weights.load(str(tmp_path / "run" / "model"))
    assert model.card == card and card["trained_people"] == 3 and said == []
    figures = card["metrics"]
    error = {(row["noise"], row["method"]): row["rmse_percent"] for row in figures["people"]["rows"]}
    assert figures["people"]["people"] == 2  # the first one tunes the filters
    assert error[0.1, WHOLE] < 0.97 * error[0.1, "noisy"]
    assert figures["phantom"]["rows"][-1]["sd_removed"] > 0.02
    text = (tmp_path / "run" / "model" / "CARD.md").read_text()
    assert "| contrast of the smallest disc |" in text
    pictures = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert pictures == ["best.png", "median.png", "worst.png"]
    assert "--noisy" in card["lineage"]["command"] and card["measured_by"].endswith("--seed 1")
    with pytest.raises(recipes.TrainingRefused, match="finished model"):
        recipes.train(request, Watch())


class _Stop(Exception):
    """Someone pulled the plug."""


def test_a_stopped_denoiser_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its simulated noise, too, is that of the step: weights are the same to the last bit."""
    torch.set_num_threads(1)
    settings = td.DenoiserSettings(
        train=TrainSettings(steps=9, warmup=2, ema_decay=0.9, validate_every=3),
        batch=4,
        patch=48,
        size=128,
        views=60,
        synthetic_slices=4,
        architecture=SMALL,
    )
    td.train_denoiser([], settings, tmp_path / "whole")
    saved = loop._save_state

    def pulled(*arguments: Any) -> None:
        saved(*arguments)
        if arguments[-1].step == 6:
            raise _Stop

    monkeypatch.setattr(loop, "_save_state", pulled)
    with pytest.raises(_Stop):
        td.train_denoiser([], settings, tmp_path / "stopped")
    monkeypatch.setattr(loop, "_save_state", saved)
    td.train_denoiser([], settings, tmp_path / "stopped")
    for name in (LAST, BEST):
        expected, found = (load_file(tmp_path / run / name) for run in ("whole", "stopped"))
        assert all(torch.equal(expected[key], found[key]) for key in expected), name

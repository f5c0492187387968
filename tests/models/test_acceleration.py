"""Faster ways to run a network: alike within what is declared, refused beyond it; and the export."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from models import acceleration, export, weights
from models.acceleration import Bfloat16, OpenVINO, accelerate
from models.denoiser import run_network, run_network_batch, slices_at_once
from models.vae import VAE
from tests.models.test_vae import SMALL
from tests.workers.models_made import anomaly_folder, denoiser_folder


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> weights.LoadedModel:
    return weights.load(str(denoiser_folder(tmp_path_factory.mktemp("models") / "0.0.1")))


@pytest.fixture(scope="module")
def anomaly(tmp_path_factory: pytest.TempPathFactory) -> weights.LoadedModel:
    return weights.load(str(anomaly_folder(tmp_path_factory.mktemp("models") / "0.0.1")))


def _batch(channels: int, height: int = 40, width: int = 64) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(3).normal(0, 0.05, (2, channels, height, width)).astype(np.float32)
    )


def test_the_reference_stays_what_it_is(denoiser: weights.LoadedModel) -> None:
    """Torch in float32 needs no other way."""
    assert accelerate(denoiser) is denoiser


@pytest.mark.parametrize(("backend", "kind"), [("torch", Bfloat16), ("openvino", OpenVINO)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_each_way_is_alike_within_its_tolerance(
    denoiser: weights.LoadedModel,
    anomaly: weights.LoadedModel,
    backend: acceleration.Backend,
    kind: type,
    precision: acceleration.Precision,
) -> None:
    """Any sides; the encoder that the gate asks is the reference's own."""
    if backend == "torch" and precision == "float32":
        return
    for model, channels in ((denoiser, 4), (anomaly, 1)):
        fast = accelerate(model, backend, precision, threads=1)
        assert isinstance(fast.network, kind)
        with torch.inference_mode():
            away = (fast.network(_batch(channels)) - model.network(_batch(channels))).abs().max()
            scales = fast.network.scales(_batch(channels)), model.network.scales(_batch(channels))
        assert float(away) <= 3 * acceleration.TOLERANCES[precision][0]
        assert all(torch.equal(a, b) for a, b in zip(*scales, strict=True))


def test_what_differs_too_much_is_refused(
    denoiser: weights.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance that no rounding can hold is not held."""
    monkeypatch.setitem(acceleration.TOLERANCES, "bfloat16", (1e-9, 1e-9))
    with pytest.raises(weights.WeightsError, match="in bfloat16 differs by"):
        accelerate(denoiser, "torch", "bfloat16")


def test_openvino_has_no_gpu_and_no_vae(denoiser: weights.LoadedModel) -> None:
    """It is for denoisers and anomaly models on a CPU."""
    for other in (replace(denoiser, device="cuda"), replace(denoiser, kind="vae")):
        with pytest.raises(weights.WeightsError, match="on a CPU"):
            accelerate(other, "openvino")


def test_a_batch_is_its_slices_one_by_one(denoiser: weights.LoadedModel) -> None:
    """Together and apart, in tiles and whole, the answers agree to a thousandth of a HU."""
    rng = np.random.default_rng(1)
    slices = rng.normal(40, 20, (3, 3, 60, 50)).astype(np.float32)
    sigma = np.array([10, 20, 30], np.float32)
    together = run_network_batch(denoiser.network, slices, sigma)
    for stack, level, found in zip(slices, sigma, together, strict=True):
        assert np.abs(found - run_network(denoiser.network, stack, float(level))).max() < 1e-3
    assert slices_at_once((64, 64), "cpu") == 8
    assert slices_at_once((512, 512), "cpu") == 1


@pytest.mark.parametrize("kind", ["denoiser", "anomaly", "vae"])
def test_an_export_runs_elsewhere_and_answers_the_same(
    kind: str, denoiser: weights.LoadedModel, anomaly: weights.LoadedModel, tmp_path: Path
) -> None:
    """Opset 17, free sides, a MONAI bundle's names, and the cautions."""
    model = {"denoiser": denoiser, "anomaly": anomaly}.get(kind)
    if model is None:
        torch.manual_seed(0)
        card = {"input": {"canvas": [64, 64], "modality": "DX"}}
        network = VAE(**SMALL).eval().requires_grad_(False)  # type: ignore[arg-type]  # JSON
        model = weights.LoadedModel("v", "0.0.1", "vae", "0" * 64, card, network, "cpu")
    paths = export.export(model, tmp_path / "out")
    assert [path.name for path in paths] == ["model.onnx", "metadata.json"]
    proto = onnx.load(paths[0])
    assert proto.opset_import[0].version == 17
    session = onnxruntime.InferenceSession(paths[0], providers=["CPUExecutionProvider"])
    batch = _batch(export.channels_of(model), *((64, 64) if kind == "vae" else (24, 72)))
    with torch.inference_mode():
        expected = model.network(batch).numpy()
    assert np.abs(session.run(None, {"image": batch.numpy()})[0] - expected).max() < 1e-4
    told = json.loads(paths[1].read_text())
    wanted = {"version", "task", "description", "authors", "copyright", "network_data_format", "intended_use"}
    assert wanted <= told.keys()
    assert told["network_data_format"]["inputs"]["image"]["num_channels"] == export.channels_of(model)
    assert "only aenode keeps them" in told["intended_use"]
    with pytest.raises(weights.WeightsError, match="exists"):
        export.export(model, tmp_path / "out")

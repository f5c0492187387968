"""Faster ways to run a network that was proven in float32: bfloat16 by torch, and OpenVINO on CPUs.

float32 in torch is the reference. bfloat16 is a mode that a site declares: its answers differ by about a
HU in a body. OpenVINO compiles for the CPU at hand, in either precision. Each way is compared with the
reference on a made image before it is used, and refused beyond its tolerance.
"""

import warnings
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.weights import LoadedModel, WeightsError

Precision = Literal["float32", "bfloat16"]
Backend = Literal["torch", "openvino"]

# Of the network's unit (1000 HU): the largest difference, and the mean one, from the reference.
TOLERANCES: dict[str, tuple[float, float]] = {"float32": (2e-4, 2e-5), "bfloat16": (2e-2, 2e-3)}
_NORMALISED = 3.0  # times that for anomaly models, whose normalisation of groups enlarges rounding
_SIDE = 96


class _Other(nn.Module):
    """A network that answers another way; its encoder's scales are the reference's."""

    def __init__(self, reference: nn.Module) -> None:
        super().__init__()
        self.reference = reference

    def scales(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What the reference's encoder says: the domain gate was fitted on it."""
        answers: list[torch.Tensor] = self.reference.scales(x)  # type: ignore[operator]  # nn.Module hides it
        return answers


class Bfloat16(_Other):
    """The reference under torch's autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the reference's shape, float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            out: torch.Tensor = self.reference(x).float()
        return out


class OpenVINO(_Other):
    """The reference compiled by OpenVINO for this CPU; sides stay free."""

    def __init__(self, reference: nn.Module, channels: int, precision: Precision, threads: int = 0) -> None:
        super().__init__(reference)
        library: Any = import_module("openvino")
        example = torch.zeros(1, channels, _SIDE, _SIDE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO traces, which torch calls old
            converted = library.convert_model(
                reference.to("cpu").eval(), example_input=example, input=[[-1, channels, -1, -1]]
            )
        settings = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self.compiled: Any = library.Core().compile_model(converted, "CPU", settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) on the CPU → the reference's shape, float32."""
        answer = self.compiled(np.ascontiguousarray(x.float().numpy()))
        return torch.from_numpy(np.array(answer[0], np.float32))


def accelerate(
    model: LoadedModel, backend: Backend = "torch", precision: Precision = "float32", threads: int = 0
) -> LoadedModel:
    """The model with a faster network; itself for torch in float32.

    Raises WeightsError where OpenVINO is asked for and absent, with a GPU, or for a variational
    autoencoder, and where the answers leave the tolerance.
    """
    if backend == "torch" and precision == "float32":
        return model
    channels = 4 if model.kind == "denoiser" else 1
    if backend == "openvino":
        if find_spec("openvino") is None:
            raise WeightsError("OpenVINO is not installed: pip install aenode[openvino]")
        if model.device != "cpu" or model.kind == "vae":
            raise WeightsError(
                f"OpenVINO runs denoisers and anomaly models on a CPU, not {model.name!r} here"
            )
        network: nn.Module = OpenVINO(model.network, channels, precision, threads)
    else:
        network = Bfloat16(model.network)
    _require_alike(model, network.eval(), channels, precision)
    return replace(model, network=network)


def _require_alike(model: LoadedModel, network: nn.Module, channels: int, precision: Precision) -> None:
    batch = torch.from_numpy(_made(channels)).to(model.device)
    with torch.inference_mode():
        away = (network(batch) - model.network(batch)).abs()
    most, mean = (
        value * (1.0 if model.kind == "denoiser" else _NORMALISED) for value in TOLERANCES[precision]
    )
    if not (float(away.max()) <= most and float(away.mean()) <= mean):
        raise WeightsError(
            f"{model.name!r} in {precision} differs by {float(away.max()):.3g}, allowed is {most:g}"
        )


def _made(channels: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    side = np.linspace(-1, 1, _SIDE)
    disc = np.hypot(*np.meshgrid(side, side)) < 0.8
    plane = np.where(disc, 0.05, -1.0 if channels > 1 else 0.0)
    batch = plane + 0.03 * rng.standard_normal((1, channels, _SIDE, _SIDE))
    if channels > 1:
        batch[:, -1] = 0.03
    return np.asarray(batch, np.float32)

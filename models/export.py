"""A model as ONNX with the words of a MONAI bundle's metadata, for other programs.

Opset 17; batch, height and width are free (a variational autoencoder's canvas is fixed), sides are
multiples of the network's factor. What surrounds the network (noise estimate, safety layer, calibration)
is not in the file, and the metadata says so.
"""

import io
import json
import warnings
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.weights import LoadedModel, WeightsError

OPSET = 17
ONNX_FILE, METADATA = "model.onnx", "metadata.json"
_TOLERANCE = 1e-4  # of the network's unit, between torch and the exported file
_TASKS = {
    "denoiser": "Denoising of a slice from itself and its neighbours",
    "anomaly": "Drawing of a slice as a normal person's would be, for an anomaly map",
    "vae": "Reconstruction of a slice from 128 codes",
}


def export(model: LoadedModel, folder: Path) -> list[Path]:
    """Write model.onnx and metadata.json to a new folder, and compare both sides' output.

    Raises WeightsError where the folder exists, a package is missing, or the outputs differ.
    """
    if folder.exists():
        raise WeightsError(f"{folder.name!r} exists; choose another folder")
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise WeightsError("an export needs onnx and onnxruntime: pip install onnx onnxruntime")
    data = to_onnx(model.network, channels_of(model), canvas_of(model))
    _compare(model, data)
    folder.mkdir(parents=True)
    (folder / ONNX_FILE).write_bytes(data)
    (folder / METADATA).write_text(json.dumps(metadata(model), indent=2, ensure_ascii=False) + "\n")
    return [folder / ONNX_FILE, folder / METADATA]


def to_onnx(network: nn.Module, channels: int, canvas: tuple[int, int] | None = None) -> bytes:
    """The network as ONNX; height and width are free unless `canvas` fixes them."""
    example = torch.zeros(2, channels, *(canvas or (64, 48)))
    free = {0: "batch"} if canvas else {0: "batch", 2: "height", 3: "width"}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter writes this opset without a conversion; that it is older it says each time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.to("cpu").eval(),
            (example,),
            stream,  # type: ignore[arg-type]  # the older exporter takes a stream, too
            opset_version=OPSET,
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": free, "pred": free},
            dynamo=False,
        )
    return stream.getvalue()


def channels_of(model: LoadedModel) -> int:
    """Input channels: three slices and the noise map for a denoiser, else one."""
    return 4 if model.kind == "denoiser" else 1


def canvas_of(model: LoadedModel) -> tuple[int, int] | None:
    """The fixed sides of a variational autoencoder's input; None where they are free."""
    if model.kind != "vae":
        return None
    height, width = model.card["input"]["canvas"]
    return (height, width)


def metadata(model: LoadedModel) -> dict[str, Any]:
    """What a MONAI bundle says of itself (metadata.json), with this project's cautions."""
    card = model.card
    lineage, words = card.get("lineage", {}), card.get("input", {})
    canvas = canvas_of(model)
    spatial = list(canvas) if canvas else ["8*n", "8*n"]
    channels = channels_of(model)
    names = words.get("channels", ["image"])
    return {
        "version": model.version,
        "changelog": {model.version: "exported"},
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "name": model.name,
        "task": _TASKS[model.kind],
        "description": lineage.get("description", ""),
        "authors": "aenode",
        "copyright": card.get("licence", "not stated"),
        "data_source": lineage.get("training_data", ""),
        "data_type": "dicom",
        "image_classes": f"{words.get('modality', '')} {words.get('plane', '')}".strip(),
        "intended_use": "Research; not for primary diagnosis. The bounds of the safety layer, the noise "
        "estimate and the calibration are not in this file: only aenode keeps them.",
        "eval_metrics": card.get("metrics", {}),
        "weights_sha256": model.weights_sha256,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude" if words.get("modality") == "MR" else "hounsfield",
                    "modality": words.get("modality", ""),
                    "num_channels": channels,
                    "spatial_shape": spatial,
                    "dtype": "float32",
                    "value_range": [-1.024, 4.0] if model.kind == "denoiser" else [0, 1],
                    "is_patch_data": False,
                    "channel_def": {str(n): names[n] if n < len(names) else "" for n in range(channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "same as the input",
                    "num_channels": 1,
                    "spatial_shape": spatial,
                    "dtype": "float32",
                    "is_patch_data": False,
                    "channel_def": {"0": "slice"},
                }
            },
        },
    }


def _compare(model: LoadedModel, data: bytes) -> None:
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    sides = canvas_of(model)
    for height, width in [sides] if sides else [(64, 48), (40, 120)]:
        batch: NDArray[np.float32] = rng.normal(0, 0.1, (3, channels_of(model), height, width)).astype(
            np.float32
        )
        with torch.inference_mode():
            expected = model.network(torch.from_numpy(batch)).numpy()
        difference = float(np.abs(session.run(None, {"image": batch})[0] - expected).max())
        if not difference <= _TOLERANCE:
            raise WeightsError(f"the exported network differs by {difference:.3g}")

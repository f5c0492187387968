"""Small model folders with random weights: real networks, real files, nothing learned."""

from pathlib import Path

import numpy as np
import torch

from models import weights
from models.anomaly import CoarseDAE
from models.denoiser import BFRAE


def denoiser_folder(
    folder: Path, *, widths: tuple[int, int, int] = (8, 16, 16), blocks: int = 1, modality: str = "CT"
) -> Path:
    """A denoiser that takes something off every pixel."""
    torch.manual_seed(3)
    network = BFRAE(widths, blocks)
    torch.nn.init.normal_(network.leave.weight, std=0.02)
    card = {
        "name": "test-denoise",
        "version": "0.0.1",
        "kind": "denoiser",
        "architecture": {"id": "bf-rae", "arguments": {"widths": list(widths), "blocks": blocks}},
        "input": {"modality": modality},
        "golden_tolerance": 1e-3,
        "max_strength": 0.6,
        "max_limit_sigma": 3.0,
    }
    golden = np.random.default_rng(1).normal(0, 0.1, (1, 4, 16, 16)).astype(np.float32)
    weights.save(folder, network, card, golden, "# A test's model\n")
    return folder


def anomaly_folder(folder: Path, *, threshold: float = 1.0, modality: str = "CT") -> Path:
    """An anomaly model for CT bodies whose score is near how bright the tissue is."""
    torch.manual_seed(4)
    card = {
        "name": "test-anomaly",
        "version": "0.0.1",
        "kind": "anomaly",
        "architecture": {"id": "coarse-dae", "arguments": {"widths": [4, 8], "groups": 2}},
        "input": {
            "modality": modality,
            "pixel_mm": 1.0,
            "canvas": [32, 32],
            "foreground": "body",
            "erode": 2,
            "median": 3,
            "sign": 1,
            "normalisation": {"knots": [-1000.0, 1000.0], "values": [0.0, 1.0]},
        },
        "golden_tolerance": 1e-3,
    }
    calibration = {
        "mean": np.zeros((20, 4), np.float32),
        "sd": np.full((20, 4), 0.2, np.float32),
        "threshold": np.array([threshold]),
        "false_positive_rate": np.array([0.01]),
        "series_scores": np.linspace(0, 1, 12).astype(np.float32),
    }
    golden = np.random.default_rng(1).normal(0, 0.1, (1, 1, 16, 16)).astype(np.float32)
    weights.save(folder, CoarseDAE((4, 8), 2), card, golden, "# A test's model\n", calibration)
    return folder

"""Made bodies and an anomaly network that was taught nothing, for tests of scores and of figures."""

import numpy as np
import torch
from numpy.typing import NDArray

from models import train_anomaly
from models.anomaly import CoarseDAE
from models.calibration import Calibration
from models.cases import Case
from models.weights import LoadedModel


def thorax(slices: int = 2, *, seed: int = 0) -> NDArray[np.float32]:
    """Made slices of 96 × 128 at 3 mm: a body with two lungs and a spine on a table, in HU."""
    y, x = np.mgrid[:96, :128]
    plane = np.full((96, 128), -1000.0)

    def fill(cy: float, cx: float, ry: float, rx: float, hu: float) -> None:
        plane[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = hu

    fill(48, 64, 36, 54, -100)
    fill(48, 64, 32, 50, 50)
    fill(46, 42, 22, 17, -850)
    fill(46, 86, 22, 17, -850)
    fill(70, 64, 8, 8, 300)
    plane[90:92, 10:118] = 100
    noise = np.random.default_rng(seed).normal(0, 8, (slices, 96, 128))
    return (plane + noise).astype(np.float32)


def case(volume: NDArray[np.float32], person: str = "one", modality: str = "CT") -> Case:
    return Case(person, "made", modality, volume, np.zeros(volume.shape, bool), (3.0, 3.0))


def nothing(volume: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.zeros(volume.shape, np.bool_)


def untaught_model() -> LoadedModel:
    """A small random network with a calibration of unit SD."""
    torch.manual_seed(0)
    flat = np.ones((20, 4), np.float32)
    arrays = Calibration(0 * flat, flat, 2.0, 0.005, np.arange(3, dtype=np.float32)).to_arrays()
    card = {"input": train_anomaly.INPUTS["ct-anomaly"]}
    network = CoarseDAE((8, 16), 4).eval()
    return LoadedModel("x", "0.0.1", "anomaly", "0" * 64, card, network, "cpu", arrays)

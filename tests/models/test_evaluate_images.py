"""Whole images: the area under the curve, its interval, and the plain rivals of a network."""

import numpy as np
import pytest
import torch
from scipy import stats

from models import evaluate_images, train_anomaly
from models.anomaly import CoarseDAE
from models.calibration import Calibration
from models.cases import Case
from models.pca import PrincipalComponents, fit_components
from models.preparation import Contract
from models.weights import LoadedModel


def film(seed: int, opacity: float = 0.0) -> np.ndarray:
    """A made chest film (1, 96, 96): bright outside of two dark lungs, one of them perhaps filled."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96] + rng.normal(0, 1.5, 2)[:, None, None]
    plane = np.full((96, 96), 170.0)
    for centre in (30, 66):
        plane -= 100 / (1 + np.exp((np.hypot((y - 48) / 1.6, x - centre) - 15) / 1.5))
    plane += opacity / (1 + np.exp((np.hypot(y - 55, x - 31) - 9) / 2))
    return (plane + rng.normal(0, 3, plane.shape))[None].astype(np.float32)


def case(seed: int, opacity: float = 0.0, person: str = "") -> Case:
    volume = film(seed, opacity)
    nothing = np.zeros(volume.shape, bool)
    return Case(person or f"p{seed}", "made", "DX", volume, nothing, (1.0, 1.0), abnormal=opacity > 0)


def test_areas_are_those_of_scipy() -> None:
    """AUROC is Mann and Whitney's U with ties; average precision is 1 for a perfect order."""
    rng = np.random.default_rng(0)
    abnormal = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + abnormal, 1)
    u = stats.mannwhitneyu(scores[abnormal], scores[~abnormal]).statistic
    expected = u / (abnormal.sum() * (~abnormal).sum())
    assert evaluate_images.auroc(scores, abnormal) == pytest.approx(expected)
    assert np.isnan(evaluate_images.auroc(scores, np.zeros(60, bool)))
    assert evaluate_images.average_precision(abnormal.astype(float), abnormal) == 1


def test_components_draw_what_they_saw_and_not_what_they_did_not() -> None:
    """A film like the others is drawn well, an opacity is not; the arrays of a folder give the same."""
    images = [film(n)[0] / 255 for n in range(24)]
    components = fit_components(images, (96, 96), codes=6)
    assert components.components.shape == (6, 48, 48)
    gram = components.components.reshape(6, -1) @ components.components.reshape(6, -1).T
    assert np.allclose(gram, np.eye(6), atol=1e-4)
    usual, filled = film(50) / 255, film(50, 80) / 255
    errors = [np.abs(x - components.drawn(x))[:, 50:60, 26:36].mean() for x in (usual, filled)]
    assert errors[1] > 3 * errors[0]
    again = PrincipalComponents.of(components.to_arrays())
    assert again is not None
    assert np.abs(again.drawn(usual) - components.drawn(usual)).max() < 0.02
    assert PrincipalComponents.of({}) is None
    wider = np.pad(usual, ((0, 0), (8, 8), (0, 16)))
    assert components.drawn(wider).shape == wider.shape
    with pytest.raises(ValueError, match="no principal components"):
        fit_components(images[:2], (96, 96))


def test_images_are_judged_beside_their_baselines() -> None:
    """An untaught network does not surely beat the baselines, and the figures say so, by people."""
    torch.manual_seed(0)
    flat = np.ones((20, 4), np.float32)
    rule = {"percentiles": [1, 99.5], "values": [0.05, 0.95]}
    card = {"input": {**train_anomaly.INPUTS["chest-xray-anomaly"], "normalisation": rule}}
    ready, _ = train_anomaly.prepare_cases([case(n) for n in range(24)], Contract.of(card))
    components = fit_components([one.image[0] for one in ready], (128, 128), codes=6)
    arrays = Calibration(0 * flat, flat, 2.0, 0.005, np.arange(3, dtype=np.float32)).to_arrays()
    model = LoadedModel(
        "x",
        "0.0.1",
        "anomaly",
        "0" * 64,
        card,
        CoarseDAE((4, 8), 2).eval(),
        "cpu",
        arrays | components.to_arrays(),
    )
    cases = [case(100 + n) for n in range(8)] + [case(200 + n, 70, person=f"q{n // 2}") for n in range(8)]
    figures = evaluate_images.evaluate_images(model, cases)
    assert figures is not None
    assert (figures["images"], figures["people"], figures["prevalence"]) == (16, 12, 0.5)
    rows = {row["method"]: row for row in figures["rows"]}
    assert set(rows) == {"model", "intensity", "PCA"}
    assert rows["PCA"]["auroc"] > 0.8
    low, high = rows["PCA"]["auroc_interval"]
    assert low <= rows["PCA"]["auroc"] <= high
    assert not figures["beats_baseline"]
    assert evaluate_images.evaluate_images(model, cases[:8]) is None
    assert evaluate_images.evaluate_images(model, cases) == figures

"""Whole images that are known to be normal or not: does the model's one number tell them apart?

Beside it stand the equalised intensity in the middle of the film, which knows no anatomy, and the error
of principal components. The interval of the difference comes from a bootstrap over people.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anomaly import OutsideDomain, score
from models.calibration import slice_score
from models.cases import Case
from models.intervals import bootstrap_of, surely_above
from models.pca import PrincipalComponents
from models.preparation import Contract, prepare
from models.weights import LoadedModel

Figures = dict[str, Any]
_MIDDLE = slice(1, -1)  # of four parts along each side


def evaluate_images(model: LoadedModel, cases: Sequence[Case], *, seed: int = 1) -> Figures | None:
    """AUROC and average precision over images, as JSON; None where not both kinds are among the cases."""
    known = [case for case in cases if case.abnormal is not None]
    if len({case.abnormal for case in known}) < 2:
        return None
    contract = Contract.of(model.card)
    components = PrincipalComponents.of(model.calibration)
    scores: dict[str, list[float]] = {}
    people: list[str] = []
    truth: list[bool] = []
    for case in known:
        try:
            found = scores_of(model, contract, components, case)
        except OutsideDomain:
            continue
        people.append(case.person)
        truth.append(bool(case.abnormal))
        for method, value in found.items():
            scores.setdefault(method, []).append(value)
    if len(set(truth)) < 2:
        return None
    abnormal = np.array(truth)
    named = {method: np.array(values) for method, values in scores.items()}
    return _figures(named, abnormal, np.array(people), seed)


def scores_of(
    model: LoadedModel, contract: Contract, components: PrincipalComponents | None, case: Case
) -> dict[str, float]:
    """One number an image from the model and from each baseline. Raises OutsideDomain."""
    found = score(model, case.volume, padding=case.padding, spacing=case.spacing, slice_mm=case.slice_mm)
    prepared = prepare(case.volume, case.padding, case.spacing, contract)
    height, width = prepared.image.shape[1:]
    middle = prepared.image[:, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    numbers = {"model": found.series_score, "intensity": contract.sign * float(middle.mean())}
    if components is not None:
        wrong = contract.sign * (prepared.image - components.drawn(prepared.image)) * prepared.foreground
        size = (1, contract.median, contract.median)
        smooth = ndimage.median_filter(wrong, size=size, mode="nearest")
        judged = prepared.depth > contract.erode
        numbers["PCA"] = max(
            slice_score(plane[inside], contract.quantile)
            for plane, inside in zip(smooth, judged, strict=True)
        )
    return numbers


def auroc(scores: NDArray[np.float64], abnormal: NDArray[np.bool_]) -> float:
    """The chance that an abnormal image scores above a normal one, ties half; NaN without both."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    first = np.searchsorted(ranked, scores, side="left")
    last = np.searchsorted(ranked, scores, side="right")
    positives = int(abnormal.sum())
    negatives = len(abnormal) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = (first + last + 1) / 2
    return float((ranks[abnormal].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: NDArray[np.float64], abnormal: NDArray[np.bool_]) -> float:
    """The area under precision and recall, in steps."""
    hits = abnormal[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else float("nan")


def _figures(
    scores: dict[str, NDArray[np.float64]],
    abnormal: NDArray[np.bool_],
    people: NDArray[np.str_],
    seed: int,
) -> Figures:
    persons = sorted(set(people.tolist()))
    of_person = [np.flatnonzero(people == person) for person in persons]

    def drawn(chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.concatenate([of_person[n] for n in chosen])

    def interval(method: str, other: str | None = None) -> tuple[float, float] | None:
        def measure(chosen: NDArray[np.intp]) -> float:
            rows = drawn(chosen)
            value = auroc(scores[method][rows], abnormal[rows])
            return value if other is None else value - auroc(scores[other][rows], abnormal[rows])

        return bootstrap_of(len(persons), measure, seed=seed, repeats=500)

    areas = {method: auroc(values, abnormal) for method, values in scores.items()}
    best = max((method for method in areas if method != "model"), key=lambda method: areas[method])
    against = interval("model", best)
    return {
        "people": len(persons),
        "images": len(abnormal),
        "prevalence": round(float(abnormal.mean()), 4),
        "rows": [
            {
                "method": method,
                "auroc": round(areas[method], 4),
                "auroc_interval": interval(method),
                "ap": round(average_precision(values, abnormal), 4),
            }
            for method, values in scores.items()
        ],
        "best_baseline": best,
        "auroc_gain": round(areas["model"] - areas[best], 4),
        "auroc_gain_interval": against,
        "beats_baseline": surely_above(against),
    }

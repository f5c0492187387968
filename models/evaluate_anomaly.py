"""What an anomaly model is worth, beside what a plain threshold is worth, on people it never saw.

Cases with a known lesion mask are judged as they are. In cases without one, lesions of known
place are inserted (and the untouched case gives the false positives). Each row of figures has its
baselines: the intensity after histogram equalisation (Meissen et al. 2022), the intensity less its
30 mm median, and principal components with as many codes as an autoencoder of this size would have.
Films that are known to be normal or not are judged as wholes, too. Nothing here is a clinical result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anomaly import OutsideDomain, score
from models.cases import Case
from models.evaluate_images import evaluate_images
from models.intervals import bootstrap
from models.pca import PrincipalComponents
from models.preparation import Contract, prepare, restore
from models.weights import LoadedModel

Figures = dict[str, Any]

_MEDIAN_MM = 30.0
_COARSE_MM = 4.0
_DIAMETERS_MM = (8.0, 12.0, 16.0, 20.0)
_PER_SLICE = 3  # inserted lesions
METHODS = ("model", "intensity", "local contrast", "PCA")
_RATES = (0.02, 0.01, 0.005, 0.002, 0.001)  # of normal pixels above a threshold, for lesions against regions
FOUND = 0.2  # share of an inserted lesion's pixels above the threshold that counts as found


@dataclass(frozen=True)
class _Judged:
    """Scores of one case on its evaluated pixels."""

    case: Case
    evaluated: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float32]]  # by method, each (Z, Y, X)


def evaluate(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Figures of `model` on `cases`, as JSON: "normals", "lesions" (a row each), "beats_baseline".

    "images" has the figures of whole films where both kinds are known. Raises ValueError where no case
    could be judged.
    """
    contract = Contract.of(model.card)
    images = evaluate_images(model, cases, seed=seed)
    normals: list[_Judged] = []
    truths: list[tuple[str, _Judged]] = []
    notes: list[str] = []
    for number, case in enumerate(cases):
        try:
            judged = _judge(model, contract, case)
        except OutsideDomain as error:
            notes.append(f"a case of {len(case.volume)} slices is left out: {error}")
            continue
        if case.abnormal:
            pass  # known as a whole only: see evaluate_images
        elif case.lesion is None:
            normals.append(judged)
            for kind in INSERTED[contract.modality]:
                changed = insert(case, judged.evaluated, kind, np.random.default_rng([seed, number]))
                if changed.lesion is not None and changed.lesion.any():
                    truths.append((f"inserted: {kind}", _judge(model, contract, changed)))
        else:
            truths.append(("expert mask", judged))
        if progress is not None:
            progress(number + 1, len(cases))
    if not normals and not truths:
        raise ValueError("no case could be judged: " + "; ".join(notes))
    threshold = float(model.calibration["threshold"][0])
    thresholds = {"model": threshold} | _thresholds(normals, model)
    rows = _rows(truths, thresholds)
    return {
        "normals": _false_positives(normals, threshold),
        "lesions": rows,
        **({} if images is None else {"images": images}),
        "beats_baseline": _beats(rows, "intensity") and (images is None or images["beats_baseline"]),
        "beats_local_contrast": _beats(rows, "local contrast"),
        "beats_pca": _beats(rows, "PCA"),
        "recall": _recall_by_regions(normals, [judged for _, judged in truths]),
        "threshold": threshold,
        "seed": seed,
        "notes": notes,
    }


def _beats(rows: Sequence[Figures], method: str) -> bool:
    known = [row for row in rows if method in row]
    return bool(known) and all(row["model"]["ap"] > row[method]["ap"] for row in known)


def figures_of(scores: NDArray[np.float32], truth: NDArray[np.bool_], threshold: float | None) -> Figures:
    """Average precision, AUROC, Dice at `threshold` and the best Dice of any threshold, over pixels."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order], dtype=np.float64)
    ranked = scores[order]
    # Equal scores stand or fall together, so only the last of each is a possible threshold.
    last = np.append(ranked[1:] != ranked[:-1], True)
    true, marked = hits[last], np.flatnonzero(last) + 1.0
    positives, negatives = float(hits[-1]), float(len(truth) - hits[-1])
    precision, recall = true / marked, true / positives
    false = (marked - true) / negatives
    best = float(np.max(2 * true / (marked + positives)))
    fixed = None
    if threshold is not None:
        above = scores > threshold
        fixed = float(2 * np.sum(above & truth) / max(1.0, np.sum(above) + positives))
    return {
        "ap": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
        "auroc": float(np.sum(np.diff(false, prepend=0.0) * (recall + np.append(0.0, recall[:-1])) / 2)),
        "dice_fixed": fixed,
        "dice_oracle": best,
    }


def insert(case: Case, allowed: NDArray[np.bool_], kind: str, rng: np.random.Generator) -> Case:
    """A copy of `case` with up to three soft-edged discs a slice of a known place and kind."""
    volume = case.volume.copy()
    lesion = np.zeros(volume.shape, np.bool_)
    fits, change = INSERTED[case.modality][kind]
    mm = np.array(case.spacing)
    for k, plane in enumerate(case.volume):
        for _ in range(_PER_SLICE):
            diameter = float(rng.choice(_DIAMETERS_MM))
            tissue = (fits(plane, plane[allowed[k]]) & allowed[k]).astype(np.float32)
            size = np.maximum(1, np.round(diameter / mm)).astype(int)
            room = ndimage.uniform_filter(tissue, size=tuple(size), mode="constant") > 0.9
            places = np.argwhere(room & ~lesion[k])
            if not len(places):
                continue
            centre = places[rng.integers(len(places))]
            y, x = np.ogrid[: plane.shape[0], : plane.shape[1]]
            distance = np.hypot((y - centre[0]) * mm[0], (x - centre[1]) * mm[1])
            weight = np.clip((diameter / 2 - distance) / 1.5 + 0.5, 0, 1).astype(np.float32)
            volume[k] = change(volume[k], weight)
            lesion[k] |= weight > 0.5
    return replace(case, volume=volume, lesion=lesion & allowed)


def _plausible(plane: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not inside.size:
        return np.zeros(plane.shape, np.bool_)
    low, high = np.percentile(inside, [60, 99])
    return np.asarray((plane > low) & (plane < high), np.bool_)


def _darker(plane: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(plane < (np.median(inside) if inside.size else -np.inf), np.bool_)


Fits = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.bool_]]
Change = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

# Where an inserted lesion may lie, and what it does to the pixels (weight 0…1).
INSERTED: Mapping[str, Mapping[str, tuple[Fits, Change]]] = {
    "CT": {
        "solid nodule in lung, 30 HU": (
            lambda plane, _: np.asarray((plane > -980) & (plane < -700), np.bool_),
            lambda plane, weight: plane + weight * (30 - plane),
        ),
        "dense spot in soft tissue, +80 HU": (
            lambda plane, _: np.asarray((plane > -20) & (plane < 120), np.bool_),
            lambda plane, weight: plane + 80 * weight,
        ),
    },
    "MR": {
        "dark spot in white matter, -35 %": (
            _plausible,
            lambda plane, weight: plane * (1 - np.float32(0.35) * weight),
        ),
    },
    "DX": {
        "opacity in a lung, +40 of 255": (
            _darker,
            lambda plane, weight: plane + 40 * weight,
        ),
    },
}


def _judge(model: LoadedModel, contract: Contract, case: Case) -> _Judged:
    found = score(model, case.volume, padding=case.padding, spacing=case.spacing, slice_mm=case.slice_mm)
    equalised = np.zeros_like(case.volume)
    inside = case.volume[found.evaluated]
    if inside.size:
        ranks = np.searchsorted(np.sort(inside), inside, side="right") / inside.size
        equalised[found.evaluated] = ranks if contract.sign > 0 else 1 - ranks
    local = np.zeros_like(case.volume)
    fine = max(1, round(contract.pixel_mm / case.spacing[0]))
    step = max(1, round(_COARSE_MM / case.spacing[0]))
    size = round(_MEDIAN_MM / (case.spacing[0] * step))
    for k, plane in enumerate(case.volume):
        # The median of every few pixels is much the same and far cheaper.
        middle = ndimage.median_filter(plane[::step, ::step], size=size)
        whole = np.repeat(np.repeat(middle, step, 0), step, 1)[: plane.shape[0], : plane.shape[1]]
        local[k] = contract.sign * (ndimage.uniform_filter(plane, size=2 * fine - 1) - whole)
    scores = {"model": found.score, "intensity": equalised, "local contrast": local}
    components = PrincipalComponents.of(model.calibration)
    if components is not None:
        prepared = prepare(case.volume, case.padding, case.spacing, contract)
        wrong = contract.sign * (prepared.image - components.drawn(prepared.image)) * prepared.foreground
        smooth = ndimage.median_filter(wrong, size=(1, contract.median, contract.median), mode="nearest")
        scores["PCA"] = np.where(found.evaluated, restore(smooth, prepared), 0).astype(np.float32)
    return _Judged(case, found.evaluated, scores)


def _thresholds(normals: Sequence[_Judged], model: LoadedModel) -> dict[str, float]:
    """What the baselines exceed as rarely in these normals as the model is meant to."""
    rate = float(model.calibration["false_positive_rate"][0])
    return {
        method: float(np.quantile(np.concatenate([n.scores[method][n.evaluated] for n in normals]), 1 - rate))
        for method in METHODS[1:]
        if normals and method in normals[0].scores
    }


def _rows(truths: Sequence[tuple[str, _Judged]], thresholds: Mapping[str, float]) -> list[Figures]:
    """A row a kind of inserted lesion over all people, and a row a person with an expert's mask."""
    groups: dict[str, list[_Judged]] = {}
    for kind, judged in truths:
        person = sum(name.startswith("expert mask") for name in groups) + 1
        groups.setdefault(f"{kind}, person {person}" if kind == "expert mask" else kind, []).append(judged)
    rows = []
    for kind, members in groups.items():
        truth = np.concatenate([_lesion(m)[m.evaluated] for m in members])
        if not truth.any():
            continue
        row: Figures = {
            "kind": kind,
            "people": len({m.case.person for m in members}),
            "slices": sum(len(m.case.volume) for m in members),
            "prevalence": float(truth.mean()),
            "lesion_pixels_judged": float(truth.sum() / sum(_lesion(m).sum() for m in members)),
        }
        for method in (name for name in METHODS if name in members[0].scores):
            scores = np.concatenate([m.scores[method][m.evaluated] for m in members])
            row[method] = figures_of(scores, truth, thresholds.get(method))
        row["against"] = _against(row, members)
        row["found"], row["lesions"] = _recall(members, thresholds["model"], flat=kind.startswith("inserted"))
        rows.append(row)
    return rows


def _against(row: Figures, members: Sequence[_Judged]) -> Figures:
    """The model's average precision less that of the best baseline, person by person."""
    best = max((name for name in METHODS[1:] if name in row), key=lambda name: float(row[name]["ap"]))
    gains: dict[str, list[float]] = {}
    for judged in members:
        truth = _lesion(judged)[judged.evaluated]
        if truth.any():
            ours, theirs = (
                float(figures_of(judged.scores[name][judged.evaluated], truth, None)["ap"])
                for name in ("model", best)
            )
            gains.setdefault(judged.case.person, []).append(ours - theirs)
    return {
        "best_baseline": best,
        "ap_gain": float(np.mean([np.mean(values) for values in gains.values()])),
        "ap_gain_interval": bootstrap(gains),
    }


def _recall_by_regions(normals: Sequence[_Judged], truths: Sequence[_Judged]) -> list[Figures]:
    """Lesions found against false regions a slice, at thresholds from loose to strict."""
    if not normals or not truths:
        return []
    scores = np.concatenate([n.scores["model"][n.evaluated] for n in normals])
    slices = sum(len(n.case.volume) for n in normals)
    found = []
    for threshold in np.quantile(scores, [1 - rate for rate in _RATES]):
        marked = [n.evaluated & (n.scores["model"] > threshold) for n in normals]
        regions = sum(ndimage.label(plane)[1] for volume in marked for plane in volume)
        hits, lesions = _recall(truths, float(threshold), flat=True)
        if lesions:
            found.append(
                {
                    "threshold": round(float(threshold), 3),
                    "false_regions_a_slice": round(regions / slices, 3),
                    "recall": round(hits / lesions, 3),
                }
            )
    return found


def _recall(members: Sequence[_Judged], threshold: float, *, flat: bool) -> tuple[int, int]:
    """Lesions found, and all; `flat` ones do not go on in the next slice."""
    structure = ndimage.generate_binary_structure(3, 1)
    if flat:
        structure[[0, 2]] = False
    found = count = 0
    for judged in members:
        labels, number = ndimage.label(_lesion(judged) & judged.evaluated, structure)
        if number:
            above = judged.scores["model"] > threshold
            shares = np.asarray(ndimage.mean(above, labels, np.arange(1, number + 1)))
            found, count = found + int(np.sum(shares >= FOUND)), count + int(number)
    return found, count


def _false_positives(normals: Sequence[_Judged], threshold: float) -> Figures:
    marked = [n.evaluated & (n.scores["model"] > threshold) for n in normals]
    slices = sum(len(n.case.volume) for n in normals)
    regions = sum(ndimage.label(plane)[1] for volume in marked for plane in volume)
    pixels = sum(int(n.evaluated.sum()) for n in normals)
    rates = [float(m.sum() / max(1, n.evaluated.sum())) for m, n in zip(marked, normals, strict=True)]
    return {
        "people": len({n.case.person for n in normals}),
        "slices": slices,
        "false_positive_rate": sum(int(m.sum()) for m in marked) / pixels if pixels else None,
        "false_positive_rate_worst_case": max(rates, default=None),
        "false_regions_a_slice": regions / slices if slices else None,
    }


def _lesion(judged: _Judged) -> NDArray[np.bool_]:
    assert judged.case.lesion is not None
    return judged.case.lesion

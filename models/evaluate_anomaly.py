"""What an anomaly model is worth, beside what a plain threshold is worth, on people it never saw.

Cases with a known lesion mask are judged as they are. In cases without one, lesions of known
place are inserted (and the untouched case gives the false positives). Each row of figures has its
baselines: the intensity after histogram equalisation (Meissen et al. 2022), the intensity less its
30 mm median, and principal components with as many codes as an autoencoder of this size would have.
Films that are known to be normal or not are judged as wholes, too. Nothing here is a clinical result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anomaly import OutsideDomain, score
from models.cases import Case
from models.evaluate_images import evaluate_images
from models.inserted_lesions import INSERTED, insert
from models.intervals import FEWEST_PEOPLE, bootstrap, surely_above
from models.pca import PrincipalComponents
from models.preparation import Contract, prepare, restore
from models.weights import LoadedModel

Figures = dict[str, Any]

_MEDIAN_MM = 30.0
_COARSE_MM = 4.0
METHODS = ("model", "intensity", "local contrast", "PCA")
_RATES = (0.02, 0.01, 0.005, 0.002, 0.001)  # of normal pixels above a threshold, for lesions against regions
EXPERT, INSERTION = "expert mask", "inserted: "  # begin the kind of a row of figures
NORMAL, ABNORMAL = "taken as normal", "abnormal, place unknown"  # kinds of pictures
FOUND = 0.2  # share of an inserted lesion's pixels above the threshold that counts as found


@dataclass(frozen=True)
class _Judged:
    """Scores of one case on its evaluated pixels."""

    case: Case
    evaluated: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float32]]  # by method, each (Z, Y, X)


@dataclass(frozen=True)
class ShownCase:
    """One slice of a judged case, for pictures: the image, its score, and the truth where it is known."""

    kind: str  # of lesion, or NORMAL or ABNORMAL
    worth: float  # larger is better: average precision; on normal people minus the share above the threshold
    told: str  # the same in words
    image: NDArray[np.float32]  # (Y, X), modality units
    score: NDArray[np.float32]  # (Y, X), SD of normal people
    threshold: float
    truth: NDArray[np.bool_] | None  # (Y, X)
    window: tuple[float, float]


def evaluate(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
    shown: Callable[[ShownCase], None] | None = None,
) -> Figures:
    """Figures of `model` on `cases`, as JSON: "normals", "lesions" (a row each), "beats_baseline".

    "images" has the figures of whole films where both kinds are known. `shown` gets a slice of every case,
    as it is and with each kind of inserted lesion. Raises ValueError where no case could be judged.
    """
    contract = Contract.of(model.card)
    threshold = float(model.calibration["threshold"][0])
    images = evaluate_images(model, cases, seed=seed)
    normals: list[_Judged] = []
    truths: list[tuple[str, _Judged]] = []
    notes: list[str] = []

    def show(kind: str, judged: _Judged) -> None:
        if shown is not None and (picture := _shown(kind, judged, threshold)) is not None:
            shown(picture)

    for number, case in enumerate(cases):
        try:
            judged = _judge(model, contract, case)
        except OutsideDomain as error:
            notes.append(f"a case of {len(case.volume)} slices is left out: {error}")
            continue
        if case.abnormal:
            show(ABNORMAL, judged)  # its figures are those of whole images
        elif case.lesion is None:
            normals.append(judged)
            show(NORMAL, judged)
            for kind in INSERTED[contract.modality]:
                changed = insert(case, judged.evaluated, kind, np.random.default_rng([seed, number]))
                if changed.lesion is not None and changed.lesion.any():
                    truths.append((INSERTION + kind, _judge(model, contract, changed)))
                    show(*truths[-1])
        else:
            truths.append((EXPERT, judged))
            show(*truths[-1])
        if progress is not None:
            progress(number + 1, len(cases))
    if not normals and not truths:
        raise ValueError("no case could be judged: " + "; ".join(notes))
    thresholds = {"model": threshold} | _thresholds(normals, model)
    rows = _rows(truths, thresholds)
    return {
        "normals": _false_positives(normals, threshold),
        "lesions": rows,
        **({} if images is None else {"images": images}),
        "beats_baseline": beats_baseline(rows, images),
        "recall": _recall_by_regions(normals, [judged for _, judged in truths]),
        "threshold": threshold,
        "seed": seed,
        "notes": notes,
    }


def beats_baseline(rows: Sequence[Figures], images: Figures | None) -> bool:
    """Whether the gain over the best baseline is surely above zero: for every kind, and on whole images."""
    return (
        bool(rows)
        and all(surely_above(row["against"]["ap_gain_interval"]) for row in rows)
        and (images is None or surely_above(images["auroc_gain_interval"]))
    )


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
    """A row a kind of lesion over all people; experts' masks of too few for an interval, person by person."""
    groups: dict[str, list[_Judged]] = {}
    experts = list(dict.fromkeys(judged.case.person for kind, judged in truths if kind == EXPERT))
    for kind, judged in truths:
        alone = kind == EXPERT and len(experts) < FEWEST_PEOPLE
        name = f"{kind}, person {experts.index(judged.case.person) + 1}" if alone else kind
        groups.setdefault(name, []).append(judged)
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
        row["against"] = _against(members)
        row["found"], row["lesions"] = _recall(members, thresholds["model"], flat=kind.startswith(INSERTION))
        rows.append(row)
    return rows


def _against(members: Sequence[_Judged]) -> Figures:
    """The model's average precision less that of the best baseline, both the mean over people."""
    methods = [name for name in METHODS if name in members[0].scores]
    found: dict[str, list[dict[str, float]]] = {}  # by person
    for judged in members:
        truth = _lesion(judged)[judged.evaluated]
        if truth.any():
            scores = {name: judged.scores[name][judged.evaluated] for name in methods}
            precise = {name: float(figures_of(scores[name], truth, None)["ap"]) for name in methods}
            found.setdefault(judged.case.person, []).append(precise)
    gains = {
        name: {person: [one["model"] - one[name] for one in ones] for person, ones in found.items()}
        for name in methods[1:]
    }
    means = {name: float(np.mean([np.mean(ones) for ones in of.values()])) for name, of in gains.items()}
    best = min(means, key=lambda name: means[name])
    interval = bootstrap(gains[best])
    return {
        "best_baseline": best,
        "people": len(found),
        "ap_gain": means[best],
        "ap_gain_interval": interval,
        "beats_baseline": surely_above(interval),
    }


def _shown(kind: str, judged: _Judged, threshold: float) -> ShownCase | None:
    """The slice with most of the lesion, or else with most above the threshold; None where nothing counts."""
    ours, evaluated, lesion = judged.scores["model"], judged.evaluated, judged.case.lesion
    if not evaluated.any() or (lesion is not None and not (lesion & evaluated).any()):
        return None
    above = evaluated & (ours > threshold)
    if lesion is not None:
        worth = float(figures_of(ours[evaluated], lesion[evaluated], None)["ap"])
        told = f"AP {worth:.3f}"
    else:
        share = float(above.sum() / evaluated.sum())
        worth, told = share if kind == ABNORMAL else -share, f"{100 * share:.2f} % above the threshold"
    k = int((above if lesion is None else lesion & evaluated).sum((1, 2)).argmax())
    low, high = np.percentile(judged.case.volume[k][evaluated[k] if evaluated[k].any() else ...], [1, 99.5])
    return ShownCase(
        kind=kind,
        worth=worth,
        told=told,
        image=judged.case.volume[k].copy(),
        score=ours[k].copy(),
        threshold=threshold,
        truth=None if lesion is None else lesion[k].copy(),
        window=(float(low), float(high)),
    )


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

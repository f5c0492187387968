"""From a trained anomaly network to a model folder: calibration, figures, the card and its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from models import weights
from models.cases import Case
from models.evaluate_anomaly import FOUND, Figures, evaluate
from models.preparation import Contract
from models.train_anomaly import ARCHITECTURE, FALSE_POSITIVE_RATE, calibrate, prepare_cases

GOLDEN_TOLERANCE = 1e-3  # of the normalised range; processors differ by 1e-5
_GOLDEN_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a model comes from; everything in it is shown to people."""

    description: str  # what it is for, one paragraph
    training_data: str  # data sets and licences
    warning: str  # what "normal" is not, in this data
    licence: str
    command: str  # that trained it
    git: str
    steps: int
    minutes: float | None = None


def make_model(
    network: nn.Module,
    words: Mapping[str, Any],
    *,
    name: str,
    version: str,
    calibration_cases: Sequence[Case],
    trained_people: int,
    lineage: Lineage,
) -> weights.LoadedModel:
    """A model in memory, calibrated on people it was not trained on; not yet judged or saved.

    `words` is the "input" of the card. Raises ValueError where too few normal pixels are left.
    """
    contract = Contract.of({"input": words})
    normals, _ = prepare_cases(calibration_cases, contract)
    calibration = calibrate(network.eval(), normals, contract)
    card = {
        "name": name,
        "version": version,
        "kind": "anomaly",
        "architecture": ARCHITECTURE,
        "input": dict(words),
        "golden_tolerance": GOLDEN_TOLERANCE,
        "false_positive_rate": FALSE_POSITIVE_RATE,
        "threshold": calibration.threshold,
        "normals": len(calibration.series_scores),
        "calibration_people": len({case.person for case in calibration_cases}),
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
    }
    return weights.LoadedModel(
        name=name,
        version=version,
        kind="anomaly",
        weights_sha256="",
        card=card,
        network=network.eval(),
        device="cpu",
        calibration=calibration.to_arrays(),
    )


def judge_and_save(
    model: weights.LoadedModel,
    test_cases: Sequence[Case],
    folder: Path,
    *,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Measure the model on `test_cases`, write its folder, and return the figures."""
    figures = evaluate(model, test_cases, seed=seed, progress=progress)
    card = {**model.card, "metrics": figures}
    weights.save(
        folder, model.network, card, _golden(), card_text(card, figures), calibration=model.calibration
    )
    return figures


def card_text(card: Mapping[str, Any], figures: Figures) -> str:
    """CARD.md: what the model is, what it is not, and its figures."""
    lineage, words = card["lineage"], card["input"]
    same = "the same tissue and depth" if words.get("tissues", True) else "the same depth"
    side = "brighter" if words["sign"] > 0 else "darker"
    lines = [
        _verdict(figures),
        "",
        f"# {card['name']} {card['version']}",
        "",
        lineage["description"],
        "",
        f"It marks what is {side} than a network, taught on normal people, would have drawn. A score is "
        f"the change it makes, in standard deviations at {same} in held-out normal people. It is no "
        "probability of disease, and not for primary diagnosis.",
        "",
        "## Input",
        "",
        f"{words['modality']}, {words['plane']}, {words['body_part']}"
        + (f", {words['contrast']}" if "contrast" in words else "")
        + f"; resampled to {words['pixel_mm']} mm. Other series get no result or a worthless one.",
        "",
        "## Data",
        "",
        f"{lineage['training_data']} Trained on {card['trained_people']} people, calibrated on "
        f"{card['calibration_people']} others. {lineage['warning']}",
        "",
        f"The calibration has {card['normals']} series; "
        + (
            'under 100 no "rarer than" is given.'
            if card["normals"] < 100
            else '"rarer than" is the conformal rank.'
        ),
        "",
        "## Figures",
        "",
        *_false_positive_lines(card, figures),
        "",
        *_table(figures),
        "",
        *(f"- {note}" for note in figures["notes"]),
        "Average precision (AP) stands beside the prevalence, which is the AP of a coin. `Dice, fixed` "
        "uses the threshold that was set on normal people; `Dice, best` picks it with the truth in hand, "
        "which nobody can at work. Baselines: intensity after histogram equalisation, and intensity less "
        f"its 30 mm median. `Found` counts lesions, slice by slice where inserted and in 3-D where drawn by "
        f"an expert, of which the model marks at least {100 * FOUND:.0f} %. With so few people no interval "
        "is given.",
        "",
        "## Made by",
        "",
        f"    {lineage['command']}",
        "",
        f"{lineage['steps']} steps, source {lineage['git'][:12]}. Licence of the weights: {card['licence']}.",
        "",
    ]
    return "\n".join(lines)


def _verdict(figures: Figures) -> str:
    rows = figures["lesions"]
    if not rows:
        return "**Not measured against its baseline: no lesion of known place was in the test data.**"
    baselines = (("intensity", "plain intensity"), ("local contrast", "intensity less its local median"))
    loses = [
        f"{name} ({row['kind']}: AP {row['model']['ap']:.3f} against {row[key]['ap']:.3f})"
        for key, name in baselines
        for row in rows
        if row["model"]["ap"] <= row[key]["ap"]
    ]
    found, lesions = sum(row["found"] for row in rows), sum(row["lesions"] for row in rows)
    marked = f"at its threshold it marks {found} of {lesions} lesions of the test below"
    if loses:
        return (
            f"**By average precision this model does not beat {'; nor '.join(loses)}; {marked}. "
            "Do not rely on it.**"
        )
    return (
        f"**By average precision this model beats both of its baselines; {marked}. The test is small and "
        "clinical use was not tested: what it does not mark is not normal for that.**"
    )


def _false_positive_lines(card: Mapping[str, Any], figures: Figures) -> list[str]:
    normals = figures["normals"]
    if not normals["slices"]:
        return ["No normal person was in the test data, so false positives were not measured."]
    return [
        f"Normal people it never saw ({normals['people']} people, {normals['slices']} slices): "
        f"{100 * normals['false_positive_rate']:.2f} % of the judged pixels lie above the threshold of "
        f"{figures['threshold']:.2f} SD (set for {100 * card['false_positive_rate']:.2f} %; worst case "
        f"{100 * normals['false_positive_rate_worst_case']:.2f} %), "
        f"{normals['false_regions_a_slice']:.1f} regions a slice."
    ]


def _table(figures: Figures) -> list[str]:
    if not figures["lesions"]:
        return []
    lines = [
        "| lesions | people, slices | prevalence | method | AP | AUROC | Dice, fixed | Dice, best | found |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["lesions"]:
        for method in ("model", "intensity", "local contrast"):
            one = row[method]
            fixed = "–" if one["dice_fixed"] is None else f"{one['dice_fixed']:.3f}"
            first = method == "model"
            lines.append(
                f"| {row['kind'] if first else ''} "
                f"| {str(row['people']) + ', ' + str(row['slices']) if first else ''} "
                f"| {format(row['prevalence'], '.4f') if first else ''} | {method} | {one['ap']:.3f} "
                f"| {one['auroc']:.3f} | {fixed} | {one['dice_oracle']:.3f} "
                f"| {str(row['found']) + '/' + str(row['lesions']) if first else ''} |"
            )
    return lines


def _golden() -> NDArray[np.float32]:
    """A made-up batch (1, 1, 96, 96): cloudy tissue in a disc, so that no person's image is shipped."""
    side = np.linspace(-1, 1, _GOLDEN_SIDE)
    clouds = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(_GOLDEN_SIDE, _GOLDEN_SIDE)), 3)
    disc = np.hypot(*np.meshgrid(side, side)) < 0.8
    plane = np.clip(0.5 + 0.15 * clouds / clouds.std(), 0, 1) * disc
    return np.asarray(plane[None, None], np.float32)

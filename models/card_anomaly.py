"""CARD.md of an anomaly model: what it is, what it is not, and its figures beside its baselines."""

from collections.abc import Mapping
from typing import Any

from models.evaluate_anomaly import FOUND, METHODS, Figures

_BASELINES = {
    "intensity": "plain intensity",
    "local contrast": "intensity less its local median",
    "PCA": "principal components",
}


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
        *_image_table(figures),
        *_table(figures),
        "",
        *_recall_lines(figures),
        *(f"- {note}" for note in figures["notes"]),
        "Average precision (AP) stands beside the prevalence, which is the AP of a coin. `Dice, fixed` "
        "uses the threshold that was set on normal people; `Dice, best` picks it with the truth in hand, "
        "which nobody can at work. Baselines: intensity after histogram equalisation, intensity less its "
        "30 mm median, and principal components (PCA). `Found` counts lesions, slice by slice where "
        "inserted and in 3-D where drawn by "
        f"an expert, of which the model marks at least {100 * FOUND:.0f} %. Intervals "
        "are those of a bootstrap over people, from three people on.",
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
    """The first line: whether the model is worth more than what it costs nothing to compute."""
    if "images" in figures:
        return _image_verdict(figures["images"])
    rows = figures["lesions"]
    if not rows:
        return "**Not measured against its baseline: no lesion of known place was in the test data.**"
    loses = [
        f"{name} ({row['kind']}: AP {row['model']['ap']:.3f} against {row[key]['ap']:.3f})"
        for key, name in _BASELINES.items()
        for row in rows
        if key in row and row["model"]["ap"] <= row[key]["ap"]
    ]
    found, lesions = sum(row["found"] for row in rows), sum(row["lesions"] for row in rows)
    marked = f"at its threshold it marks {found} of {lesions} lesions of the test below"
    if loses:
        return (
            f"**By average precision this model does not beat {'; nor '.join(loses)}; {marked}. "
            "Do not rely on it.**"
        )
    return (
        f"**By average precision this model beats its baselines; {marked}. The test is small and "
        "clinical use was not tested: what it does not mark is not normal for that.**"
    )


def _image_verdict(images: Figures) -> str:
    rows = {row["method"]: row for row in images["rows"]}
    best, interval = images["best_baseline"], images["auroc_gain_interval"]
    told = (
        "too few people for an interval"
        if interval is None
        else f"95 % interval of the difference {interval[0]:+.3f} to {interval[1]:+.3f}"
    )
    ours, theirs = rows["model"]["auroc"], rows[best]["auroc"]
    compared = f"(AUROC over images {ours:.3f} against {theirs:.3f} of {best}; {told})"
    if images["beats_baseline"]:
        return (
            f"**This model tells abnormal films from normal ones better than its baselines {compared}. "
            "Clinical use was not tested: what it does not mark is not normal for that.**"
        )
    return (
        f"**This model does not surely beat its baselines {compared}. Do not rely on it; "
        "it is off by default.**"
    )


def _image_table(figures: Figures) -> list[str]:
    images = figures.get("images")
    if images is None:
        return []
    lines = [
        f"Whole films: {images['images']} of {images['people']} people, {100 * images['prevalence']:.1f} % "
        "abnormal.",
        "",
        "| method | AUROC | 95 % interval | AP |",
        "|---|---|---|---|",
    ]
    for row in images["rows"]:
        interval = row["auroc_interval"]
        shown = "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        lines.append(f"| {row['method']} | {row['auroc']:.3f} | {shown} | {row['ap']:.3f} |")
    return [*lines, ""]


def _recall_lines(figures: Figures) -> list[str]:
    points = figures.get("recall") or []
    if not points:
        return []
    told = "; ".join(
        f"{100 * one['recall']:.0f} % at {one['false_regions_a_slice']:.2f} "
        f"(threshold {one['threshold']:.2f})"
        for one in points
    )
    return [f"Lesions found against false regions a slice of normal people: {told}.", ""]


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
        for method in (name for name in METHODS if name in row):
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

"""CARD.md of an anomaly model: what it is, what it is not, and its figures beside its baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.evaluate_anomaly import FOUND, INSERTION, METHODS, Figures
from models.intervals import FEWEST_PEOPLE, surely_above

_BASELINES = {
    "intensity": "plain intensity",
    "local contrast": "intensity less its local median",
    "PCA": "principal components",
}
_HARDLY = 0.1  # share of lesions marked under which a model is said not to find them


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
        f"an expert, of which the model marks at least {100 * FOUND:.0f} %. `Gain` is the AP less that of "
        "the best baseline, each the mean over people, whereas the AP beside it is of all pixels together; "
        f"its 95 % interval is that of a bootstrap over people, from {FEWEST_PEOPLE} people on.",
        "",
        "## Made by",
        "",
        f"    {lineage['command']}",
        "",
        *_measured_lines(card),
        f"{lineage['steps']} steps, source {lineage['git'][:12]}. Licence of the weights: {card['licence']}.",
        "",
    ]
    return "\n".join(lines)


def _measured_lines(card: Mapping[str, Any]) -> list[str]:
    """How a model that was packed anew came to its figures."""
    lines = [card["lineage"]["repacked"], ""] if "repacked" in card["lineage"] else []
    if "measured_by" in card:
        lines += ["Measured by", "", f"    {card['measured_by']}", ""]
    return lines


def _verdict(figures: Figures) -> str:
    """The first line: for what the model is surely worth more than what costs nothing to compute."""
    rows, images = figures["lesions"], figures.get("images")
    if not rows and images is None:
        return (
            "**Not measured against its baselines: no lesion of known place was in the test data. "
            "Do not rely on it; it is off by default.**"
        )
    compared = [(_compared(row), _beats(row)) for row in rows if _finds(row) or not _beats(row)]
    if images is not None:
        compared.insert(0, (_compared_images(images), surely_above(images["auroc_gain_interval"])))
    beaten = [text for text, beats in compared if beats]
    others = [text for text, beats in compared if not beats]
    said = []
    if others:
        said.append(
            f"Not shown to beat its best baseline for {'; nor for '.join(others)}. "
            f"Do not rely on it{' for that' if beaten else ''}; it is off by default."
        )
    if beaten:
        said.append(f"Beats its best baseline for {'; and for '.join(beaten)}.")
    said += [_missed(row) for row in rows if not _finds(row)]
    said += [_ranked_worse(row) for row in rows if row["model"]["auroc"] < _best_auroc(row)[1]]
    said.append(
        "The test is small and clinical use was not tested: what it does not mark is not normal for that."
    )
    return f"**{' '.join(said)}**"


def _beats(row: Figures) -> bool:
    return surely_above(row["against"]["ap_gain_interval"])


def _finds(row: Figures) -> bool:
    return bool(row["found"] >= _HARDLY * row["lesions"])


def _missed(row: Figures) -> str:
    if not _beats(row):
        return f"It does not find {_named(row)}."
    return (
        f"It does not find {_named(row)}: {row['found']} of {row['lesions']} marked, though by average "
        f"precision it beats its best baseline (AP {_gain(row)})."
    )


def _named(row: Figures) -> str:
    return f'"{row["kind"].removeprefix(INSERTION)}"'


def _compared(row: Figures) -> str:
    return f"{_named(row)} (AP {_gain(row)}; {row['found']} of {row['lesions']} marked)"


def _gain(row: Figures) -> str:
    against = row["against"]
    over = f"{against['ap_gain']:+.3f} over {_BASELINES[against['best_baseline']]}"
    return f"{over}, {_interval(against['ap_gain_interval'], against['people'])}"


def _compared_images(images: Figures) -> str:
    return f"telling abnormal images from normal ones (AUROC {_image_gain(images)})"


def _image_gain(images: Figures) -> str:
    over = f"{images['auroc_gain']:+.3f} over {_BASELINES[images['best_baseline']]}"
    return f"{over}, {_interval(images['auroc_gain_interval'], images['people'])}"


def _interval(interval: Sequence[float] | None, people: int) -> str:
    if interval is not None:
        return f"95 % {interval[0]:+.3f} to {interval[1]:+.3f}"
    return f"{people} {'person' if people == 1 else 'people'}, an interval needs {FEWEST_PEOPLE}"


def _best_auroc(row: Figures) -> tuple[str, float]:
    areas = {name: float(row[name]["auroc"]) for name in METHODS[1:] if name in row}
    best = max(areas, key=lambda name: areas[name])
    return best, areas[best]


def _ranked_worse(row: Figures) -> str:
    best, area = _best_auroc(row)
    return (
        f"By AUROC it is below {_BASELINES[best]} for {_named(row)} "
        f"({row['model']['auroc']:.3f} against {area:.3f})."
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
    return [*lines, "", f"Gain in AUROC: {_image_gain(images)}.", ""]


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
        "| lesions | people, slices | prevalence | method | AP | AUROC | Dice, fixed | Dice, best | found "
        "| gain (95 %) |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
                f"| {str(row['found']) + '/' + str(row['lesions']) if first else ''} "
                f"| {_gain(row) if first else ''} |"
            )
    return lines

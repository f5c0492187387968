"""CARD.md of a denoiser: what it does, what it takes away, and its figures."""

from collections.abc import Mapping
from typing import Any

from models.benches import TISSUES, WINDOW
from models.card_phantom import percent, phantom_lines, smallest_kept
from models.evaluate import Figures

_FILTERS = (
    "The classical filters were told the true noise, which the model has to estimate, and each was tuned "
    "on other people. The network alone is all that it takes out, clipped and nothing spared: shown to "
    "compare, and given to nobody."
)


def denoiser_card_text(card: Mapping[str, Any], figures: Figures) -> str:
    """CARD.md: what the denoiser does, what it takes away, and its figures."""
    lines = _ct_lines(card, figures) if card["input"]["modality"] == "CT" else _mr_lines(card, figures)
    return "\n".join([*lines, *_ends(card), ""])


def _ct_lines(card: Mapping[str, Any], figures: Figures) -> list[str]:
    lineage, people = card["lineage"], figures["people"]
    return [
        _worth(card, figures),
        "",
        f"# {card['name']} {card['version']}",
        "",
        lineage["description"],
        "",
        _safety(card),
        "",
        "## Input",
        "",
        f"CT in HU, {card['input']['plane']}. Trained on noise of {card['input']['noise_hu'][0]:g} to "
        f"{card['input']['noise_hu'][1]:g} HU.",
        "",
        "## Data",
        "",
        f"{lineage['training_data']} {card['trained_people']} people. {lineage['warning']}",
        "",
        "## People it never saw",
        "",
        f"{people['people']} people, {people['slices']} slices of routine dose, which have "
        f"{people['own_noise_hu']:g} HU of noise of their own; the noise of a lower dose was simulated, "
        f"and the routine slice is the truth. PSNR and SSIM in a window of {WINDOW[0]:g} to "
        f"{WINDOW[1]:g} HU; error and shifts in the body. {_FILTERS}",
        "",
        *_people_table(people),
        "",
        *_against_lines(people),
        "",
        *phantom_lines(card, figures["phantom"]),
    ]


def _mr_lines(card: Mapping[str, Any], figures: Figures) -> list[str]:
    lineage, people = card["lineage"], figures["people"]
    return [
        _worth(card, figures),
        "",
        f"# {card['name']} {card['version']}",
        "",
        lineage["description"],
        "",
        _safety(card),
        "",
        "## Input",
        "",
        f"MR magnitude images. {card['input']['normalisation']} Trained on Rician noise with an SD of "
        f"{100 * card['input']['noise'][0]:g} to {100 * card['input']['noise'][1]:g} % of that unit, white "
        "and from zero-filled k-space. The floor that magnitudes have where there is no signal is not taken "
        "off.",
        "",
        "## Data",
        "",
        f"{lineage['training_data']} {card['trained_people']} people. {lineage['warning']}",
        "",
        "## People it never saw",
        "",
        f"{people['people']} people, {people['slices']} slices, whose own noise and texture are "
        f"{people['own_noise_percent']:g} % of the unit; Rician noise was added, and the slice as scanned is "
        "the truth. PSNR and SSIM from 0 to the unit; error and shift in the person, in % of the unit. "
        + _FILTERS,
        "",
        *_people_table(people),
        "",
        *_against_lines(people),
        "",
        *phantom_lines(card, figures["phantom"]),
    ]


def _worth(card: Mapping[str, Any], figures: Figures) -> str:
    removed, kept, disc = smallest_kept(card, figures["phantom"])
    lost = [one for one in figures["people"].get("against", []) if one["gain_db"] < 0]
    better = ""
    if lost:
        most = min(lost, key=lambda one: float(one["gain_db"]))
        better = f"By PSNR it loses to {most['best_classical']}, by up to {-most['gain_db']:.1f} dB. "
    return (
        f"**At its default strength of {card['strength']} it takes {percent(removed)} of the noise from a "
        f"phantom, and leaves {percent(kept)} of the contrast of a {disc} lesion. {better}Small faint "
        "lesions become fainter; keep the original series. Not for primary diagnosis.**"
    )


def _safety(card: Mapping[str, Any]) -> str:
    return (
        "Of what the network calls noise, none is taken where its own output has an edge of several "
        "times the noise, and half of what is coarser than some pixels, as faint lesions are; the local "
        "mean is put back, the rest is clipped to ± limit_sigma × the slice's estimated noise, and only "
        "`strength` of it is removed. So no pixel changes by more than strength × limit_sigma × noise, and "
        "of no contrast, however small the lesion, is more than about `strength` lost, of larger lesions "
        "less. Air around the patient and padding are untouched. "
        f"Default strength {card['strength']}, ceiling {card['max_strength']}; default limit_sigma "
        f"{card['limit_sigma']:g}, ceiling {card['max_limit_sigma']:g}."
    )


def _ends(card: Mapping[str, Any]) -> list[str]:
    return [
        "## Measured by",
        "",
        f"    {card['measured_by']}",
        "",
        "## Made by",
        "",
        f"    {card['lineage']['command']}",
        "",
        f"{card['lineage']['steps']} steps, source {card['lineage']['git'][:12]}. Licence of the weights: "
        f"{card['licence']}.",
    ]


def _against_lines(people: Figures) -> list[str]:
    """The network alone against the best classical filter, one line a level."""
    lines = []
    for one in people.get("against", []):
        interval = one["gain_db_interval"]
        told = (
            "too few people for an interval"
            if interval is None
            else f"95 % interval {interval[0]:+.2f} to {interval[1]:+.2f} dB, bootstrap over people"
        )
        level = people["level"]
        lines.append(
            f"- {level} {one[level]:g}: the network alone has {one['gain_db']:+.2f} dB against "
            f"{one['best_classical']} ({told}), in {one['time_ratio']:.3g} of its time; "
            f"{one['people_made_worse']} of {people['people']} people are worse off, with it or at the "
            "default strength."
        )
    return lines


def _people_table(people: Figures) -> list[str]:
    level = people["level"]
    error, unit = ("rmse_hu", "HU") if level == "dose" else ("rmse_percent", "%")
    # A card from disk has its names in alphabetical order.
    tissues = [f"shift_{tissue}_hu" for tissue in TISSUES]
    shifts = [name for name in ("shift_hu", "shift_percent", *tissues) if name in people["rows"][0]]
    heads = [name.removeprefix("shift_").removesuffix("_hu").removesuffix("_percent") for name in shifts]
    lines = [
        f"| {level} | method | error, {unit} | PSNR, dB | SSIM | s a slice | shift, {unit}: "
        + " | ".join("all" if head in ("hu", "percent") else head for head in heads)
        + " |",
        "|---" * (6 + len(shifts)) + "|",
    ]
    for row in people["rows"]:
        first = row["method"] == "noisy"
        told = " | ".join("–" if row[name] is None else f"{row[name]:+.2f}" for name in shifts)
        lines.append(
            f"| {format(row[level], 'g') if first else ''} | {row['method']} | {row[error]:.2f} "
            f"| {row['psnr_db']:.2f} | {row['ssim']:.3f} | {row['seconds']:.2f} | {told} |"
        )
    return lines

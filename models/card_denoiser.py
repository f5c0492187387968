"""CARD.md of a denoiser: what it does, what it takes away, and its figures."""

from collections.abc import Mapping
from typing import Any

from models.benches import WINDOW
from models.evaluate import Figures
from models.evaluate_phantom import MITA

_FILTERS = (
    "The classical filters were told the true noise, which the model has to estimate, and each was tuned "
    "on other people. Strengths above the ceiling are not allowed and shown to compare."
)


def denoiser_card_text(card: Mapping[str, Any], figures: Figures) -> str:
    """CARD.md: what the denoiser does, what it takes away, and its figures."""
    lines = _ct_lines(card, figures) if card["input"]["modality"] == "CT" else _mr_lines(card, figures)
    return "\n".join([*lines, *_ends(card), ""])


def _ct_lines(card: Mapping[str, Any], figures: Figures) -> list[str]:
    lineage, people, phantom = card["lineage"], figures["people"], figures["phantom"]
    rows = {row["strength"]: row for row in phantom["rows"]}
    usual = rows[card["strength"]]
    smallest = f"kept_{MITA[0][0]:g}mm_{MITA[0][1]:g}hu"
    return [
        f"**At its default strength of {card['strength']} it takes {_percent(usual['sd_removed'])} of "
        f"the noise from a phantom, and leaves {_percent(usual[smallest])} of the contrast of a 3 mm, "
        "14 HU lesion. Small faint lesions become fainter; keep the original series. Not for primary "
        "diagnosis.**",
        "",
        f"# {card['name']} {card['version']}",
        "",
        lineage["description"],
        "",
        _safety(card),
        "",
        "## Input",
        "",
        f"CT in HU, axial slices of the trunk. Trained on noise of {card['input']['noise_hu'][0]:g} to "
        f"{card['input']['noise_hu'][1]:g} HU from soft to sharp kernels. Heads, children, metal, "
        "iterative or learned reconstructions and photon-counting detectors were not in the training "
        "or in the test, and were not measured.",
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
        "## Phantom",
        "",
        f"{phantom['scans']} scans of a 200 mm cylinder at {phantom['noise_hu']:g} HU of noise, with and "
        "without discs of low contrast, the same noise in both. `kept` is the part of a disc's contrast "
        "that is left; AUC is that of a channelized Hotelling observer. Strength 0 is the noisy scan; "
        f"strengths above {card['max_strength']} are not allowed and shown to compare.",
        "",
        *_phantom_table(phantom),
        "",
        f"Of a 10 mm, 60 HU disc that only the neighbouring slices have, {100 * phantom['ghost']:.1f} % "
        "is copied into a slice at strength 1.",
        "",
        "A made body at a quarter of the dose, at strength 1 (other strengths do their share of it):",
        "",
        *_organ_table(phantom),
        "",
    ]


def _mr_lines(card: Mapping[str, Any], figures: Figures) -> list[str]:
    lineage, people = card["lineage"], figures["people"]
    levels = sorted({row["noise"] for row in people["rows"]})
    middle = levels[len(levels) // 2]
    at = {row["method"]: row for row in people["rows"] if row["noise"] == middle}
    usual = at[f"strength {card['strength']:g}"]
    left = usual["rmse_percent"] / at["noisy"]["rmse_percent"]
    return [
        f"**At its default strength of {card['strength']} it takes {_percent(1 - left)} of the error of a "
        f"scan with {100 * middle:g} % of noise. Small faint lesions become fainter, by at most the "
        "strength; keep the original series. Not for primary diagnosis.**",
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
        "off. Diffusion, angiography, phase images and spectroscopy were not measured.",
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
    ]


def _safety(card: Mapping[str, Any]) -> str:
    return (
        "Of what the network calls noise, none is taken where its own output has an edge of several "
        "times the noise; the local mean is put back, the rest is clipped to "
        "± limit_sigma × the slice's estimated noise, and only `strength` of it is removed. So no pixel "
        "changes by more than strength × limit_sigma × noise, and of no contrast, however small the "
        "lesion, is more than about `strength` lost. Air around the patient and padding are untouched. "
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
    """Full strength against the best classical filter, one line a level."""
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
            f"- {level} {one[level]:g}: at strength 1 {one['gain_db']:+.2f} dB against "
            f"{one['best_classical']} ({told}), in {one['time_ratio']:.3g} of its time; "
            f"{one['people_made_worse']} of {people['people']} people made worse."
        )
    return lines


def _people_table(people: Figures) -> list[str]:
    level = people["level"]
    error, unit = ("rmse_hu", "HU") if level == "dose" else ("rmse_percent", "%")
    shifts = [name for name in people["rows"][0] if name.startswith("shift_")]
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


def _phantom_table(phantom: Figures) -> list[str]:
    discs = [f"{diameter:g} mm, {contrast:g} HU" for diameter, contrast in MITA]
    lines = [
        "| strength | noise removed | NPS mean, 1/mm | MTF50 at 120 HU, 1/mm | mean shift, HU "
        + "| largest change, HU | "
        + " | ".join(f"{kind} {disc}" for kind in ("kept", "AUC") for disc in discs)
        + " |",
        "|---" * (6 + 2 * len(discs)) + "|",
    ]
    for row in phantom["rows"]:
        kept = " | ".join(f"{row[f'kept_{d:g}mm_{c:g}hu']:.2f}" for d, c in MITA)
        areas = " | ".join(f"{row[f'auc_{d:g}mm']:.3f}" for d, _ in MITA)
        lines.append(
            f"| {row['strength']:g} | {_percent(row['sd_removed'])} | {row['nps_mean_per_mm']:.3f} "
            f"| {row['mtf50_per_mm']:.3f} | {row['shift_hu']:+.2f} | {row['largest_change_hu']:.1f} "
            f"| {kept} | {areas} |"
        )
    return lines


def _organ_table(phantom: Figures) -> list[str]:
    lines = ["| organ | noise, HU | noise removed | mean shift, HU |", "|---|---|---|---|"]
    for row in phantom["organs"]:
        noise = f"{row['noise_hu']:.1f} | {_percent(row['sd_removed'])}" if "noise_hu" in row else "– | –"
        lines.append(f"| {row['organ']} | {noise} | {row['shift_hu']:+.2f} |")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

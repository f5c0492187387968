"""The part of a denoiser's CARD.md that tells what it does to phantoms: tables and promises."""

from collections.abc import Mapping
from typing import Any

from models.disc_phantoms import MATERIALS, MITA, MR_DISCS
from models.promises import promises

_DISCS = {"hu": MITA, "percent": MR_DISCS}
_UNITS = {"hu": "HU", "percent": "%"}


def phantom_lines(card: Mapping[str, Any], phantom: Mapping[str, Any]) -> list[str]:
    """Markdown of the figures of models.evaluate_phantom, with a heading of its own."""
    ct = "inserts" in phantom
    lines = [
        "## Phantom",
        "",
        (_ct_words(phantom) if ct else _mr_words(phantom))
        + " `kept` is the part of a disc's contrast that is left; AUC is that of a channelized Hotelling "
        "observer. Strength 0 is the noisy scan; strengths above "
        f"{card['max_strength']} are not allowed and shown to compare.",
        "",
        *_disc_table(phantom),
        "",
        f"Held at the default strength of {card['strength']}:",
        "",
        *_promise_table(card, phantom),
        "",
    ]
    if not ct:
        return lines
    return [
        *lines,
        f"{phantom['inserts']['scans']} scans at {phantom['inserts']['noise_hu']:g} HU of rods of known "
        "materials (CTP404), 12 mm wide in 200 mm of water: the error of a rod's mean, and the MTF50 at its "
        "edge, at each strength.",
        "",
        *_rod_table(phantom["inserts"]),
        "",
        f"Of a 10 mm, 60 HU disc that only the neighbouring slices have, {100 * phantom['ghost']:.1f} % "
        "is copied into a slice at strength 1.",
        "",
        "A made body at a quarter of the dose, at strength 1 (other strengths do their share of it):",
        "",
        *_organ_table(phantom),
        "",
    ]


def smallest_kept(card: Mapping[str, Any], phantom: Mapping[str, Any]) -> tuple[float, float, str]:
    """At the default strength: the part of the noise that is removed, the part of the smallest disc's
    contrast that is left, and that disc in words.
    """
    unit = _unit(phantom)
    row = next(row for row in phantom["rows"] if row["strength"] == card["strength"])
    diameter, contrast = _DISCS[unit][0]
    return (
        row["sd_removed"],
        row[f"kept_{diameter:g}mm_{contrast:g}{unit}"],
        f"{diameter:g} mm, {contrast:g} {_UNITS[unit]}",
    )


def _unit(phantom: Mapping[str, Any]) -> str:
    return "hu" if "noise_hu" in phantom else "percent"


def _ct_words(phantom: Mapping[str, Any]) -> str:
    return (
        f"{phantom['scans']} scans of a 200 mm cylinder at {phantom['noise_hu']:g} HU of noise, with and "
        "without discs of low contrast, the same noise in both."
    )


def _mr_words(phantom: Mapping[str, Any]) -> str:
    return (
        f"{phantom['scans']} scans of a 190 mm cylinder of 0.6 of the unit in a bright rim, with and without "
        f"faint discs, the same noise in both: Rician, of {phantom['noise_percent']:g} % of the unit, from a "
        "k-space of which 0.7 along both sides was acquired. Contrasts, shifts and changes in % of the unit."
    )


def _disc_table(phantom: Mapping[str, Any]) -> list[str]:
    unit = _unit(phantom)
    told, sizes = _UNITS[unit], _DISCS[unit]
    edge = "120 HU" if unit == "hu" else "35 %"
    discs = [f"{diameter:g} mm, {contrast:g} {told}" for diameter, contrast in sizes]
    lines = [
        f"| strength | noise removed | NPS mean, 1/mm | MTF50 at {edge}, 1/mm | mean shift, {told} "
        + f"| largest change, {told} | "
        + " | ".join(f"{kind} {disc}" for kind in ("kept", "AUC") for disc in discs)
        + " |",
        "|---" * (6 + 2 * len(discs)) + "|",
    ]
    for row in phantom["rows"]:
        largest = row[f"largest_change_{unit}"]
        kept = " | ".join(f"{row[f'kept_{d:g}mm_{c:g}{unit}']:.2f}" for d, c in sizes)
        areas = " | ".join(f"{row[f'auc_{d:g}mm']:.3f}" for d, _ in sizes)
        lines.append(
            f"| {row['strength']:g} | {percent(row['sd_removed'])} | {row['nps_mean_per_mm']:.3f} "
            f"| {row['mtf50_per_mm']:.3f} | {row[f'shift_{unit}']:+.2f} | {largest:.1f} "
            f"| {kept} | {areas} |"
        )
    return lines


def _promise_table(card: Mapping[str, Any], phantom: Mapping[str, Any]) -> list[str]:
    lines = ["| what | limit | measured | held |", "|---|---|---|---|"]
    return lines + [
        f"| {one.what} | {one.limit} | {one.measured} | {'yes' if one.held else '**no**'} |"
        for one in promises(phantom, card["strength"])
    ]


def _rod_table(inserts: Mapping[str, Any]) -> list[str]:
    rows = {(row["strength"], row["material"]): row for row in inserts["rows"]}
    strengths = sorted({strength for strength, _ in rows})
    heads = [f"{kind} at {strength:g}" for kind in ("error, HU,", "MTF50, 1/mm,") for strength in strengths]
    lines = ["| material | HU | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for material, hu in MATERIALS.items():
        errors = " | ".join(f"{rows[strength, material]['error_hu']:+.2f}" for strength in strengths)
        halves = " | ".join(f"{rows[strength, material]['mtf50_per_mm']:.3f}" for strength in strengths)
        lines.append(f"| {material} | {hu:g} | {errors} | {halves} |")
    return lines


def _organ_table(phantom: Mapping[str, Any]) -> list[str]:
    lines = ["| organ | noise, HU | noise removed | mean shift, HU |", "|---|---|---|---|"]
    for row in phantom["organs"]:
        noise = f"{row['noise_hu']:.1f} | {percent(row['sd_removed'])}" if "noise_hu" in row else "– | –"
        lines.append(f"| {row['organ']} | {noise} | {row['shift_hu']:+.2f} |")
    return lines


def percent(share: float) -> str:
    """A share as whole per cent."""
    return f"{100 * share:.0f} %"

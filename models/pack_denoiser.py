"""From a trained denoiser to a model folder: figures, the card and its text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from models import weights
from models.cases import Case
from models.denoiser import HU_UNIT
from models.evaluate import WINDOW, Figures, evaluate_denoiser
from models.evaluate_phantom import MITA
from models.pack_anomaly import Lineage

STRENGTH, MAX_STRENGTH = 0.5, 0.8
LIMIT_SIGMA, MAX_LIMIT_SIGMA = 3.0, 4.0
GOLDEN_TOLERANCE = 2e-4  # of HU / 1000
_GOLDEN_SIDE = 96


def make_denoiser(
    network: nn.Module,
    *,
    name: str,
    version: str,
    arguments: Mapping[str, Any],
    noise_hu: tuple[float, float],
    trained_people: int,
    lineage: Lineage,
) -> weights.LoadedModel:
    """A denoiser in memory with its card; not yet judged or saved. `noise_hu` is what it was trained on."""
    card = {
        "name": name,
        "version": version,
        "kind": "denoiser",
        "architecture": {"id": "bf-rae", "arguments": dict(arguments)},
        "input": {
            "modality": "CT",
            "unit": "HU",
            "scale": HU_UNIT,
            "channels": ["slice below", "slice", "slice above", "noise level"],
            "plane": "axial, trunk",
            "noise_hu": list(noise_hu),
        },
        "strength": STRENGTH,
        "max_strength": MAX_STRENGTH,
        "limit_sigma": LIMIT_SIGMA,
        "max_limit_sigma": MAX_LIMIT_SIGMA,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "equipment": {
            "Manufacturer": "aenode",
            "ManufacturerModelName": name,
            "SoftwareVersions": version,
        },
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
    }
    return weights.LoadedModel(name, version, "denoiser", "", card, network.eval(), "cpu")


def judge_and_save_denoiser(
    model: weights.LoadedModel,
    test_cases: Sequence[Case],
    folder: Path,
    *,
    measured_by: str,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Measure the denoiser on `test_cases` and phantoms, write its folder, and return the figures.

    `measured_by` is the command that measures again; it stands beside the figures.
    """
    figures = evaluate_denoiser(model, test_cases, seed=seed, progress=progress)
    card = {**model.card, "metrics": figures, "measured_by": measured_by}
    weights.save(folder, model.network, card, golden_input(), denoiser_card_text(card, figures))
    return figures


def denoiser_card_text(card: Mapping[str, Any], figures: Figures) -> str:
    """CARD.md: what the denoiser does, what it takes away, and its figures."""
    lineage, people, phantom = card["lineage"], figures["people"], figures["phantom"]
    rows = {row["strength"]: row for row in phantom["rows"]}
    usual = rows[card["strength"]]
    smallest = f"kept_{MITA[0][0]:g}mm_{MITA[0][1]:g}hu"
    return "\n".join(
        [
            f"**At its default strength of {card['strength']} it takes {_percent(usual['sd_removed'])} of "
            f"the noise from a phantom, and leaves {_percent(usual[smallest])} of the contrast of a 3 mm, "
            "14 HU lesion. Small faint lesions become fainter; keep the original series. Not for primary "
            "diagnosis.**",
            "",
            f"# {card['name']} {card['version']}",
            "",
            lineage["description"],
            "",
            "Of what the network calls noise, none is taken where its own output has an edge of several "
            "times the noise; the local mean is put back, the rest is clipped to "
            f"± limit_sigma × the slice's estimated noise, and only `strength` of it is removed. So no pixel "
            "changes by more than strength × limit_sigma × noise, and of no contrast, however small the "
            "lesion, is more than about `strength` lost. Air around the patient and padding are untouched. "
            f"Default strength {card['strength']}, ceiling {card['max_strength']}; default limit_sigma "
            f"{card['limit_sigma']:g}, ceiling {card['max_limit_sigma']:g}.",
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
            f"{WINDOW[1]:g} HU; error and shifts in the body. NLM and TV were given the true noise and, of "
            "two or three settings, the best for each slice, with the truth in hand; the model was not. So "
            "few people allow no interval.",
            "",
            *_people_table(people),
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
            "## Measured by",
            "",
            f"    {card['measured_by']}",
            "",
            "## Made by",
            "",
            f"    {lineage['command']}",
            "",
            f"{lineage['steps']} steps, source {lineage['git'][:12]}. Licence of the weights: "
            f"{card['licence']}.",
            "",
        ]
    )


def golden_input() -> NDArray[np.float32]:
    """A made-up batch (1, 4, 96, 96): a disc of cloudy tissue with noise, so that no person is in it."""
    rng = np.random.default_rng(0)
    side = np.linspace(-1, 1, _GOLDEN_SIDE)
    clouds = ndimage.gaussian_filter(rng.normal(size=(_GOLDEN_SIDE, _GOLDEN_SIDE)), 3)
    disc = np.hypot(*np.meshgrid(side, side)) < 0.8
    plane = np.where(disc, 50 + 60 * clouds / clouds.std(), -1000.0)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, _GOLDEN_SIDE, _GOLDEN_SIDE)), (0, 0.7, 0.7))
    slices = plane + 25 * noise / noise.std()
    return np.asarray(np.concatenate((slices, np.full_like(slices[:1], 25)))[None] / HU_UNIT, np.float32)


def _people_table(people: Figures) -> list[str]:
    lines = [
        "| dose | method | error, HU | PSNR, dB | SSIM | shift: lung | fat | soft | bone, HU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shifts = ("shift_lung_hu", "shift_fat_hu", "shift_soft_hu", "shift_bone_hu")
    for row in people["rows"]:
        first = row["method"] == "noisy"
        told = " | ".join("–" if row[name] is None else f"{row[name]:+.2f}" for name in shifts)
        lines.append(
            f"| {format(row['dose'], 'g') if first else ''} | {row['method']} | {row['rmse_hu']:.2f} "
            f"| {row['psnr_db']:.2f} | {row['ssim']:.3f} | {told} |"
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

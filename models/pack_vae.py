"""From a trained variational autoencoder to a model folder: novelty of normal people, figures, the card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models import weights
from models.cases import Case
from models.pack_anomaly import Lineage
from models.pca import fit_components
from models.preparation import Contract, OutsideDomain, prepare
from models.train_anomaly import prepare_cases
from models.train_vae import compression, on_canvas, probe
from models.vae import CODES, VAE, encode_slices, novelty

Figures = dict[str, Any]
GOLDEN_TOLERANCE = 1e-3
NOVELTY = "novelty_scores"  # one a held-out normal series, sorted
_PROBE_SIDE = 32  # pixels: what a probe without the network sees


def judge_and_save_vae(
    network: nn.Module,
    words: Mapping[str, Any],
    folder: Path,
    *,
    name: str,
    version: str,
    arguments: Mapping[str, Any],
    calibration_cases: Sequence[Case],
    test_cases: Sequence[Case],
    trained_people: int,
    lineage: Lineage,
    seed: int = 1,
) -> Figures:
    """Measure the network on `test_cases`, write its folder, and return the figures.

    Raises ValueError where no case of either kind can be prepared.
    """
    assert isinstance(network, VAE)
    contract = Contract.of({"input": words})
    known = series_novelties(network, calibration_cases, contract)
    if not known:
        raise ValueError("no calibration case can be prepared")
    figures = evaluate_vae(network, contract, test_cases, np.sort(np.array(known)), seed=seed)
    card = {
        "name": name,
        "version": version,
        "kind": "vae",
        "architecture": {"id": "vae", "arguments": dict(arguments)},
        "input": dict(words),
        "codes": CODES,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "normals": len(known),
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
        "metrics": figures,
    }
    golden = np.random.default_rng(0).uniform(0, 1, (1, 1, *contract.canvas)).astype(np.float32)
    calibration = {NOVELTY: np.sort(np.asarray(known, np.float32))}
    weights.save(folder, network, card, golden, vae_card_text(card, figures), calibration=calibration)
    return figures


def series_novelties(network: VAE, cases: Sequence[Case], contract: Contract) -> list[float]:
    """The novelty of each series that can be prepared: the median of its slices."""
    return [value for _, value in _novelties(network, cases, contract)]


def _novelties(network: VAE, cases: Sequence[Case], contract: Contract) -> list[tuple[str, float]]:
    """The person and the novelty of each series that can be prepared."""
    found = []
    for case in cases:
        try:
            ready = prepare(case.volume, case.padding, case.spacing, contract)
            value = float(np.median(novelty(network, *on_canvas([ready], network.canvas))))
        except (OutsideDomain, ValueError):
            continue
        found.append((case.person, value))
    return found


def evaluate_vae(
    network: VAE,
    contract: Contract,
    cases: Sequence[Case],
    known: NDArray[np.float64],
    *,
    seed: int = 1,
) -> Figures:
    """Figures as JSON: "reconstruction", "compression", "novelty" and, for labelled cases, "probe"."""
    ready, notes = prepare_cases(cases, contract)
    images, masks = on_canvas(ready, network.canvas)
    judged = _novelties(network, cases, contract)
    if not judged:
        raise ValueError("no case can be prepared: " + "; ".join(notes))
    found = [value for _, value in judged]
    figures: Figures = {
        "people": len({person for person, _ in judged}),
        "slices": len(images),
        "compression": compression(network, images, masks),
        "pca_psnr_db": _linear_psnr(images, masks, network.canvas),
        "novelty": {
            "normals": len(known),
            "median_of_normals": round(float(np.median(known)), 6),
            "median_of_these": round(float(np.median(found)), 6),
            "above_all_normals": round(float(np.mean(np.array(found) > known.max())), 3),
        },
        "notes": notes,
    }
    labelled = [case for case in cases if case.abnormal is not None and len(case.volume) == 1]
    if len({case.abnormal for case in labelled}) == 2:
        films, _ = on_canvas(prepare_cases(labelled, contract)[0], network.canvas)
        if len(films) == len(labelled):
            figures["probe"] = probe(
                encode_slices(network, films),
                _small(films),
                np.array([bool(case.abnormal) for case in labelled]),
                [case.person for case in labelled],
                seed=seed,
            )
    return figures


def vae_card_text(card: Mapping[str, Any], figures: Figures) -> str:
    """CARD.md: what the codes are, and their figures."""
    lineage, words, novel = card["lineage"], card["input"], figures["novelty"]
    lines = [
        "**Codes and novelty of whole series, for search, drift and research. No finding, no diagnosis, and "
        "nothing that it draws is a patient's image.**",
        "",
        f"# {card['name']} {card['version']}",
        "",
        lineage["description"],
        "",
        f"A variational autoencoder of {card['codes']} codes on {words['canvas'][0]} × {words['canvas'][1]} "
        f"pixels. {words['modality']}, {words['plane']}, {words['body_part']}.",
        "",
        "## Data",
        "",
        f"{lineage['training_data']} Trained on {card['trained_people']} people; the novelty of "
        f"{card['normals']} other series is its calibration. {lineage['warning']}",
        "",
        "## Figures",
        "",
        f"{figures['people']} people it never saw, {figures['slices']} slices; PSNR over the foreground, of "
        "a range of 1. Principal components of the test's own slices, as many, reach "
        f"{'–' if figures['pca_psnr_db'] is None else format(figures['pca_psnr_db'], '.1f')} dB unquantised.",
        "",
        "| bits a code | bytes a slice | of 16-bit pixels | PSNR, dB |",
        "|---|---|---|---|",
        *(
            f"| {row['bits_a_code']} | {row['bytes']:g} | 1 : {row['raw_bytes'] / row['bytes']:.0f} "
            f"| {row['psnr_db']:.1f} |"
            for row in figures["compression"]
        ),
        "",
        f"Novelty: median {novel['median_of_normals']:.4f} of {novel['normals']} normal series, "
        f"{novel['median_of_these']:.4f} of the test's; {100 * novel['above_all_normals']:.0f} % of the "
        "test's are above every normal one.",
        "",
    ]
    if "probe" in figures:
        lines += [
            "Few labels: AUROC of a linear probe (half of the people labelled, the other half judged; mean "
            f"of five draws) on the codes, and from scratch on {_PROBE_SIDE} × {_PROBE_SIDE} pixels.",
            "",
            "| labels | codes | pixels |",
            "|---|---|---|",
            *(
                f"| {row['labels']} | {row['auroc_codes']:.3f} | {row['auroc_pixels']:.3f} |"
                for row in figures["probe"]
            ),
            "",
        ]
    return "\n".join(
        [
            *lines,
            "## Made by",
            "",
            f"    {lineage['command']}",
            "",
            f"{lineage['steps']} steps, source {lineage['git'][:12]}. Licence of the weights: "
            f"{card['licence']}.",
            "",
        ]
    )


def rarer_than(known: NDArray[np.float32], value: float) -> float | None:
    """The conformal rank of a novelty among normal series; None under a hundred of them."""
    if len(known) < 100:
        return None
    return 1.0 - (1 + int(np.sum(known >= value))) / (len(known) + 1)


def _linear_psnr(
    images: NDArray[np.float32], masks: NDArray[np.bool_], canvas: tuple[int, int]
) -> float | None:
    if len(images) < 3:
        return None
    drawn = fit_components(list(images), canvas).drawn(images)
    squared = [np.square(d - i)[m].mean() for d, i, m in zip(drawn, images, masks, strict=True)]
    return round(float(-10 * np.log10(np.maximum(squared, 1e-9)).mean()), 2)


def _small(images: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (side // _PROBE_SIDE for side in images.shape[1:])
    parts = images[:, : height * _PROBE_SIDE, : width * _PROBE_SIDE]
    blocks = parts.reshape(len(images), _PROBE_SIDE, height, _PROBE_SIDE, width)
    return np.asarray(blocks.mean((2, 4)).reshape(len(images), -1), np.float32)

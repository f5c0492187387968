"""From a trained variational autoencoder to a model folder: novelty of normal people, figures, the card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models import weights
from models.cases import Case
from models.evaluate_vae import CodeSpread, evaluate_vae, prepared_series, series_novelties
from models.few_labels import PROBE_SIDE
from models.pack_anomaly import Lineage
from models.preparation import Contract
from models.vae import VAE, encode_slices

Figures = dict[str, Any]
GOLDEN_TOLERANCE = 1e-3
NOVELTY = "novelty_scores"  # one a held-out normal series, sorted


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
    held, _ = prepared_series(network, calibration_cases, contract)
    if not held:
        raise ValueError("no calibration case can be prepared")
    known = np.sort(series_novelties(network, held))
    spread = CodeSpread.of(encode_slices(network, np.concatenate([one.images for one in held])))
    figures = evaluate_vae(network, contract, test_cases, known, spread, seed=seed)
    card = {
        "name": name,
        "version": version,
        "kind": "vae",
        "architecture": {"id": "vae", "arguments": dict(arguments)},
        "input": dict(words),
        "codes": network.codes,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "normals": len(known),
        "trained_people": trained_people,
        "lineage": {key: value for key, value in vars(lineage).items() if key != "licence"},
        "licence": lineage.licence,
        "metrics": figures,
    }
    golden = np.random.default_rng(0).uniform(0, 1, (1, 1, *contract.canvas)).astype(np.float32)
    calibration = {NOVELTY: known.astype(np.float32), **spread.to_arrays()}
    weights.save(folder, network, card, golden, vae_card_text(card, figures), calibration=calibration)
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
        "| codes kept | bits a code | bytes a slice | of 16-bit pixels | PSNR, dB |",
        "|---|---|---|---|---|",
        *(
            f"| {row['codes']} | {row['bits_a_code']} | {row['bytes']:g} "
            f"| 1 : {row['raw_bytes'] / row['bytes']:.0f} | {row['psnr_db']:.1f} |"
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
            "Few labels: AUROC (half of the people labelled, the other half judged; mean of five draws) of "
            f"a linear probe on the codes, one on {PROBE_SIDE} × {PROBE_SIDE} pixels, and the encoder taught "
            "from scratch on those labels alone. The interval of the gain over the better of the two is a "
            "bootstrap over people.",
            "",
            "| labels | codes | pixels | from scratch | gain | 95 % interval |",
            "|---|---|---|---|---|---|",
            *(_probe_row(row) for row in figures["probe"]),
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


def _probe_row(row: Mapping[str, Any]) -> str:
    between = row["gain_interval"]
    told = "too few people" if between is None else f"{between[0]:+.3f} to {between[1]:+.3f}"
    return (
        f"| {row['labels']} | {row['auroc_codes']:.3f} | {row['auroc_pixels']:.3f} "
        f"| {row['auroc_scratch']:.3f} | {row['gain']:+.3f} | {told} |"
    )


def rarer_than(known: NDArray[np.float32], value: float) -> float | None:
    """The conformal rank of a novelty among normal series; None under a hundred of them."""
    if len(known) < 100:
        return None
    return 1.0 - (1 + int(np.sum(known >= value))) / (len(known) + 1)

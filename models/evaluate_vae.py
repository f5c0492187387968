"""What a variational autoencoder's codes are worth: bytes, novelty, and features where labels are few."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cases import Case
from models.few_labels import Learner, from_scratch, linear, probe, small
from models.pca import fit_components
from models.preparation import Contract, OutsideDomain, prepare
from models.train_anomaly import prepare_cases
from models.train_vae import on_canvas
from models.vae import VAE, decode_codes, encode_slices, novelty

Figures = dict[str, Any]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
CODE_MEAN, CODE_SD = "code_mean", "code_sd"  # in calibration.npz: of held-out normal people
SIZES, BITS = (16, 32, 64, 128), (4, 8)
_SPAN = 4.0  # SD that a quantised code can be away from the mean


@dataclass(frozen=True)
class CodeSpread:
    """Where codes (K,) of normal people lie, from people who are neither trained on nor measured."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def of(cls, codes: NDArray[np.float32]) -> "CodeSpread":
        """Of codes (N, K)."""
        return cls(codes.mean(0), np.maximum(codes.std(0), np.float32(1e-6)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What calibration.npz holds."""
        return {CODE_MEAN: self.mean, CODE_SD: self.sd}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "CodeSpread | None":
        """That of a model folder; None where it was packed without."""
        if CODE_MEAN not in arrays or CODE_SD not in arrays:
            return None
        return cls(arrays[CODE_MEAN], arrays[CODE_SD])


def series_novelties(network: VAE, cases: Sequence[Case], contract: Contract) -> list[tuple[str, float]]:
    """The person and the novelty, which is the median of the slices', of each series that can be prepared."""
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
    spread: CodeSpread | None,
    *,
    seed: int = 1,
) -> Figures:
    """Figures as JSON: "compression" where `spread` is known, "novelty" and, for labelled cases, "probe".

    `known` are novelties of normal series. Raises ValueError where no case can be prepared.
    """
    ready, notes = prepare_cases(cases, contract)
    images, masks = on_canvas(ready, network.canvas)
    judged = series_novelties(network, cases, contract)
    if not judged:
        raise ValueError("no case can be prepared: " + "; ".join(notes))
    found = [value for _, value in judged]
    return {
        "people": len({person for person, _ in judged}),
        "slices": len(images),
        "compression": [] if spread is None else compression(network, images, masks, spread),
        "pca_psnr_db": _linear_psnr(images, masks, network.canvas),
        "novelty": {
            "normals": len(known),
            "median_of_normals": round(float(np.median(known)), 6),
            "median_of_these": round(float(np.median(found)), 6),
            "above_all_normals": round(float(np.mean(np.array(found) > known.max())), 3),
        },
        "notes": notes,
    } | _labelled(network, contract, cases, seed)


def _labelled(network: VAE, contract: Contract, cases: Sequence[Case], seed: int) -> Figures:
    labelled = [case for case in cases if case.abnormal is not None and len(case.volume) == 1]
    if len({case.abnormal for case in labelled}) < 2:
        return {}
    films, _ = on_canvas(prepare_cases(labelled, contract)[0], network.canvas)
    if len(films) < len(labelled):
        return {}
    rivals: dict[str, Learner] = {
        "codes": linear(encode_slices(network, films)),
        "pixels": linear(small(films)),
        "scratch": from_scratch(films, network),
    }
    abnormal = np.array([bool(case.abnormal) for case in labelled])
    return {"probe": probe(rivals, abnormal, [case.person for case in labelled], seed=seed)}


def compression(
    network: VAE,
    images: Image,
    masks: Mask,
    spread: CodeSpread,
    sizes: Sequence[int] = SIZES,
    bits: Sequence[int] = BITS,
) -> list[Figures]:
    """Bytes a slice against PSNR, when so many codes are kept in so many bits.

    Those that differ most among normal people are kept, the others are their mean. A code is quantised
    evenly over ± 4 SD around its mean; the PSNR is over the foreground, of a range of 1.
    """
    codes = encode_slices(network, images)
    by_worth = np.argsort(-spread.sd, kind="stable")
    rows = []
    for size, depth in ((size, depth) for size in sizes if size <= codes.shape[1] for depth in bits):
        levels = 2**depth - 1
        away = (codes - spread.mean) / spread.sd
        whole = np.clip(np.rint((away + _SPAN) / (2 * _SPAN) * levels), 0, levels)
        back = np.zeros_like(away)
        back[:, by_worth[:size]] = (whole / levels * 2 * _SPAN - _SPAN)[:, by_worth[:size]]
        drawn = decode_codes(network, (back * spread.sd + spread.mean).astype(np.float32))
        rows.append(
            {
                "codes": size,
                "bits_a_code": depth,
                "bytes": size * depth / 8,
                "raw_bytes": int(np.prod(images.shape[1:])) * 2,
                "psnr_db": _psnr(drawn, images, masks),
            }
        )
    return rows


def _psnr(drawn: Image, images: Image, masks: Mask) -> float:
    squared = [np.square(d - i)[m].mean() for d, i, m in zip(drawn, images, masks, strict=True)]
    return round(float(-10 * np.log10(np.maximum(squared, 1e-9)).mean()), 2)


def _linear_psnr(images: Image, masks: Mask, canvas: tuple[int, int]) -> float | None:
    if len(images) < 3:
        return None
    return _psnr(fit_components(list(images), canvas).drawn(images), images, masks)

"""What a variational autoencoder's codes are worth: bytes, novelty, and features where labels are few."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cases import Case
from models.few_labels import Learner, from_scratch, linear, probe, small
from models.pca import fit_components
from models.preparation import Contract
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


@dataclass(frozen=True)
class Series:
    """A case whose slices lie on the network's canvas."""

    case: Case
    images: Image  # (N, H, W)
    masks: Mask


def prepared_series(
    network: VAE, cases: Sequence[Case], contract: Contract
) -> tuple[list[Series], list[str]]:
    """Each series that can be prepared, and a sentence for each that is outside of the contract."""
    found: list[Series] = []
    notes: list[str] = []
    for case in cases:
        ready, said = prepare_cases([case], contract)
        notes += said
        try:
            found.append(Series(case, *on_canvas(ready, network.canvas)))
        except ValueError:  # no slice shows enough
            continue
    return found, notes


def series_novelties(network: VAE, series: Sequence[Series]) -> NDArray[np.float64]:
    """The novelty (N,) of each series: the median of its slices'."""
    return np.array([float(np.median(novelty(network, one.images, one.masks))) for one in series])


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
    series, notes = prepared_series(network, cases, contract)
    if not series:
        raise ValueError("no case can be prepared: " + "; ".join(notes))
    images, masks = (
        np.concatenate(part) for part in zip(*((one.images, one.masks) for one in series), strict=True)
    )
    found = series_novelties(network, series)
    return {
        "people": len({one.case.person for one in series}),
        "slices": len(images),
        "compression": [] if spread is None else compression(network, images, masks, spread),
        "pca_psnr_db": _linear_psnr(images, masks, network.canvas),
        "novelty": {
            "normals": len(known),
            "median_of_normals": round(float(np.median(known)), 6),
            "median_of_these": round(float(np.median(found)), 6),
            "above_all_normals": round(float(np.mean(found > known.max())), 3),
        },
        "notes": notes,
    } | _labelled(network, series, cases, seed)


def _labelled(network: VAE, series: Sequence[Series], cases: Sequence[Case], seed: int) -> Figures:
    """The probe, where all films that are known to be of one kind or the other could be prepared."""
    asked = [case for case in cases if _is_labelled(case)]
    labelled = [one for one in series if _is_labelled(one.case)]
    abnormal = np.array([bool(one.case.abnormal) for one in labelled])
    if len(labelled) < len(asked) or len(set(abnormal.tolist())) < 2:
        return {}
    films = np.concatenate([one.images for one in labelled])
    rivals: dict[str, Learner] = {
        "codes": linear(encode_slices(network, films)),
        "pixels": linear(small(films)),
        "scratch": from_scratch(films, network),
    }
    return {"probe": probe(rivals, abnormal, [one.case.person for one in labelled], seed=seed)}


def _is_labelled(case: Case) -> bool:
    return case.abnormal is not None and len(case.volume) == 1


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

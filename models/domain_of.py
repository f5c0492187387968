"""Features of a series for the domain gate, as each kind of model sees it, and their fit at packing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.cases import Case
from models.domain import Domain, Features, brightness, encoder_features, evenly, fit_domain
from models.intensity import INTENSITIES
from models.preparation import Contract, OutsideDomain, Prepared, prepare
from models.weights import LoadedModel

SLICES = 9  # of a series that are looked at
_FACTOR = 8
_NOISE = {"CT": (0.0, 15.0, 40.0), "MR": (0.0, 0.04, 0.1)}  # added at packing: HU, or parts of the unit
_SMOOTH = np.array([0.25, 0.5, 0.25], np.float32)  # makes white noise about as correlated as a scanner's
_MOST_ROWS = 600


def series_features(
    model: LoadedModel, volume: NDArray[np.float32], padding: NDArray[np.bool_], spacing: tuple[float, float]
) -> Features:
    """Features (N, D) of some slices of a series (Z, Y, X) in modality units. Raises OutsideDomain."""
    chosen = evenly(len(volume), SLICES)
    if model.kind == "denoiser":
        modality = str(model.card.get("input", {}).get("modality", "CT"))
        return denoiser_features(model.network, volume[chosen], padding[chosen], modality, model.device)
    prepared = prepare(volume[chosen], padding[chosen], spacing, Contract.of(model.card))
    return prepared_features(model.network, prepared, model.device)


def denoiser_features(
    network: nn.Module,
    volume: NDArray[np.float32],
    padding: NDArray[np.bool_],
    modality: str,
    device: str = "cpu",
) -> Features:
    """Features of single slices, each its own neighbour, in the unit of the whole series."""
    values = INTENSITIES[modality]
    body = values.body(volume, padding)
    unit, sigma = values.unit(volume, body), values.noise(volume, body)
    found = []
    for z, image in enumerate(values.network_input(volume, padding, unit)):
        stack = np.stack((image, image, image, np.full_like(image, sigma[z]))) / np.float32(unit)
        sides = ((0, 0), (0, -stack.shape[1] % _FACTOR), (0, -stack.shape[2] % _FACTOR))
        padded = np.pad(stack, sides, mode="edge").astype(np.float32)
        seen = brightness(image / np.float32(unit), body[z])
        found.append(np.append(encoder_features(network, padded[None], device)[0], seen))
    return np.stack(found)


def prepared_features(network: nn.Module, prepared: Prepared, device: str = "cpu") -> Features:
    """Features of a series on an anomaly network's canvas, of slices with enough foreground."""
    kept = [k for k, inside in enumerate(prepared.foreground) if inside.mean() > 0.02]
    if not kept:
        raise OutsideDomain("no slice shows enough of the body part")
    seen = [brightness(prepared.image[k], prepared.foreground[k]) for k in kept]
    return np.concatenate((encoder_features(network, prepared.image[kept][:, None], device), seen), axis=1)


def domain_arrays(domain: Domain | None) -> dict[str, NDArray[Any]]:
    """What calibration.npz holds of a domain; nothing of none."""
    return {} if domain is None else domain.to_arrays()


def denoiser_domain(network: nn.Module, cases: Sequence[Case], modality: str, seed: int = 1) -> Domain | None:
    """The domain of a denoiser from training cases as they are and with noise added.

    MR's are taught in bent and turned over contrasts, and are at home in them.
    """
    from models.train_mr_denoiser import toned  # noqa: PLC0415 - only packing needs the training

    rng = np.random.default_rng(seed)
    levels = _NOISE[modality]
    values = INTENSITIES[modality]

    def features(case: Case, chosen: list[int]) -> list[Features]:
        volume, padding = case.volume[chosen], case.padding[chosen]
        unit = 1.0 if modality == "CT" else values.unit(volume, values.body(volume, padding))
        found = []
        for number, level in enumerate(levels):
            if modality == "MR" and number:
                volume = toned(case.volume[chosen] / np.float32(unit), rng) * np.float32(unit)
            noisy = volume + _grain(rng, volume.shape) * np.float32(level * unit)
            floored = np.maximum(noisy, np.float32(values.least))
            found.append(denoiser_features(network, floored, padding, modality))
        return found

    return _domain(cases, features, _MOST_ROWS // len(levels), seed)


def anomaly_domain(
    network: nn.Module, cases: Sequence[Case], contract: Contract, seed: int = 1
) -> Domain | None:
    """The domain of an anomaly model from cases of normal people."""

    def features(case: Case, chosen: list[int]) -> list[Features]:
        try:
            prepared = prepare(case.volume[chosen], case.padding[chosen], case.spacing, contract)
            return [prepared_features(network, prepared)]
        except OutsideDomain:
            return []

    return _domain(cases, features, _MOST_ROWS, seed)


def _domain(
    cases: Sequence[Case], features: Callable[[Case, list[int]], list[Features]], most: int, seed: int
) -> Domain | None:
    each = max(1, min(SLICES, most // max(1, len(cases))))
    shown = cases if len(cases) <= most else [cases[n] for n in evenly(len(cases), most)]
    series: list[Features] = []
    people: list[str] = []
    for case in shown:
        found = features(case, evenly(len(case.volume), each))
        series += found
        people += [case.person] * len(found)
    return fit_domain(series, people, seed)


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    noise = rng.standard_normal(shape).astype(np.float32)
    for axis in (-2, -1):
        noise = sum(
            weight * np.roll(noise, step, axis) for weight, step in zip(_SMOOTH, (-1, 0, 1), strict=True)
        )
    return np.asarray(noise / noise.std(), np.float32)

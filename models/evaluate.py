"""What a denoiser is worth on people it never saw: dose by dose, beside classical filters.

A routine-dose slice is the truth; the noise that a lower dose would add to it is simulated
(models.noise) and must be taken out again. The truth has noise of its own, so a perfect denoiser does
not reach an error of zero, and the lowest doses tell most.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cases import Case
from models.denoiser import Model, denoise
from models.evaluate_phantom import evaluate_on_phantom
from models.intensity import body_mask
from models.noise import ct_noise, estimate_noise

Figures = dict[str, Any]

DOSES = (0.5, 0.25, 0.1)  # of the slice's own dose
STRENGTHS = (0.3, 0.5, 0.6, 0.8)
WINDOW = (-160.0, 240.0)  # HU, for PSNR and SSIM
TISSUES = {"lung": (-950, -700), "fat": (-130, -70), "soft": (0, 100), "bone": (250, 1500)}  # HU of the truth
_MOST_OWN_NOISE = 16.0  # HU: noisier slices are no truth
_KERNEL = 0.8  # Hann cut-off of the added noise


@dataclass(frozen=True)
class _Truth:
    person: str
    image: NDArray[np.float32]  # (Y, Y) HU
    padding: NDArray[np.bool_]
    body: NDArray[np.bool_]
    own_noise: float
    spacing: float


def evaluate_denoiser(
    model: Model,
    cases: Sequence[Case],
    *,
    scans: int = 100,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """All figures of a denoiser's card, as JSON: "people" on cases, "phantom" on made images.

    Raises ValueError where no slice of the cases is clean enough to be a truth.
    """
    people = evaluate_on_people(model, cases, seed=seed, progress=progress)
    return {"people": people, "phantom": evaluate_on_phantom(model, scans=scans, seed=seed)}


def evaluate_on_people(
    model: Model,
    cases: Sequence[Case],
    *,
    doses: Sequence[float] = DOSES,
    strengths: Sequence[float] = STRENGTHS,
    limit_sigma: float = 3.0,
    yardsticks: bool = True,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Figures of a denoiser on CT cases in HU, as JSON: "people", "slices" and "rows".

    A row is one method at one dose, the mean over slices: error (RMSE in the body, HU), PSNR and SSIM in
    a soft-tissue window, and the mean shift of each tissue in HU. Each slice is denoised by itself.
    Yardsticks need scikit-image and are given the truth to choose their setting with. Strengths above
    the model's ceiling are left out. Raises ValueError where no slice is clean enough to be a truth.
    """
    truths = [truth for case in cases for truth in _truths(case)]
    if not truths:
        raise ValueError(f"no slice has less than {_MOST_OWN_NOISE:g} HU of noise of its own")
    allowed = [strength for strength in strengths if strength <= model.card["max_strength"]]
    collected: dict[tuple[float, str], list[dict[str, float]]] = {}
    for number, truth in enumerate(truths):
        for dose in doses:
            noisy = _with_noise(truth, dose, seed + number)
            for method, image in _answers(model, truth, noisy, allowed, limit_sigma, yardsticks):
                collected.setdefault((dose, method), []).append(_measure(truth, image))
        if progress is not None:
            progress(number + 1, len(truths))
    rows = [
        {"dose": dose, "method": method, **_mean(measures)} for (dose, method), measures in collected.items()
    ]
    return {
        "people": len({truth.person for truth in truths}),
        "slices": len(truths),
        "own_noise_hu": round(float(np.mean([truth.own_noise for truth in truths])), 2),
        "rows": rows,
    }


def _truths(case: Case) -> Iterator[_Truth]:
    side = min(case.volume.shape[1:])
    side -= side % 8
    top, left = ((length - side) // 2 for length in case.volume.shape[1:])
    for image, pad in zip(case.volume, case.padding, strict=True):
        square, padding = (
            image[top : top + side, left : left + side],
            pad[top : top + side, left : left + side],
        )
        body = body_mask(square[None], padding[None])
        own = float(estimate_noise(square[None], body)[0])
        if 0 < own < _MOST_OWN_NOISE:
            yield _Truth(case.person, square, padding, body[0], own, case.spacing[1])


def _with_noise(truth: _Truth, dose: float, seed: int) -> NDArray[np.float32]:
    """The slice as a scan at `dose` would show it: noise of SD own × √(1/dose − 1) is added."""
    clean = np.maximum(np.where(truth.padding, np.float32(-1000), truth.image), np.float32(-1024))
    noise = ct_noise(clean[None], truth.spacing, dose=dose, seed=seed, cutoffs=(_KERNEL,))[0, 0]
    wanted = truth.own_noise * np.sqrt(1 / dose - 1)
    noisy = np.maximum(clean + noise * np.float32(wanted / noise[truth.body].std()), np.float32(-1024))
    return np.where(truth.padding, truth.image, noisy).astype(np.float32)


def _answers(
    model: Model,
    truth: _Truth,
    noisy: NDArray[np.float32],
    strengths: Sequence[float],
    limit_sigma: float,
    yardsticks: bool,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield "noisy", noisy
    if yardsticks:
        yield from _yardsticks(truth, noisy)
    strongest = max(strengths)
    whole = denoise(
        model,
        noisy[None],
        padding=truth.padding[None],
        neighbours=np.zeros((1, 3), np.int64),
        strength=strongest,
        limit_sigma=limit_sigma,
    ).image[0]
    for strength in strengths:  # what is taken out is proportional to the strength
        yield f"strength {strength:g}", noisy + np.float32(strength / strongest) * (whole - noisy)


def _yardsticks(truth: _Truth, noisy: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    filters: Any = import_module("skimage.restoration")  # only tests and evaluation have it

    sigma = float((noisy - truth.image)[truth.body].std())
    yield "Gaussian, 1 pixel", ndimage.gaussian_filter(noisy, 1.0)

    def nearest(images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return min(images, key=lambda image: float(np.square(image - truth.image)[truth.body].mean()))

    yield (
        "NLM",
        nearest(
            [
                filters.denoise_nl_means(noisy, patch_size=5, patch_distance=6, h=h * sigma, sigma=sigma)
                for h in (0.6, 1.0)
            ]
        ),
    )
    yield (
        "TV",
        nearest([filters.denoise_tv_chambolle(noisy, weight=weight * sigma) for weight in (0.5, 0.8, 1.2)]),
    )


def _measure(truth: _Truth, image: NDArray[np.float32]) -> dict[str, float]:
    metrics: Any = import_module("skimage.metrics")
    wrong = (image - truth.image)[truth.body]
    low, high = WINDOW
    shown, wanted = np.clip(image, low, high), np.clip(truth.image, low, high)
    squared = float(np.square(shown - wanted)[truth.body].mean())
    measures = {
        "rmse_hu": float(np.sqrt(np.square(wrong).mean())),
        "psnr_db": float(10 * np.log10((high - low) ** 2 / max(squared, 1e-9))),
        "ssim": float(metrics.structural_similarity(wanted, shown, data_range=high - low)),
    }
    smooth = ndimage.gaussian_filter(truth.image, 2.0)
    for tissue, (least, most) in TISSUES.items():
        region = truth.body & (smooth > least) & (smooth < most)
        measures[f"shift_{tissue}_hu"] = (
            float((image - truth.image)[region].mean()) if region.sum() > 500 else np.nan
        )
    return measures


def _mean(measures: Sequence[dict[str, float]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in measures[0]:
        values = np.array([one[name] for one in measures])
        known = values[np.isfinite(values)]
        found[name] = round(float(known.mean()), 3) if known.size else None
    return found

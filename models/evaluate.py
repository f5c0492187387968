"""What a denoiser is worth on people it never saw: level by level, beside classical filters.

A slice as it was scanned is the truth; the noise of a lower dose (CT, models.noise) or of a weaker
signal (MR, models.noise_mr) is added and must be taken out again. The truth has noise of its own, so a
perfect denoiser does not reach an error of zero, and the noisiest levels tell most. Classical filters
are tuned on other people (models.yardsticks); intervals come from a bootstrap over people.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.benches import BENCHES, Bench, Truth
from models.cases import Case
from models.denoiser import Model, bounded_change, channels_last, run_network
from models.evaluate_phantom import evaluate_on_phantom
from models.intensity import intensity_of
from models.intervals import bootstrap
from models.scans import scanned
from models.yardsticks import Sample, Tuned, available, filtered, tune

Figures = dict[str, Any]
Image = NDArray[np.float32]

MOST_SLICES = 40
STRENGTHS = (0.3, 0.5, 0.65, 0.8)
WHOLE = "network alone"  # all that it takes out, clipped, nothing spared: to compare; nobody gets it


@dataclass(frozen=True)
class Shown:
    """One slice at one level, for pictures: before, after, and the truth."""

    person: str
    level: float
    gain_db: float  # PSNR after less before, by the network alone
    noisy: Image
    denoised: Image
    truth: Image
    window: tuple[float, float]


def evaluate_denoiser(
    model: Model,
    cases: Sequence[Case],
    *,
    tuning: Sequence[Case] = (),
    filters: Sequence[str] | None = None,
    scans: int = 100,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
    shown: Callable[[Shown], None] | None = None,
) -> Figures:
    """All figures of a denoiser's card, as JSON: "people" on cases, "phantom" on made images.

    `tuning` are people the classical `filters` (all by default) are tuned on. Raises ValueError where
    no slice of the cases is clean enough to be a truth.
    """
    people = evaluate_on_people(
        model, cases, tuning=tuning, filters=filters, seed=seed, progress=progress, shown=shown
    )
    return {"people": people, "phantom": evaluate_on_phantom(model, scans=scans, seed=seed)}


def evaluate_on_people(
    model: Model,
    cases: Sequence[Case],
    *,
    tuning: Sequence[Case] = (),
    doses: Sequence[float] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    limit_sigma: float = 3.0,
    filters: Sequence[str] | None = None,
    most_slices: int = MOST_SLICES,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
    shown: Callable[[Shown], None] | None = None,
) -> Figures:
    """Figures of a denoiser on cases in modality units, as JSON: "people", "slices", "rows", "against".

    A row is one method at one level (`doses`: of the slice's own in CT, SD of the noise in MR), the mean
    over slices: error (RMSE in the body), PSNR and SSIM in the bench's window, mean shifts, seconds. Each
    slice is denoised by itself. "against" holds, for each level, the PSNR of the network alone less that
    of the best classical filter with its interval, and how many people are worse off with
    it or at the default strength.
    Without `tuning` the first person of the cases tunes the filters and is not judged, if there are more
    than one. `filters` are their names, by default all that are installed. `most_slices` thins the slices
    evenly: BM3D takes its time. Raises ValueError where no slice can be a truth.
    """
    bench = BENCHES[modality_of(model)]
    levels = bench.levels if doses is None else tuple(doses)
    truths = [truth for case in cases for truth in bench.truths(case)]
    if not truths:
        raise ValueError(bench.none)
    others = [truth for case in tuning for truth in bench.truths(case)]
    names = available() if filters is None else tuple(filters)
    if names and not others:
        others, truths = _spared(truths)
    tuned = _tuned(bench, others, levels, names, seed) if names else None
    if len(truths) > most_slices:
        truths = [truths[round(n)] for n in np.linspace(0, len(truths) - 1, most_slices)]
    collected: dict[tuple[float, str], list[tuple[str, dict[str, float]]]] = {}
    for number, truth in enumerate(truths):
        for level in levels:
            noisy = bench.noisy(truth, level, seed + number)
            answers = dict(_answers(model, truth, noisy, strengths, limit_sigma, tuned))
            for method, (image, seconds) in answers.items():
                measured = _measure(bench, truth, image) | {"seconds": seconds}
                collected.setdefault((level, method), []).append((truth.person, measured))
            if shown is not None:
                shown(_shown(truth, level, noisy, answers[WHOLE][0]))
        if progress is not None:
            progress(number + 1, len(truths))
    usual = _named(model.card["strength"])
    rows = [
        {bench.level_name: level, "method": method, **_mean([one for _, one in measures])}
        for (level, method), measures in collected.items()
    ]
    return {
        "modality": bench.modality,
        "level": bench.level_name,
        "people": len({truth.person for truth in truths}),
        "slices": len(truths),
        bench.own_name: round(float(np.mean([truth.own_noise / truth.per_cent for truth in truths])), 2),
        "yardsticks": {} if tuned is None else {**tuned.settings, "tuned on slices": tuned.slices},
        "rows": rows,
        "against": [_against(collected, level, bench.level_name, usual, seed) for level in levels]
        if tuned
        else [],
    }


def modality_of(model: Model) -> str:
    """Which of BENCHES judges the model. Raises ValueError for another modality."""
    modality = str(model.card.get("input", {}).get("modality", "CT"))
    if modality not in BENCHES:
        raise ValueError(f"nothing is known of how to measure denoisers of {modality}")
    return modality


def _spared(truths: list[Truth]) -> tuple[list[Truth], list[Truth]]:
    first = truths[0].person
    rest = [truth for truth in truths if truth.person != first]
    return [truth for truth in truths if truth.person == first], rest or truths


def _tuned(
    bench: Bench, others: Sequence[Truth], levels: Sequence[float], names: Sequence[str], seed: int
) -> Tuned:
    chosen = [others[round(n)] for n in np.linspace(0, len(others) - 1, min(8, len(others)))]
    samples = [
        Sample(bench.noisy(truth, level, seed + 50_000 + number), truth.image, truth.body)
        for number, (truth, level) in enumerate((t, v) for t in chosen for v in levels)
    ]
    return tune(samples, names)


def _answers(
    model: Model,
    truth: Truth,
    noisy: Image,
    strengths: Sequence[float],
    limit_sigma: float,
    tuned: Tuned | None,
) -> Iterator[tuple[str, tuple[Image, float]]]:
    """Each method's image and its seconds."""
    yield "noisy", (noisy, 0.0)
    if tuned is not None:
        sigma = float((noisy - truth.image)[truth.body].std())
        for name in tuned.settings:
            yield name, filtered(name, noisy, sigma, tuned)
    begun = time.perf_counter()
    scan = scanned(model, noisy[None], limit_sigma, padding=truth.padding[None])
    seconds = time.perf_counter() - begun
    for strength in sorted({*strengths, float(model.card["strength"])}):
        yield _named(strength), (scan.at(strength)[0], seconds)
    begun = time.perf_counter()
    alone = _network_alone(model, truth, noisy, limit_sigma)
    yield WHOLE, (alone, time.perf_counter() - begun)


def _named(strength: float) -> str:
    return f"strength {strength:g}"


def _network_alone(model: Model, truth: Truth, noisy: Image, limit_sigma: float) -> Image:
    values = intensity_of(model.card)
    padding = truth.padding[None]
    body = values.body(noisy[None], padding)
    sigma, unit = float(values.noise(noisy[None], body)[0]), values.unit(noisy[None], body)
    stack = np.repeat(values.network_input(noisy[None], padding, unit), 3, 0)
    clean = run_network(channels_last(model.network), stack, sigma, model.device, unit)
    return noisy - bounded_change(stack[1] - clean, body[0], sigma, 1.0, limit_sigma)


def _measure(bench: Bench, truth: Truth, image: Image) -> dict[str, float]:
    metrics: Any = import_module("skimage.metrics")  # only tests and evaluation have it
    wrong = (image - truth.image)[truth.body] / truth.per_cent
    low, high = truth.window
    shown, wanted = np.clip(image, low, high), np.clip(truth.image, low, high)
    _, alike = metrics.structural_similarity(wanted, shown, data_range=high - low, full=True)
    measures = {
        bench.error_name: float(np.sqrt(np.square(wrong).mean())),
        "psnr_db": _psnr(truth, image),
        "ssim": float(alike[truth.body].mean()),
        bench.shift_name: float(wrong.mean()),
    }
    smooth = ndimage.gaussian_filter(truth.image, 2.0)
    for tissue, (least, most) in bench.tissues.items():
        region = truth.body & (smooth > least) & (smooth < most)
        measures[f"shift_{tissue}_hu"] = (
            float((image - truth.image)[region].mean()) if region.sum() > 500 else np.nan
        )
    return measures


def _psnr(truth: Truth, image: Image) -> float:
    low, high = truth.window
    wrong = np.clip(image, low, high) - np.clip(truth.image, low, high)
    squared = float(np.square(wrong)[truth.body].mean())
    return float(10 * np.log10((high - low) ** 2 / max(squared, 1e-9 * (high - low) ** 2)))


def _mean(measures: Sequence[dict[str, float]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in measures[0]:
        values = np.array([one[name] for one in measures])
        known = values[np.isfinite(values)]
        found[name] = round(float(known.mean()), 3) if known.size else None
    return found


def _against(
    collected: Mapping[tuple[float, str], Sequence[tuple[str, dict[str, float]]]],
    level: float,
    name: str,
    usual: str,
    seed: int,
) -> Figures:
    """The network alone against the best classical filter of this level, person by person."""
    classical = {
        method: [one["psnr_db"] for _, one in measures]
        for (at, method), measures in collected.items()
        if at == level and not method.startswith("strength") and method not in ("noisy", WHOLE)
    }
    best = max(classical, key=lambda method: float(np.mean(classical[method])))
    people = [person for person, _ in collected[level, WHOLE]]
    ours = [one["psnr_db"] for _, one in collected[level, WHOLE]]
    helpful = [
        min(after["psnr_db"], alone["psnr_db"]) - before["psnr_db"]
        for (_, before), (_, after), (_, alone) in zip(
            *(collected[level, method] for method in ("noisy", usual, WHOLE)), strict=True
        )
    ]
    gains: dict[str, list[float]] = {}
    helped: dict[str, list[float]] = {}
    for n, person in enumerate(people):
        gains.setdefault(person, []).append(ours[n] - classical[best][n])
        helped.setdefault(person, []).append(helpful[n])
    seconds = {
        method: float(np.mean([one["seconds"] for _, one in collected[level, method]]))
        for method in (best, WHOLE)
    }
    return {
        name: level,
        "best_classical": best,
        "gain_db": round(float(np.mean([np.mean(values) for values in gains.values()])), 3),
        "gain_db_interval": bootstrap(gains, seed=seed),
        "people_made_worse": sum(float(np.mean(values)) < 0 for values in helped.values()),
        "time_ratio": round(seconds[WHOLE] / max(seconds[best], 1e-9), 4),
    }


def _shown(truth: Truth, level: float, noisy: Image, denoised: Image) -> Shown:
    gain = _psnr(truth, denoised) - _psnr(truth, noisy)
    return Shown(truth.person, level, gain, noisy, denoised, truth.image, truth.window)

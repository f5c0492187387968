"""What codes are worth where labels are few: against pixels, and against a network taught from scratch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch.nn import functional

from models.evaluate_images import auroc
from models.intervals import bootstrap_of
from models.train_anomaly import movement
from models.vae import VAE

Figures = dict[str, Any]
Image = NDArray[np.float32]
PROBE_SIDE = 32  # pixels
_BATCH = 16

# Scores of all films for their being abnormal, learned from the labels of the chosen ones.
Learner = Callable[[NDArray[np.intp], NDArray[np.bool_], int], NDArray[np.float64]]


def probe(
    learners: Mapping[str, Learner],
    abnormal: NDArray[np.bool_],
    people: Sequence[str],
    counts: Sequence[int] = (10, 20, 50, 100),
    repeats: int = 5,
    seed: int = 1,
) -> list[Figures]:
    """AUROC of each learner with few labels, and what "codes" gains over the best of the others.

    Half of the people are labelled, the other half judged; each count is drawn `repeats` times, and the
    interval is a bootstrap over the judged people. Counts beyond the labelled half are left out.
    """
    rng = np.random.default_rng(seed)
    whose = np.array(people)
    names = np.unique(whose)
    rng.shuffle(names)
    labelled = np.isin(whose, names[: len(names) // 2])
    judged = np.flatnonzero(~labelled)
    persons = np.unique(whose[judged])
    of_person = [np.flatnonzero(whose[judged] == person) for person in persons]
    rows = []
    for count in counts:
        if count > labelled.sum() or len(set(abnormal[labelled].tolist())) < 2:
            continue
        scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in learners}
        for repeat in range(repeats):
            chosen = _both_kinds(rng, np.flatnonzero(labelled), abnormal, count)
            for name, learned in learners.items():
                scores[name].append(learned(chosen, abnormal, seed + repeat)[judged])
        rows.append({"labels": count} | _compared(scores, abnormal[judged], of_person, seed))
    return rows


def _compared(
    scores: Mapping[str, Sequence[NDArray[np.float64]]],
    abnormal: NDArray[np.bool_],
    of_person: Sequence[NDArray[np.intp]],
    seed: int,
) -> Figures:
    everyone = np.arange(len(abnormal))

    def area(name: str, rows: NDArray[np.intp]) -> float:
        return float(np.mean([auroc(one[rows], abnormal[rows]) for one in scores[name]]))

    areas = {name: area(name, everyone) for name in scores}
    best = max((name for name in areas if name != "codes"), key=lambda name: areas[name])

    def gain(chosen: NDArray[np.intp]) -> float:
        rows = np.concatenate([of_person[n] for n in chosen])
        return area("codes", rows) - area(best, rows)

    return {f"auroc_{name}": round(value, 3) for name, value in areas.items()} | {
        "best_rival": best,
        "gain": round(areas["codes"] - areas[best], 3),
        "gain_interval": bootstrap_of(len(of_person), gain, seed=seed, repeats=500),
    }


def _both_kinds(
    rng: np.random.Generator, among: NDArray[np.intp], abnormal: NDArray[np.bool_], count: int
) -> NDArray[np.intp]:
    ill, well = among[abnormal[among]], among[~abnormal[among]]
    half = min(len(ill), max(1, count // 2))
    return np.concatenate((rng.permutation(ill)[:half], rng.permutation(well)[: count - half]))


def linear(features: Image) -> Learner:
    """A ridge logistic regression on features (N, D)."""
    return lambda chosen, abnormal, _seed: _logistic(features[chosen], abnormal[chosen], features)


def from_scratch(films: Image, like: VAE, steps: int = 150) -> Learner:
    """The encoder's own layers from random weights, with one output, on films moved at random."""

    def learned(chosen: NDArray[np.intp], abnormal: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        fresh = VAE(like.canvas, 1, like.widths)
        optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-3, weight_decay=1e-2)
        for _ in range(steps):
            drawn = chosen[rng.integers(len(chosen), size=min(_BATCH, len(chosen)))]
            stack = torch.from_numpy(films[drawn])[:, None]
            stack = functional.grid_sample(stack, movement(stack, rng, mirror=False), align_corners=False)
            wanted = torch.from_numpy(abnormal[drawn].astype(np.float32))
            value = functional.binary_cross_entropy_with_logits(_logits(fresh, stack), wanted)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(films)[:, None], 64)
            return np.concatenate([_logits(fresh, part).numpy() for part in parts]).astype(np.float64)

    return learned


def _logits(network: VAE, films: torch.Tensor) -> torch.Tensor:
    return network.encode(films)[0][:, 0]


def _logistic(known: Image, labels: NDArray[np.bool_], asked: Image) -> NDArray[np.float64]:
    """Scores of a ridge logistic regression on standardised features (N, D)."""
    mean, sd = known.mean(0), known.std(0) + 1e-6
    x = ((known - mean) / sd).astype(np.float64)
    sign = np.where(labels, 1.0, -1.0)

    def cost(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (x @ weights[:-1] + weights[-1])
        pull = -sign * np.exp(-np.logaddexp(0, margin)) / len(x)
        ridge = 1.0 / x.shape[1]
        gradient = np.append(x.T @ pull + ridge * weights[:-1], pull.sum())
        value = np.logaddexp(0, -margin).mean() + ridge / 2 * np.square(weights[:-1]).sum()
        return float(value), gradient

    found = optimize.minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B")
    return np.asarray(((asked - mean) / sd) @ found.x[:-1] + found.x[-1], np.float64)


def small(images: Image) -> Image:
    """Films (N, H, W) as means of blocks (N, 32 × 32): what a probe without the network sees."""
    height, width = (side // PROBE_SIDE for side in images.shape[1:])
    parts = images[:, : height * PROBE_SIDE, : width * PROBE_SIDE]
    blocks = parts.reshape(len(images), PROBE_SIDE, height, PROBE_SIDE, width)
    return np.asarray(blocks.mean((2, 4)).reshape(len(images), -1), np.float32)

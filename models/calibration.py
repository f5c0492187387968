"""How large errors are in normal people, and so what is rare.

The error of a reconstruction depends on the tissue and on the distance from the rim, so both
make regions, and an error is given in standard deviations of its region. A threshold is the
score that a stated share of normal pixels exceeds. For a whole series the split-conformal rank
among held-out normal series is given, from 100 of them on (Vovk 2005; Angelopoulos 2021).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_SERIES = 100
_LEVELS = np.linspace(0.05, 0.95, 19)  # of the normalised reconstruction
_DEPTHS = np.array([6.0, 10.0, 20.0])  # pixels from the rim
_FEWEST_PIXELS = 2000  # below this a region takes the figures of its tissue, and a tissue those of all


@dataclass(frozen=True)
class Calibration:
    """Errors of normal people by region, the threshold, and their series scores."""

    mean: NDArray[np.float32]  # (levels + 1, depths + 1)
    sd: NDArray[np.float32]
    threshold: float  # in SD
    false_positive_rate: float  # share of judged pixels of normal people above the threshold
    series_scores: NDArray[np.float32]  # one a held-out normal series, sorted

    def to_sd(
        self, error: NDArray[np.float32], level: NDArray[np.float32], depth: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Errors in SD of their region; `level` is the reconstruction, `depth` pixels from the rim."""
        region = _regions(level, depth)
        return np.asarray((error - self.mean[region]) / self.sd[region], np.float32)

    def rarer_than(self, series_score: float) -> float | None:
        """Share of normal series that score lower, by conformal rank; None under 100 series."""
        count = len(self.series_scores)
        if count < FEWEST_SERIES:
            return None
        as_high = count - int(np.searchsorted(self.series_scores, series_score, side="left"))
        return 1.0 - (1 + as_high) / (count + 1)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What calibration.npz holds."""
        return {
            "mean": self.mean,
            "sd": self.sd,
            "threshold": np.array([self.threshold]),
            "false_positive_rate": np.array([self.false_positive_rate]),
            "series_scores": self.series_scores,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Calibration":
        """A calibration from calibration.npz. Raises KeyError or ValueError where it is another shape."""
        shape = (len(_LEVELS) + 1, len(_DEPTHS) + 1)
        if arrays["mean"].shape != shape or arrays["sd"].shape != shape or not (arrays["sd"] > 0).all():
            raise ValueError(f"calibration is not of {shape} regions with positive SD")
        return cls(
            mean=arrays["mean"].astype(np.float32),
            sd=arrays["sd"].astype(np.float32),
            threshold=float(arrays["threshold"][0]),
            false_positive_rate=float(arrays["false_positive_rate"][0]),
            series_scores=np.sort(arrays["series_scores"].astype(np.float32)),
        )


@dataclass(frozen=True)
class NormalErrors:
    """The judged pixels of one normal series, slice by slice."""

    error: list[NDArray[np.float32]]
    level: list[NDArray[np.float32]]
    depth: list[NDArray[np.float32]]


def fit(normals: Sequence[NormalErrors], false_positive_rate: float, quantile: float = 99.5) -> Calibration:
    """Calibrate on held-out normal series; `quantile` is that of slice_score.

    Raises ValueError where there are none, or no judged pixel in them.
    """
    error = np.concatenate([e for n in normals for e in n.error] or [np.empty(0, np.float32)])
    if error.size < _FEWEST_PIXELS:
        raise ValueError(f"only {error.size} normal pixels; a calibration needs {_FEWEST_PIXELS}")
    level = np.concatenate([e for n in normals for e in n.level])
    depth = np.concatenate([e for n in normals for e in n.depth])
    shape = (len(_LEVELS) + 1, len(_DEPTHS) + 1)
    mean = np.full(shape, error.mean(), np.float32)
    sd = np.full(shape, max(float(error.std()), 1e-6), np.float32)
    rows, columns = _regions(level, depth)
    for row in range(shape[0]):
        # First the tissue at all depths, then each depth that has pixels enough of its own.
        for column in (slice(None), *range(shape[1])):
            inside = error[(rows == row) & ((columns == column) if isinstance(column, int) else True)]
            if inside.size >= _FEWEST_PIXELS:
                mean[row, column] = inside.mean()
                sd[row, column] = max(float(inside.std()), 1e-6)
    draft = Calibration(mean, sd, 0.0, false_positive_rate, np.empty(0, np.float32))
    threshold = float(np.quantile(draft.to_sd(error, level, depth), 1 - false_positive_rate))
    scores = [
        max(
            slice_score(draft.to_sd(e, v, d), quantile)
            for e, v, d in zip(n.error, n.level, n.depth, strict=True)
            if e.size
        )
        for n in normals
        if any(e.size for e in n.error)
    ]
    return Calibration(mean, sd, threshold, false_positive_rate, np.sort(np.asarray(scores, np.float32)))


def slice_score(scores: NDArray[np.float32], quantile: float = 99.5) -> float:
    """One number a slice from its judged scores: a high percentile; 0 where none is judged."""
    return float(np.percentile(scores, quantile)) if scores.size else 0.0


def _regions(level: NDArray[np.float32], depth: NDArray[np.float32]) -> tuple[Any, Any]:
    return np.searchsorted(_LEVELS, level), np.searchsorted(_DEPTHS, depth)

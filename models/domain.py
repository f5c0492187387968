"""Whether a series is of the kind that a model was taught on, by what its encoder makes of it.

Of every scale of the encoder the mean and the SD of each channel make a slice's features, and with as
much say as all of them the percentiles of its brightness: a denoiser's encoder looks at noise and edges
and would not notice an image that is turned over. A series is far off in several ways: along the eight
directions in which training slices differ most (Mahalanobis), and off all of them (the residual); a new
anatomy shows in the second only. The percentile of brightness that is furthest off is looked at by itself,
since many features that are usual would hide it. Limits come from people who were left out of the fit, fold
by fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Light = Literal["green", "amber", "red"]
Features = NDArray[np.float64]  # (N, D)

DIRECTIONS = 8
FEWEST_SLICES = 24
PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
BRIGHTNESS = len(PERCENTILES) + 1  # the last features: percentiles, and the share of the person
_FOLDS = 5
_KNOWN = 0.95  # of series of people who were left out lie within the limits
# Times the limits, of which people who were left out reach 1.5. What a denoiser may change is bounded
# pixel by pixel, so that it may go further from home than a model whose result is believed.
_AMBER = 1.2
RED: Mapping[str, float] = {"denoiser": 3.0, "anomaly": 2.0, "vae": 2.0}
_PREFIX = "gate_"
_FEWEST_PIXELS = 200


@dataclass(frozen=True)
class Judgement:
    """How far a series is from the training slices, in units of what is usual there."""

    light: Light
    distance: float  # along their directions, 1 is the limit of 95 % of the people left out
    residual: float  # off them
    brightness: float  # of the percentile that is furthest off

    @property
    def reason(self) -> str:
        """One sentence for a person; empty for green."""
        if self.light == "green":
            return ""
        word = "unlike" if self.light == "amber" else "nothing like"
        return (
            f"the images are {word} those that the model was taught on "
            f"(distance {self.distance:.1f}, residual {self.residual:.1f}, brightness {self.brightness:.1f} "
            "times the usual limit)"
        )


@dataclass(frozen=True)
class Domain:
    """The training slices' features: middle, spread, directions, and how far known people lie."""

    mean: NDArray[np.float32]  # (D,)
    sd: NDArray[np.float32]  # (D,), over each feature's say
    directions: NDArray[np.float32]  # (8, D), orthonormal
    spread: NDArray[np.float32]  # (8,), SD along each
    limits: NDArray[np.float32]  # (3,), distance, residual and brightness of people left out

    def judge(self, features: Features, kind: str = "anomaly") -> Judgement:
        """The light of a series for a model of a kind (of RED), by the median of its slices.

        Raises ValueError for other features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean) or not len(features):
            raise ValueError(f"features {features.shape} are not those of this model")
        far = _far_series(self.mean, self.sd, self.directions, self.spread, features)
        distance, residual, bright = (float(value) for value in far / self.limits)
        largest = max(distance, residual, bright)
        known = np.isfinite([distance, residual, bright]).all()
        light: Light = "green" if largest <= _AMBER else "amber" if largest <= RED[kind] else "red"
        return Judgement(light if known else "red", distance, residual, bright)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What calibration.npz holds."""
        return {_PREFIX + name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Domain | None":
        """That of a model folder; None where it was packed without. Raises ValueError for an older form."""
        names = cls.__dataclass_fields__
        if not all(_PREFIX + name in arrays for name in names):
            return None
        if arrays[_PREFIX + "limits"].shape != (3,):
            raise ValueError(
                "its gate statistics are of an older form: make them again by `aenode models gate`"
            )
        return cls(**{name: arrays[_PREFIX + name].astype(np.float32) for name in names})


def encoder_features(network: nn.Module, batch: NDArray[np.float32], device: str = "cpu") -> Features:
    """Mean and SD of every channel at every scale (N, D) of network inputs (N, C, H, W)."""
    scales = cast(Callable[[torch.Tensor], list[torch.Tensor]], network.scales)
    found = []
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for one in batch:
            answers = scales(torch.from_numpy(np.ascontiguousarray(one))[None].to(device))
            parts = [part for answer in answers for part in (answer.mean((2, 3)), answer.std((2, 3)))]
            found.append(torch.cat(parts, 1)[0].float().cpu().numpy())
    return np.asarray(found, np.float64)


def brightness(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> Features:
    """Percentiles of a slice (Y, X) in the person, and the person's share of it (BRIGHTNESS,)."""
    values = image[inside] if inside.sum() > _FEWEST_PIXELS else image.ravel()
    return np.append(np.percentile(values, PERCENTILES), inside.mean())


def fit_domain(series: Sequence[Features], people: Sequence[str], seed: int = 1) -> Domain | None:
    """The domain of training series, each its slices' features (N, D), of a person each.

    None with too few slices or people for it.
    """
    names = sorted(set(people))
    if sum(len(one) for one in series) < FEWEST_SLICES or len(names) < _FOLDS:
        return None
    order = np.random.default_rng(seed).permutation(len(names))
    far = []
    for fold in range(_FOLDS):
        left = {names[n] for n in order[fold::_FOLDS]}
        known = [one for one, person in zip(series, people, strict=True) if person not in left]
        parts = _directions(np.concatenate(known))
        far += [
            _far_series(*parts, one) for one, person in zip(series, people, strict=True) if person in left
        ]
    limits = np.quantile(far, _KNOWN, axis=0)
    return Domain(*(part.astype(np.float32) for part in (*_directions(np.concatenate(series)), limits)))


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices of `count` slices, spread evenly, the ends left out where there are enough."""
    if count <= most:
        return list(range(count))
    return [round(n) for n in np.linspace(0.1 * count, 0.9 * (count - 1), most)]


def _directions(features: Features) -> tuple[Features, Features, Features, Features]:
    mean = features.mean(0)
    # A channel that hardly varies in training must not make every other scanner infinitely far.
    sd = np.maximum(features.std(0), 0.05 * np.abs(mean) + 1e-6)
    if features.shape[1] > BRIGHTNESS:
        sd[-BRIGHTNESS:] /= np.sqrt((features.shape[1] - BRIGHTNESS) / BRIGHTNESS)
    _, values, axes = np.linalg.svd((features - mean) / sd, full_matrices=False)
    count = min(DIRECTIONS, len(values))
    spread = np.maximum(values[:count] / np.sqrt(max(1, len(features) - 1)), 1e-6)
    return mean, sd, axes[:count], spread


def _far_series(mean: Any, sd: Any, directions: Any, spread: Any, features: Features) -> Features:
    """Of the median slice: Mahalanobis distance along the directions, root mean square off them, and the
    largest deviation of a feature of brightness, in its SD (3,).
    """
    centred = (features - mean) / sd
    along = centred @ np.asarray(directions).T
    off = centred - along @ np.asarray(directions)
    bright = np.median(np.abs(centred[:, -BRIGHTNESS:]), axis=0).max()
    return np.array(
        [
            np.median(np.sqrt(np.square(along / spread).mean(1))),
            np.median(np.sqrt(np.square(off).mean(1))),
            bright * np.sqrt(BRIGHTNESS / max(1, len(mean) - BRIGHTNESS)),
        ]
    )

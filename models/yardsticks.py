"""Classical filters that a denoiser is held against, each with the setting that suits other people best.

Every filter is told the true SD of the noise, which the network has to estimate, and its one setting is
chosen by the mean error on validation people. BM3D stands for the best that was known before networks;
its package may not be used commercially, is asked for only where it is installed, and never shipped.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Filter = Callable[[Image, float, float], Image]  # noisy (Y, X), its SD, the setting


@dataclass(frozen=True)
class Sample:
    """One slice of a validation person."""

    noisy: Image  # (Y, X)
    truth: Image
    body: NDArray[np.bool_]

    @property
    def sigma(self) -> float:
        """The SD of the noise in the body."""
        return float((self.noisy - self.truth)[self.body].std())


@dataclass(frozen=True)
class Tuned:
    """A setting for each filter, and on how many slices it was chosen."""

    settings: Mapping[str, float]
    slices: int


def _gaussian(noisy: Image, sigma: float, setting: float) -> Image:
    return np.asarray(ndimage.gaussian_filter(noisy, setting), np.float32)


def _nlm(noisy: Image, sigma: float, setting: float) -> Image:
    filters: Any = import_module("skimage.restoration")  # only tests and evaluation have it
    found = filters.denoise_nl_means(
        noisy, patch_size=5, patch_distance=6, h=setting * sigma, sigma=sigma, preserve_range=True
    )
    return np.asarray(found, np.float32)


def _tv(noisy: Image, sigma: float, setting: float) -> Image:
    filters: Any = import_module("skimage.restoration")
    return np.asarray(filters.denoise_tv_chambolle(noisy, weight=setting * sigma), np.float32)


def _bm3d(noisy: Image, sigma: float, setting: float) -> Image:
    # Its way with a power spectrum calls np.trapz, which numpy 2.4 has no more; a number as SD does not.
    package: Any = import_module("bm3d")
    return np.asarray(package.bm3d(noisy.astype(np.float64), setting * sigma), np.float32)


FILTERS: Mapping[str, tuple[Filter, tuple[float, ...]]] = {
    "Gaussian": (_gaussian, (0.5, 0.7, 1.0, 1.4)),  # SD in pixels
    "NLM": (_nlm, (0.4, 0.6, 0.8, 1.0, 1.3)),  # of σ
    "TV": (_tv, (0.3, 0.5, 0.8, 1.2)),  # of σ
    "BM3D": (_bm3d, (0.8, 1.0, 1.4, 1.8)),  # of σ: noise that is correlated needs more than its SD
}


def available() -> tuple[str, ...]:
    """The filters whose packages are installed here."""
    needs = {"NLM": "skimage", "TV": "skimage", "BM3D": "bm3d"}
    return tuple(name for name in FILTERS if name not in needs or find_spec(needs[name]) is not None)


def tune(samples: Sequence[Sample], names: Sequence[str], most_bm3d: int = 4) -> Tuned:
    """The setting of each filter with the lowest mean error on validation people.

    Errors count in units of each slice's noise. BM3D, which takes seconds, sees the first `most_bm3d`.
    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("no validation slice to choose the classical filters' settings on")
    settings = {}
    for name in names:
        of, choices = FILTERS[name]
        shown = samples[:: math.ceil(len(samples) / most_bm3d)] if name == "BM3D" else samples
        errors = [np.mean([_error(of(s.noisy, s.sigma, choice), s) for s in shown]) for choice in choices]
        settings[name] = choices[int(np.argmin(errors))]
    return Tuned(settings, len(samples))


def filtered(name: str, noisy: Image, sigma: float, tuned: Tuned) -> tuple[Image, float]:
    """The filter's answer with its tuned setting, and the seconds it took."""
    begun = time.perf_counter()
    image = FILTERS[name][0](noisy, sigma, tuned.settings[name])
    return image, time.perf_counter() - begun


def _error(image: Image, sample: Sample) -> float:
    return float(np.square((image - sample.truth)[sample.body]).mean()) / max(sample.sigma, 1e-9) ** 2

"""PET noise: counts, spread by the scanner's resolution and by the filter of the reconstruction.

Each pixel's count is Poisson's. A reconstruction smooths, so that the noise is correlated; only the
*noise* is smoothed here, and nothing of the image's own resolution is lost when it is added. Anscombe's
transform makes the SD of counts 1 whatever their mean, so that one denoiser serves hot and cold.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_FWHM = 2.3548  # of a Gaussian, in its SD


def pet_noise(
    activity: NDArray[np.float32],
    spacing: tuple[float, float],
    *,
    counts: float,
    fwhm_mm: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Noise (Z, Y, X) in the unit of `activity` (Bq/ml, not negative) of a scan of `counts` a slice.

    `counts` are the events of the slice with the most activity, `fwhm_mm` the width of the Gaussian that
    spreads them, `spacing` (y, x) in mm. Raises ValueError for negative or no activity.
    """
    total = float(activity.sum((1, 2)).max(initial=0.0))
    if total <= 0 or activity.min() < 0:
        raise ValueError("activity must not be negative, and some of it must be above 0")
    each = counts / total
    sd = (0.0, fwhm_mm / _FWHM / spacing[0], fwhm_mm / _FWHM / spacing[1])
    expected = ndimage.gaussian_filter(activity.astype(np.float64), sd) * each
    noise = (rng.poisson(expected) - expected) / each
    return np.asarray(ndimage.gaussian_filter(noise, sd), np.float32)


def anscombe(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts to values whose SD is 1 from about four counts on (Anscombe, Biometrika 1948)."""
    return np.asarray(2 * np.sqrt(np.maximum(counts, 0) + 3 / 8))


def inverse_anscombe(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The counts whose transforms have these means: unbiased (Mäkitalo and Foi, IEEE TIP 2011)."""
    d = np.maximum(values, 2 * np.sqrt(3 / 8))
    root = np.sqrt(3 / 2)
    counts = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 1 / 8
    return np.asarray(np.maximum(counts, 0))

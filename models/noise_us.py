"""Ultrasound speckle: a multiplicative Rayleigh envelope, as wide as the pulse, seen through a logarithm.

Many scatterers in a resolution cell sum to a complex Gaussian whose magnitude is Rayleigh's (Wagner et
al., IEEE Trans. Sonics Ultrason. 1983). After log compression its SD is 5.57 dB everywhere and its mean
lies 2.51 dB below the power's: noise that is additive, not Gaussian, with a long dark tail.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SPECKLE_SD_DB = 5.57  # 10 π / (ln 10 √6)
SPECKLE_MEAN_DB = -2.51  # −10 γ / ln 10


def speckle(
    shape: tuple[int, ...], pulse: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Fully developed speckle (…, Y, X) in dB to be added to log-compressed images; its mean power is 0 dB.

    `pulse` is the SD in pixels of the point spread along (y, x): depth, then lateral. Raises ValueError
    where it is negative.
    """
    if min(pulse) < 0:
        raise ValueError(f"a pulse of {pulse} pixels has no width")
    widths = [0.0] * (len(shape) - 2) + [float(width) for width in pulse]
    real, imaginary = (
        ndimage.gaussian_filter(rng.standard_normal(shape), widths, mode="wrap") for _ in range(2)
    )
    # The SD that a Gaussian leaves of white noise is known; a small image's own would be biased.
    left = np.sqrt(
        np.prod([_kept_power(width, length) for width, length in zip(pulse, shape[-2:], strict=True)])
    )
    power = (np.square(real) + np.square(imaginary)) / (2 * left**2)
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12)), np.float32)


def log_compressed(
    decibel: NDArray[np.float32], field: NDArray[np.float32], dynamic_range: float = 60.0
) -> NDArray[np.float32]:
    """An image of echo levels in dB below the largest (0) with speckle, clipped to the range shown."""
    return np.asarray(np.clip(decibel + field, -dynamic_range, 0.0), np.float32)


def _kept_power(width: float, length: int) -> float:
    """The part of white noise's power that scipy's Gaussian of this SD keeps along one axis."""
    impulse = np.zeros(length)
    impulse[0] = 1
    return float(np.square(ndimage.gaussian_filter(impulse, width, mode="wrap")).sum())

"""MR noise as a scanner makes it: complex, of the size of the acquired k-space, seen as a magnitude.

A scanner measures a block of k-space and often fills zeros around it before the transform, so that its
noise is correlated over pixels. The magnitude of a signal A with such noise of SD σ in both channels
has Rice's distribution: no negative value, and a mean above A where A is small (Gudbjartsson and Patz,
MRM 1995).
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.noise import along_z

Real = TypeVar("Real", np.float32, np.float64)

RAYLEIGH_MEAN = float(np.sqrt(np.pi / 2))  # of σ: the mean of a magnitude without signal
RAYLEIGH_SD = float(np.sqrt(2 - np.pi / 2))

_HIGH_PASS = 1.2  # pixels: SD of the Gaussian whose remainder the estimator takes
_WINDOW = 9  # pixels: side of the places whose SD is taken
_EVEN = 5.0  # percentile of those places that counts as even tissue
_EVEN_SD = 0.789  # what it is in white noise of SD 1
_FEWEST_PIXELS = 200


def complex_noise(
    shape: tuple[int, ...], acquired: float | tuple[float, float], rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Complex noise (…, Y, X) of SD 1 in each channel, from the `acquired` share of k-space.

    `acquired` is the share along (y, x), or along both; 1 is white noise. Raises ValueError for shares
    outside of 0 … 1.
    """
    shares = (acquired, acquired) if isinstance(acquired, int | float) else acquired
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"the acquired share of k-space is {acquired}; it lies in 0 … 1")
    drawn = rng.standard_normal((2, *shape), np.float32)
    noise = drawn[0] + 1j * drawn[1]
    if min(shares) < 1:
        inside = [
            np.abs(np.fft.fftfreq(length)) <= share / 2
            for length, share in zip(shape[-2:], shares, strict=True)
        ]
        block = np.outer(*inside)
        noise = np.fft.ifft2(np.fft.fft2(noise) * block) / np.sqrt(block.mean())
    return np.asarray(noise, np.complex64)


def rician(
    magnitude: NDArray[np.float32], sigma: float | NDArray[np.float32], noise: NDArray[np.complex64]
) -> NDArray[np.float32]:
    """What a scanner with noise of `sigma` in each channel shows of magnitudes (…, Y, X).

    `noise` is that of complex_noise, of the same shape; `sigma` may differ by pixel, as it does after
    parallel imaging.
    """
    return np.asarray(np.abs(magnitude + sigma * noise), np.float32)


def rice_mean(magnitude: NDArray[Real], sigma: float) -> NDArray[np.float64]:
    """The mean that Rice's distribution has for magnitudes: what a long average of noisy scans shows."""
    from scipy.special import ive  # noqa: PLC0415 - only tests and evaluation need it

    half = np.square(np.asarray(magnitude, np.float64) / sigma) / 4
    # σ √(π/2) L½(−A²/2σ²), with Bessel functions that are scaled against overflow.
    return np.asarray(sigma * RAYLEIGH_MEAN * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half)))


def estimate_mr_noise(volume: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The noise SD (Z,) of magnitudes (Z, Y, X) within `body` (Z, Y, X), in the volume's unit.

    It is taken where the high-pass is smallest, in the most even tissue there is: cortex and vessels
    would else pass for noise. Levels are smoothed along z. Tissue's own texture adds about 2 % of its
    brightness; of noise from a filled k-space the estimate sees the part that `passed` tells.
    """
    return along_z(np.array([_slice_level(image, mask) for image, mask in zip(volume, body, strict=True)]))


def passed(acquired: tuple[float, float]) -> float:
    """What the estimate sees of noise from this share of k-space along (y, x): 1 is all of white noise."""
    every = np.fft.fftfreq(64)

    def seen(shares: tuple[float, float]) -> float:
        kept = [every[np.abs(every) <= share / 2] for share in shares]
        squared = np.square(kept[0])[:, None] + np.square(kept[1])[None]
        return float(np.square(1 - np.exp(-2 * np.pi**2 * _HIGH_PASS**2 * squared)).mean())

    return float(np.sqrt(seen(acquired) / seen((1.0, 1.0))))


def _slice_level(image: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    rough = image - ndimage.gaussian_filter(image, _HIGH_PASS)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(np.square(rough), _WINDOW), 0))
    inner = ndimage.binary_erosion(body, iterations=3)
    if inner.sum() < _FEWEST_PIXELS:
        return np.nan
    return float(np.percentile(spread[inner], _EVEN)) / _EVEN_SD

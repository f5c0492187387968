"""Noise of digital radiographs (CR, DX): photons and electronics, counted before the image's logarithm.

A film shows density: its values are about the negative logarithm of the exposure. So they are brought
back to exposure, counted (Poisson) with the detector's read noise, and brought to film again; the dense,
bright parts, which few photons pass, are the noisy ones.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LATITUDE = 2.0  # decades of exposure from the darkest film value to the brightest


def film_noise(
    film: NDArray[np.float32],
    *,
    photons: float,
    rng: np.random.Generator,
    read: float = 5.0,
    blur: float = 0.0,
    latitude: float = LATITUDE,
) -> NDArray[np.float32]:
    """Noise (…, Y, X) to be added to films of 0 (most exposed, dark) … 1 (dense, bright).

    `photons` reach a pixel of value 0, `read` is the SD of the electronics in photons, `blur` the SD in
    pixels of the scintillator's light, which correlates the photons' noise. Raises ValueError where no
    photon is left.
    """
    if photons < 1:
        raise ValueError(f"{photons:g} photons make no film")
    expected = photons * 10.0 ** (-latitude * np.asarray(film, np.float64))
    quanta = rng.poisson(expected) - expected
    if blur > 0:
        quanta = ndimage.gaussian_filter(quanta, (0.0,) * (film.ndim - 2) + (blur, blur))
    counted = expected + quanta + rng.normal(0, read, film.shape)
    # A starved pixel cannot read less than one photon.
    return np.asarray(-np.log10(np.maximum(counted, 1) / np.maximum(expected, 1)) / latitude, np.float32)


def film_sd(value: float, *, photons: float, read: float = 5.0, latitude: float = LATITUDE) -> float:
    """The SD of a film's noise at a value, where many photons arrive and nothing blurs them."""
    expected = photons * 10.0 ** (-latitude * value)
    return float(np.sqrt(expected + read**2) / (expected * np.log(10) * latitude))

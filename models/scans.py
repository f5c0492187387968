"""Slices with what a denoiser at full strength takes out of them; and noise for phantoms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.denoiser import Model, denoise
from models.noise import ct_noise

Image = NDArray[np.float32]

_KERNEL = 0.8  # Hann cut-off of the reconstruction


@dataclass(frozen=True)
class Scans:
    """Slices (N, Y, X) in modality units, and what a strength of 1 would take out of each."""

    images: Image
    taken: Image
    sigma: NDArray[np.float32]  # (N,) the noise that the denoiser estimates

    def at(self, strength: float) -> Image:
        """The slices denoised at a strength (N, Y, X): each takes its share."""
        return self.images - np.float32(strength) * self.taken


def scanned(
    model: Model,
    images: Image,
    limit_sigma: float,
    neighbours: NDArray[np.int64] | None = None,
    padding: NDArray[np.bool_] | None = None,
) -> Scans:
    """The slices (N, Y, X) and what models.denoiser.denoise takes out of them at the model's ceiling.

    `neighbours` (N, 3) are the slices below, itself and above; each is its own by default. `padding`
    (N, Y, X) is True where there is no measurement; nowhere by default.
    """
    ceiling = float(model.card["max_strength"])
    if neighbours is None:
        neighbours = np.repeat(np.arange(len(images))[:, None], 3, 1)
    result = denoise(
        model,
        images,
        padding=np.zeros(images.shape, bool) if padding is None else padding,
        neighbours=neighbours,
        strength=ceiling,
        limit_sigma=limit_sigma,
    )
    return Scans(images, (images - result.image) / np.float32(ceiling), result.sigma)


def joined(parts: list[Scans]) -> Scans:
    """Scans in a row."""
    return Scans(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def grain(plain: Image, spacing: float, count: int, noise_hu: float, seed: int) -> Image:
    """CT noise (count, Y, X) of scans of one slice in HU, with an SD of `noise_hu` in its body."""
    noise = ct_noise(np.repeat(plain[None], count, 0), spacing, dose=1.0, seed=seed, cutoffs=(_KERNEL,))[0]
    inside = plain > np.float32(plain.min() / 2)
    return np.asarray(noise * np.float32(noise_hu / noise[:, inside].std()), np.float32)

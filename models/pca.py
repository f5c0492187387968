"""The plain rival of an autoencoder: the same number of codes, but linear (principal components).

Where a network does not beat it, the network has learned nothing that a table of means would not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

CODES = 128
MEAN, COMPONENTS = "pca_mean", "pca_components"  # in calibration.npz
_HALF = 2  # components are kept at half the resolution
_MOST_IMAGES = 2000


@dataclass(frozen=True)
class PrincipalComponents:
    """Mean and orthonormal components of prepared normal slices, at half the canvas's resolution."""

    mean: NDArray[np.float32]  # (h, w)
    components: NDArray[np.float32]  # (codes, h, w)

    def drawn(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each image (N, H, W) as its codes show it, on its own canvas; 0 beyond the components'."""
        size = (self.mean.shape[0] * _HALF, self.mean.shape[1] * _HALF)
        flat = _halved(np.stack([fitted(image, size) for image in images])).reshape(len(images), -1)
        basis = self.components.reshape(len(self.components), -1)
        mean = self.mean.reshape(-1)
        codes = (flat - mean) @ basis.T
        low = (codes @ basis + mean).reshape(len(images), *self.mean.shape)
        tensor = torch.from_numpy(low.astype(np.float32))[:, None]
        full = functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[:, 0].numpy()
        return np.stack([fitted(image, images.shape[1:]) for image in full])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What calibration.npz holds, in half precision."""
        return {MEAN: self.mean.astype(np.float16), COMPONENTS: self.components.astype(np.float16)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "PrincipalComponents | None":
        """Those of a model folder; None where it was packed without."""
        if MEAN not in arrays or COMPONENTS not in arrays:
            return None
        return cls(arrays[MEAN].astype(np.float32), arrays[COMPONENTS].astype(np.float32))


def fit_components(
    images: Sequence[NDArray[np.float32]], canvas: tuple[int, int], codes: int = CODES, seed: int = 1
) -> PrincipalComponents:
    """The first components of prepared slices (H, W); fewer than `codes` where there are few slices.

    Raises ValueError with fewer than three slices.
    """
    if len(images) < 3:
        raise ValueError(f"{len(images)} slices have no principal components")
    chosen = np.random.default_rng(seed).permutation(len(images))[:_MOST_IMAGES]
    flat = _halved(np.stack([fitted(images[n], canvas) for n in sorted(chosen)]))
    shape = flat.shape[1:]
    flat = flat.reshape(len(flat), -1)
    mean = flat.mean(0)
    torch.manual_seed(seed)
    rank = min(codes, len(flat) - 1)
    _, _, basis = torch.svd_lowrank(torch.from_numpy(flat - mean), q=min(rank + 8, len(flat)), niter=3)
    # In the order that a file keeps, so that a model read again draws the same to the last bit.
    components = basis[:, :rank].T.contiguous().reshape(rank, *shape).numpy()
    return PrincipalComponents(mean.reshape(shape), components)


def fitted(plane: NDArray[np.float32], canvas: tuple[int, ...]) -> NDArray[np.float32]:
    """The middle of a plane on a canvas, cut or filled with 0."""
    out = np.zeros(canvas, np.float32)
    take, put = [], []
    for have, want in zip(plane.shape, canvas, strict=True):
        begin, place = max(0, (have - want) // 2), max(0, (want - have) // 2)
        length = min(have, want)
        take.append(slice(begin, begin + length))
        put.append(slice(place, place + length))
    out[put[0], put[1]] = plane[take[0], take[1]]
    return out


def _halved(images: NDArray[np.float32]) -> NDArray[np.float32]:
    pooled = functional.avg_pool2d(torch.from_numpy(images)[:, None], _HALF)[:, 0]
    return np.asarray(pooled.numpy(), np.float32)

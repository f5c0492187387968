"""Made slices for training: overlapping ellipses of all sizes, with no patient in their lineage."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Mean, SD and share of the HU of a leaf: soft tissue, fat, contrast-filled, lung, bone, gas.
_LEAVES = (
    (45.0, 30.0, 0.46),
    (-100.0, 15.0, 0.18),
    (170.0, 60.0, 0.10),
    (-840.0, 50.0, 0.12),
    (500.0, 300.0, 0.10),
    (-990.0, 5.0, 0.04),
)


def dead_leaves(size: int, seed: int) -> NDArray[np.float32]:
    """A slice (size, size) in HU of overlapping soft-edged ellipses of all sizes in a body in air.

    The statistics of edges and sizes are those of natural images (Lee, Mumford & Huang, IJCV 2001);
    no patient is in it.
    """
    rng = np.random.default_rng(seed)
    means, deviations, shares = np.array(_LEAVES).T
    image = np.full((size, size), -1000, np.float32)
    body = _ellipse(size, (size / 2, size / 2), rng.uniform(0.3, 0.47, 2) * size, rng.uniform(-0.2, 0.2))
    image[body] = rng.normal(20, 60)
    for radius in sorted(_radii(rng, 350, 2.0, size / 5), reverse=True):
        kind = rng.choice(len(shares), p=shares)
        axes = radius * np.exp(rng.normal(0, 0.3, 2))
        leaf = _ellipse(size, rng.uniform(0, size, 2), axes, rng.uniform(0, np.pi)) & body
        image[leaf] = max(-1000, rng.normal(means[kind], deviations[kind]))
        if rng.random() < 0.3:
            image[leaf] += _texture(rng, size, rng.uniform(2, 8))[leaf] * rng.uniform(3, 25)
    return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.5, 1.1)), np.float32)


def _radii(rng: np.random.Generator, count: int, smallest: float, largest: float) -> NDArray[np.float64]:
    """Radii whose density falls with their cube, as distances to things make it."""
    share = rng.uniform(0, 1, count)
    return np.asarray((smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5)


def _ellipse(
    size: int, centre: tuple[float, float] | NDArray[np.float64], axes: NDArray[np.float64], angle: float
) -> NDArray[np.bool_]:
    y, x = np.ogrid[:size, :size]
    y, x = y - centre[0], x - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray((along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1)


def _texture(rng: np.random.Generator, size: int, scale: float) -> NDArray[np.float32]:
    """A smooth random field of SD 1 whose structures are about `scale` pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), scale)
    return np.asarray(field / field.std(), np.float32)

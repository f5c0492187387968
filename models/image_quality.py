"""Measures on images whose truth is known: detectability, noise texture, sharpness.

Detectability is the area under the ROC curve of a channelized Hotelling observer with dense difference of
Gaussians (Abbey & Barrett, JOSA A 2001), always on images that it did not learn from.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Image = NDArray[np.float32]

_WIDTHS = 0.015 * 1.4 ** np.arange(10)  # of the channels, 1/mm
_RATIO = 1.67  # of a channel's outer Gaussian to its inner one
_RINGS = 4  # of an edge's profile to a pixel


def channels(side: int, spacing: float) -> NDArray[np.float64]:
    """The observer's channels (side², 10) for regions of `side` pixels of `spacing` mm."""
    axis = np.fft.fftfreq(side, spacing)
    radius = np.hypot(axis[:, None], axis[None, :])
    found = [
        np.fft.ifft2(np.exp(-0.5 * (radius / (_RATIO * w)) ** 2) - np.exp(-0.5 * (radius / w) ** 2)).real
        for w in _WIDTHS
    ]
    return np.stack([np.fft.fftshift(channel).ravel() for channel in found], 1)


def detectability(present: Image, absent: Image, spacing: float) -> float:
    """The observer's area for regions (N, S, S) with and without a signal, learned on one half each time.

    Both regions of a scan have the same noise, so a scan is either learned from or judged.
    """
    templates = channels(present.shape[-1], spacing)
    seen, unseen = (group.reshape(len(group), -1) @ templates for group in (present, absent))
    areas = []
    for learned, judged in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        covariance = np.cov(seen[learned].T) + np.cov(unseen[learned].T)
        observer = np.linalg.solve(covariance, seen[learned].mean(0) - unseen[learned].mean(0))
        areas.append(area(seen[judged] @ observer, unseen[judged] @ observer))
    return float(np.mean(areas))


def detectability_of_few(
    present: Image, absent: Image, templates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The observer's area (N,) for each of a few images (N, S, S) with the signal, that one left out.

    `absent` (N, K, S, S) are K regions without it of as many scans, which give the noise and are what the
    one is told from; `templates` (S², C) are the observer's channels. Their mean is the area.
    """
    seen = present.reshape(len(present), -1) @ templates
    unseen = absent.reshape(*absent.shape[:2], -1) @ templates
    areas = []
    for n in range(len(seen)):
        others = np.arange(len(seen)) != n
        noise = unseen[others] - unseen[others].mean(0)
        covariance = np.cov(noise.reshape(-1, noise.shape[-1]).T)
        signal = seen[others].mean(0) - unseen[others].mean((0, 1))
        observer = np.linalg.solve(covariance, signal)
        areas.append(area(seen[n : n + 1] @ observer, unseen[n] @ observer))
    return np.array(areas)


def area(yes: NDArray[np.float64], no: NDArray[np.float64]) -> float:
    """The area under the ROC curve of scores with and without the signal."""
    return float(stats.mannwhitneyu(yes, no).statistic) / (len(yes) * len(no))


def mean_frequency(noise: Image, spacing: float) -> float:
    """The mean radial frequency of the noise power, 1/mm, of noise (N, S, S)."""
    flat = noise - noise.mean((1, 2), keepdims=True)
    power = np.square(np.abs(np.fft.fft2(flat))).mean(0)
    axis = np.fft.fftfreq(noise.shape[-1], spacing)
    radius = np.hypot(axis[:, None], axis[None, :])
    return float((power * radius).sum() / power.sum())


def sharpness(
    response: Image, centre: tuple[float, float], radius: float, spacing: float, reach: float
) -> float:
    """Where the modulation transfer at a disc's edge falls to a half, 1/mm.

    `response` (S, S) is the mean answer to the disc, the image with it less the one without; `centre`
    (y, x) in mm from the middle. The edge is what lies within `reach` mm of `radius`, in fine rings
    (Richard et al., Med Phys 2012).
    """
    axis = (np.arange(response.shape[-1]) - (response.shape[-1] - 1) / 2) * spacing
    step = spacing / _RINGS
    most = round(reach / step)
    rings = np.rint((np.hypot(axis[:, None] - centre[0], axis[None, :] - centre[1]) - radius) / step)
    near = np.abs(rings) <= most
    places = (rings[near] + most).astype(int)
    counts = np.bincount(places, minlength=2 * most + 1)
    sums = np.bincount(places, response[near], minlength=2 * most + 1)
    # A small disc may have no pixel in a fine ring.
    known = np.flatnonzero(counts)
    spread = np.interp(np.arange(2 * most + 1), known, sums[known] / counts[known])
    transfer = np.abs(np.fft.rfft(np.diff(spread) * np.hanning(2 * most), 1024))
    transfer /= transfer[0]
    if not (transfer < 0.5).any():
        return round(0.5 / step, 4)
    below = int(np.argmax(transfer < 0.5))
    share = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
    return round(float((below - 1 + share) / (1024 * step)), 4)

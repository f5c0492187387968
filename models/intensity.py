"""What a modality's values mean to a denoiser: where the person is, what the unit is, how noisy it is.

CT has a unit, and air outside of the person. MR has neither: its unit is taken from the series itself
(the 99.5th percentile of the person), and air shows the magnitude of noise, or zero where it was masked.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.noise import estimate_noise
from models.noise_mr import estimate_mr_noise

HU_UNIT = 1000.0  # a CT network sees HU / 1000, water at 0
MR_PERCENTILE = 99.5  # an MR network sees its series over this percentile of the person

_CT_RANGE = (-1024.0, 4000.0)  # HU; beyond lie metal and padding
_MR_MOST = 4.0  # of the unit: flow artefacts and fat beside a coil
# What any slice of a person has in HU: fat or air somewhere, and fat or soft tissue in the body.
_LIGHT, _LEAST_LIGHT = -50.0, 0.05
_TISSUE, _LEAST_TISSUE = (-150.0, 150.0), 0.05
_MOST_NEGATIVE = 0.05  # of an MR series that shows magnitudes


class Intensity(Protocol):
    """How values of one modality come to a network and back."""

    least: float  # no result lies below it where the source does not

    def body(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True (Z, Y, X) in the person; outside nothing is changed."""

    def unit(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
        """What the network's 1 is, in modality units."""

    def noise(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The estimated SD (Z,) of the noise in modality units."""

    def network_input(
        self, slices: NDArray[np.float32], padding: NDArray[np.bool_], unit: float
    ) -> NDArray[np.float32]:
        """Slices in modality units with padding filled and odd values clipped."""

    def implausible(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> str:
        """Why these cannot be values of the modality, whatever the header says; empty where they can."""


class HounsfieldUnits:
    """CT: HU, air at −1000."""

    least = -np.inf

    def body(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The patient with lungs and bowel gas."""
        return body_mask(volume, padding)

    def unit(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
        """1000 HU, whatever the series."""
        return HU_UNIT

    def noise(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """From even soft tissue."""
        return estimate_noise(volume, body)

    def network_input(
        self, slices: NDArray[np.float32], padding: NDArray[np.bool_], unit: float
    ) -> NDArray[np.float32]:
        """Padding as air; metal clipped."""
        return np.clip(np.where(padding, np.float32(-1000), slices), *_CT_RANGE).astype(np.float32)

    def implausible(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> str:
        """A scan in HU shows air or fat, and soft tissue; MR or a forgotten rescale lacks one of them."""
        measured = volume[~padding]
        if not measured.size or float((measured < _LIGHT).mean()) < _LEAST_LIGHT:
            return "the images show no air and no fat, so that their values are not HU"
        inside = volume[self.body(volume, padding)]
        low, high = _TISSUE
        if not inside.size or float(((inside > low) & (inside < high)).mean()) < _LEAST_TISSUE:
            return "the images show no soft tissue, so that their values are not HU of a person"
        return ""


class SeriesUnits:
    """MR magnitudes: a series is its own unit, and nothing is below 0."""

    least = 0.0

    def body(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """What is clearly brighter than the background, without holes."""
        return signal_mask(volume, padding)

    def unit(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
        """The 99.5th percentile of the person; 1 where there is none."""
        inside = volume[body]
        return max(float(np.percentile(inside, MR_PERCENTILE)), 1e-6) if inside.size else 1.0

    def noise(self, volume: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """From the most even tissue, of any brightness."""
        return estimate_mr_noise(volume, body)

    def network_input(
        self, slices: NDArray[np.float32], padding: NDArray[np.bool_], unit: float
    ) -> NDArray[np.float32]:
        """Padding as nothing; what is far above the unit clipped."""
        filled = np.where(padding, np.float32(0), slices)
        return np.clip(filled, 0, np.float32(_MR_MOST * unit)).astype(np.float32)

    def implausible(self, volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> str:
        """Magnitudes are not negative; CT and phase images are."""
        if float((volume[~padding] < 0).sum()) > _MOST_NEGATIVE * volume.size:
            return "the images have negative values, so that they are no MR magnitudes"
        return ""


INTENSITIES: Mapping[str, Intensity] = {"CT": HounsfieldUnits(), "MR": SeriesUnits()}


def intensity_of(card: Mapping[str, Any]) -> Intensity:
    """What a denoiser's card says that it takes. Raises ValueError for another modality."""
    modality = str(card.get("input", {}).get("modality", "CT"))
    if modality not in INTENSITIES:
        raise ValueError(f"no denoiser of {modality} is known; there are {', '.join(INTENSITIES)}")
    return INTENSITIES[modality]


def body_mask(volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True (Z, Y, X) in the patient, lungs and bowel gas included; False in outer air and padding.

    Air that reaches the field's edge is inside nevertheless if it is lung that the field cuts off.
    """
    return np.stack([_slice_body(image, pad) for image, pad in zip(volume, padding, strict=True)])


def signal_mask(volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True (Z, Y, X) where an MR series shows a person, fluid and air inside included.

    The level is half of Otsu's (IEEE Trans. SMC 1979) of the smoothed series, and at least three SD
    above the background, which is noise where it was not masked.
    """
    filled = np.where(padding, np.float32(0), volume)
    smooth = np.stack([ndimage.gaussian_filter(image, 1.5) for image in filled])
    sample = smooth[:, ::2, ::2][~padding[:, ::2, ::2]]
    if not sample.size or not sample.max() > sample.min():
        return np.zeros(volume.shape, bool)
    otsu = _otsu(np.minimum(sample, np.percentile(sample, 99.5)))
    background = sample[sample < otsu / 2]
    level = otsu / 2
    if background.size:
        middle = float(np.median(background))
        spread = 1.4826 * float(np.median(np.abs(background - middle)))
        level = float(np.clip(middle + 4 * spread, level, otsu))
    return np.stack([_filled(image > level, pad) for image, pad in zip(smooth, padding, strict=True)])


def _otsu(values: NDArray[np.float32]) -> float:
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * np.square(sums / below - (sums[-1] - sums) / above)
    return float(centres[int(np.nanargmax(apart[:-1]))])


def _filled(mask: NDArray[np.bool_], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    solid = ndimage.binary_fill_holes(mask) & ~padding
    parts, _ = ndimage.label(solid)
    small = np.bincount(parts.ravel()) < max(64, mask.size // 500)
    return np.asarray(solid & ~small[parts])


def _slice_body(image: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled = np.where(padding, np.float32(-1000), image)
    smooth = ndimage.gaussian_filter(filled, 2.0)
    labels, count = ndimage.label((smooth < -500) | padding)
    if count == 0:
        return ~padding
    beside = ndimage.binary_dilation(padding)
    edge = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[beside]))
    outer = np.zeros(count + 1, bool)
    for label in np.unique(edge[edge > 0]):
        values = smooth[(labels == label) & ~beside]
        outer[label] = values.size == 0 or float(np.median(values)) < -930
    body = ~outer[labels] & ~padding
    parts, count = ndimage.label(body)
    # Blankets, tubes and table edges are small beside a patient.
    sizes = np.bincount(parts.ravel())
    small = sizes < max(64, image.size // 500)
    return np.asarray(body & ~small[parts])

"""CT noise as a scanner makes it: in the projections, so that it is correlated and follows the dose.

A slice is projected along the rays of a fan beam, photons are counted (Poisson) by detectors with
electronic noise, and only the *noise* of the log signal is filtered and back-projected, so that
nothing of the slice's own resolution is lost when it is added. Geometry and filter: Kak & Slaney,
Principles of Computerized Tomographic Imaging, 3.4 (equispaced detectors).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

MU_WATER = 0.0192  # 1/mm at about 70 keV
PHOTONS = 3e5  # a detector reading in air at full dose
ELECTRONIC = 10.0  # SD of a reading, in photons

_UPSAMPLING = 3  # detector readings are refined so that back-projection may take the nearest
_SMOOTHING = 2.0  # pixels: SD of the Gaussian whose remainder is the estimator's high-pass
_SOFT_TISSUE = (-200.0, 300.0)
_FEWEST_PIXELS = 200


@dataclass(frozen=True)
class FanBeam:
    """A full circle of views on a flat detector that covers the image's inscribed circle.

    The image is `size` × `size` pixels of `spacing` mm; distances in mm.
    """

    size: int
    spacing: float
    views: int = 580
    pitch: float = 0.6  # between detector elements, scaled to the axis
    source_to_axis: float = 595.0
    source_to_detector: float = 1085.6

    @property
    def detectors(self) -> int:
        """How many elements see the inscribed circle; one more at each end."""
        radius = self.size * self.spacing / 2
        if radius >= 0.9 * self.source_to_axis:
            raise ValueError(f"a field of {2 * radius:.0f} mm does not fit into the gantry")
        half_width = self.source_to_axis * math.tan(math.asin(radius / self.source_to_axis))
        return 2 * math.ceil(half_width / self.pitch) + 2

    @property
    def angles(self) -> torch.Tensor:
        """The views' angles, radians (V,)."""
        return torch.arange(self.views, dtype=torch.float32) * (2 * math.pi / self.views)

    @property
    def offsets(self) -> torch.Tensor:
        """The elements' distances from the central ray at the axis, mm (D,)."""
        return (torch.arange(self.detectors, dtype=torch.float32) - (self.detectors - 1) / 2) * self.pitch

    @property
    def pixel_centres(self) -> torch.Tensor:
        """The pixels' distances from the axis along a row or a column, mm (size,)."""
        return (torch.arange(self.size, dtype=torch.float32) - (self.size - 1) / 2) * self.spacing


def project(mu: torch.Tensor, beam: FanBeam) -> torch.Tensor:
    """Line integrals (B, V, D) of attenuations (B, Y, X) in 1/mm, sampled at every pixel spacing."""
    radius = beam.size * beam.spacing / 2
    steps = torch.arange(-radius, radius, beam.spacing) + beam.spacing / 2
    offsets = beam.offsets[:, None]
    # A ray goes from the source at (0, -R) through (offset, 0); it is turned by each view's angle.
    stretch = torch.sqrt(1 + (offsets / beam.source_to_axis) ** 2)
    nearest = -offsets * torch.sin(torch.atan(offsets / beam.source_to_axis))  # to the axis, along the ray
    along = nearest + steps
    across = offsets * (1 + along / (stretch * beam.source_to_axis))
    depth = along / stretch
    images = mu[None].float()
    sinogram = torch.empty(mu.shape[0], beam.views, beam.detectors)
    for view, angle in enumerate(beam.angles.tolist()):
        x = across * math.cos(angle) - depth * math.sin(angle)
        y = across * math.sin(angle) + depth * math.cos(angle)
        grid = torch.stack((x, y), -1)[None] / radius
        rays = functional.grid_sample(images, grid, align_corners=False)  # (1, B, D, steps)
        sinogram[:, view] = rays[0].sum(-1) * beam.spacing
    return sinogram


def filter_views(sinogram: torch.Tensor, beam: FanBeam, cutoff: float = 1.0) -> torch.Tensor:
    """Weight (…, V, D) by the rays' angle and apply the ramp filter with a Hann apodisation.

    `cutoff` is where the Hann window ends, in units of the detector's Nyquist frequency: small is a
    soft kernel, 1 a standard one, `math.inf` the bare ramp.
    """
    count = beam.detectors
    length = 2 ** math.ceil(math.log2(2 * count))
    distance = torch.arange(length)
    distance = torch.minimum(distance, length - distance)
    ramp = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1) * beam.pitch) ** 2, 0.0)
    ramp[0] = 1 / (4 * beam.pitch**2)
    frequency = torch.fft.rfftfreq(length) * 2
    window = 0.5 + 0.5 * torch.cos(math.pi * (frequency / cutoff).clamp(max=1))
    response = torch.fft.rfft(ramp.double()).real * window * beam.pitch
    cosine = beam.source_to_axis / torch.sqrt(beam.source_to_axis**2 + beam.offsets**2)
    spectrum = torch.fft.rfft(sinogram * cosine, n=length)
    filtered: torch.Tensor = torch.fft.irfft(spectrum * response.float(), n=length)[..., :count]
    return filtered


def back_project(filtered: torch.Tensor, beam: FanBeam) -> torch.Tensor:
    """Images (B, Y, X) from filtered views (B, V, D); 0 outside the inscribed circle."""
    batch, views, count = filtered.shape
    fine = functional.interpolate(
        filtered, size=(count - 1) * _UPSAMPLING + 1, mode="linear", align_corners=True
    )
    width = fine.shape[-1]
    table = fine.permute(1, 2, 0).reshape(views * width, batch).contiguous()
    cosines, sines, radius = beam.angles.cos(), beam.angles.sin(), beam.source_to_axis
    y, x = torch.meshgrid(beam.pixel_centres, beam.pixel_centres, indexing="ij")
    inside = (x**2 + y**2 <= (beam.size * beam.spacing / 2) ** 2).flatten().nonzero()[:, 0]
    places = torch.stack((x.flatten(), y.flatten(), torch.ones(beam.size**2)), 1)[inside]
    # Of a pixel in a view: its distance from the source along the central ray, and from that ray.
    depth = torch.stack((-sines, cosines, torch.full_like(cosines, radius)))
    across = torch.stack((cosines, sines, torch.zeros_like(sines))) * (radius * _UPSAMPLING / beam.pitch)
    starts = (torch.arange(views) * width).to(torch.int32)
    image = torch.zeros(beam.size**2, batch)
    # In parts whose indices stay in the cache.
    for where, part in zip(torch.split(inside, 1024), torch.split(places, 1024), strict=True):
        inverse = (part @ depth).reciprocal_()
        element = (part @ across).mul_(inverse).add_((width - 1) / 2 + 0.5)
        image[where] = functional.embedding_bag(
            element.to(torch.int32).add_(starts), table, per_sample_weights=inverse.square_(), mode="sum"
        )
    image *= math.pi / views * radius**2
    return image.T.reshape(batch, beam.size, beam.size)


def ct_noise(
    volume: NDArray[np.float32],
    spacing: float,
    *,
    dose: float | Sequence[float],
    seed: int,
    cutoffs: Sequence[float] = (1.0,),
    views: int = 580,
) -> NDArray[np.float32]:
    """Noise (K, Z, Y, X) in HU of a scan of square slices (Z, Y, X) in HU, for K Hann cut-offs.

    `spacing` is that of the pixels in mm, `dose` the fraction of the full dose, for all slices or
    each. The kernels show the same photons; slices are independent. Nothing lies outside the
    inscribed circle.
    """
    count, size = volume.shape[0], volume.shape[-1]
    if volume.shape[1] != size:
        raise ValueError(f"slices must be square, not {volume.shape[1]} × {size}")
    beam = FanBeam(size, spacing, views)
    rng = np.random.default_rng(seed)
    paths = line_integrals(volume, beam)
    photons = PHOTONS * np.broadcast_to(np.asarray(dose, np.float64), (count,))[:, None, None]
    counted = rng.poisson(photons * np.exp(-paths)) + rng.normal(0, ELECTRONIC, paths.shape)
    # A starved detector cannot read less than one photon: the streaks of hips and shoulders.
    noise = torch.from_numpy((-np.log(np.maximum(counted, 1) / photons) - paths).astype(np.float32))
    views_of_kernels = torch.cat([filter_views(noise, beam, cutoff) for cutoff in cutoffs])
    image = back_project(views_of_kernels, beam) * (1000 / MU_WATER)
    return image.reshape(len(cutoffs), count, size, size).numpy()


def line_integrals(volume: NDArray[np.float32], beam: FanBeam) -> NDArray[np.float64]:
    """Smooth line integrals (Z, V, D) of slices in HU: all that the *level* of the noise needs.

    Taken on a grid four times coarser in every direction and interpolated.
    """
    coarse = max(1, min(4, beam.size // 64))
    mu = torch.from_numpy(np.maximum(volume / 1000 + 1, 0)).float() * MU_WATER
    small = functional.avg_pool2d(mu[:, None], coarse)[:, 0]
    spacing = beam.spacing * beam.size / small.shape[-1]
    few = FanBeam(small.shape[-1], spacing, math.ceil(beam.views / coarse), beam.pitch * coarse)
    sinogram = project(small, few)
    around = torch.cat((sinogram, sinogram[:, :1]), 1)[:, None]
    # Where the fine views and elements lie on the coarse ones, in grid_sample's -1 … 1.
    view = torch.arange(beam.views) * (2 / beam.views) - 1
    element = beam.offsets / few.offsets[-1]
    grid = torch.stack(torch.meshgrid(view, element, indexing="ij")[::-1], -1)
    fine = functional.grid_sample(
        around, grid.expand(len(mu), -1, -1, -1), align_corners=True, padding_mode="border"
    )
    return fine[:, 0].double().numpy()


def estimate_noise(volume: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The noise SD (Z,) in HU of a volume (Z, Y, X) in HU within `body` (Z, Y, X).

    A slice's level is 1.4826 × the median absolute high-pass of its even soft tissue (of its whole
    body where there is little); levels are then smoothed along z by a median and a mean of five, so
    that one odd slice has no say. A slice without a body takes its neighbours' level, 0 if none has.
    Within 15 % for kernels from soft to sharp: anatomy adds to it about what the high-pass loses.
    """
    return along_z(np.array([_slice_noise(image, mask) for image, mask in zip(volume, body, strict=True)]))


def along_z(levels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Slices' noise levels (Z,) smoothed by a median and a mean of five; NaN takes its neighbours' level."""
    known = np.isfinite(levels)
    if not known.any():
        return np.zeros(len(levels), np.float32)
    where = np.arange(len(levels))
    filled = np.interp(where, where[known], levels[known])
    smooth = ndimage.uniform_filter1d(ndimage.median_filter(filled, 5, mode="nearest"), 5, mode="nearest")
    return np.asarray(smooth, np.float32)


def _slice_noise(image: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    smooth = ndimage.gaussian_filter(image, _SMOOTHING)
    # Every other pixel is plenty, and four times faster.
    rough, level, inner = (image - smooth)[::2, ::2], smooth[::2, ::2], body[::2, ::2]
    inner = ndimage.binary_erosion(inner, iterations=2)
    soft = inner & (level > _SOFT_TISSUE[0]) & (level < _SOFT_TISSUE[1])
    region = soft if soft.sum() >= _FEWEST_PIXELS else inner
    if region.sum() < _FEWEST_PIXELS // 10:
        return math.nan
    rise, run = np.gradient(ndimage.gaussian_filter(level, 1.7))
    slope = np.hypot(rise, run)[region]
    even = np.abs(rough[region][slope <= np.median(slope)])
    return float(1.4826 * np.median(even))

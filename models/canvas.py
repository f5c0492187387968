"""Drawing of soft-edged solids into a volume, on a gently warped grid so that nothing is quite round."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Triple = tuple[float, float, float]
Window = tuple[slice, slice, slice]

_WARP = 5.0  # mm, SD 1/3 of it
_WARP_SCALE = 45.0  # mm


@dataclass
class Canvas:
    """A volume in HU, its voxels' coordinates in mm from the middle, and whose each voxel is."""

    slices: int
    size: int
    slice_spacing: float  # mm
    pixel: float  # mm
    rng: np.random.Generator
    image: NDArray[np.float32] = field(init=False)  # (Z, Y, X)
    organ: NDArray[np.uint8] = field(init=False)  # (Z, Y, X) place in `names`
    names: list[str] = field(default_factory=lambda: [""])

    def __post_init__(self) -> None:
        shape = (self.slices, self.size, self.size)
        self.image = np.full(shape, -1000, np.float32)
        self.organ = np.zeros(shape, np.uint8)
        axis = ((np.arange(self.size) - (self.size - 1) / 2) * self.pixel).astype(np.float32)
        self.z = ((np.arange(self.slices) - (self.slices - 1) / 2) * self.slice_spacing).astype(np.float32)
        self.y, self.x = (
            base + np.clip(self.texture(_WARP_SCALE) * (_WARP / 3), -_WARP, _WARP).astype(np.float32)
            for base in (axis[:, None], axis[None, :])
        )

    def texture(self, scale: float) -> NDArray[np.float32]:
        """A smooth random field (Z, Y, X) of SD 1 with structures of about `scale` mm.

        Slices turn from one random field into another along z.
        """
        sigma = scale / self.pixel
        coarse = max(1, int(sigma / 3))
        length = -(-self.size // coarse) + 2
        fields = self.rng.standard_normal((2, length, length)).astype(np.float32)
        fields = ndimage.gaussian_filter(fields, (0, sigma / coarse, sigma / coarse), mode="wrap")
        fields /= fields.std(axis=(1, 2), keepdims=True)
        if coarse > 1:
            fields = ndimage.zoom(fields, (1, coarse, coarse), order=1)
        fields = fields[:, : self.size, : self.size]
        turn = (self.z / (2 * scale))[:, None, None]
        return np.asarray(fields[0] * np.cos(turn) + fields[1] * np.sin(turn), np.float32)

    def ellipsoid(
        self,
        name: str,
        value: float | NDArray[np.float32],
        centre: Triple,
        radii: Triple,
        *,
        angle: float = 0.0,
        within: tuple[str, ...] = (),
    ) -> None:
        """Lay an ellipsoid of `value` HU over the image; centre and radii are z, y, x in mm.

        `value` may be an array like the image, `angle` turns the ellipsoid about z, and `within` names
        the organs outside which nothing is laid.
        """
        reach = max(radii[1:]) if angle else 0.0
        window = self._window(
            [c - max(r, reach if n else 0) for n, (c, r) in enumerate(zip(centre, radii, strict=True))],
            [c + max(r, reach if n else 0) for n, (c, r) in enumerate(zip(centre, radii, strict=True))],
        )
        if window is None:
            return
        x, y = self.x[window] - np.float32(centre[2]), self.y[window] - np.float32(centre[1])
        z = (self.z[window[0]] - np.float32(centre[0]))[:, None, None] / np.float32(radii[0])
        if angle:
            cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = x * cosine + y * sine, y * cosine - x * sine
        away = np.sqrt((x / np.float32(radii[2])) ** 2 + (y / np.float32(radii[1])) ** 2 + z**2)
        share = np.clip((1 - away) * np.float32(min(radii[1:]) / self.pixel) + np.float32(0.5), 0, 1)
        self._lay(name, value, window, share, within)

    def rod(
        self,
        name: str,
        value: float,
        start: Triple,
        end: Triple,
        radius: float,
        *,
        tall: float = 1.0,
        within: tuple[str, ...] = (),
    ) -> None:
        """Lay a rod with round ends over the image; `tall` stretches it along z."""
        reach = (radius * tall, radius, radius)
        low = [min(a, b) - r for a, b, r in zip(start, end, reach, strict=True)]
        high = [max(a, b) + r for a, b, r in zip(start, end, reach, strict=True)]
        window = self._window(low, high)
        if window is None:
            return
        z, y, x = self.z[window[0]][:, None, None], self.y[window], self.x[window]
        dz, dy, dx = (np.float32(b - a) for a, b in zip(start, end, strict=True))
        z, y, x = (axis - np.float32(a) for axis, a in zip((z, y, x), start, strict=True))
        along = np.clip((z * dz + y * dy + x * dx) / (dz * dz + dy * dy + dx * dx), 0, 1)
        away = np.sqrt(
            ((z - along * dz) / np.float32(tall)) ** 2 + (y - along * dy) ** 2 + (x - along * dx) ** 2
        )
        share = np.clip((np.float32(radius) - away) / np.float32(self.pixel) + np.float32(0.5), 0, 1)
        self._lay(name, value, window, share, within)

    def region(self, name: str) -> NDArray[np.bool_]:
        """The voxels (Z, Y, X) of an organ, as far as nothing was laid over them."""
        if name not in self.names:
            return np.zeros(self.organ.shape, bool)
        return np.asarray(self.organ == self.names.index(name))

    def _window(self, low: list[float], high: list[float]) -> Window | None:
        """The voxels between two corners, the warp allowed for; None where there are none."""
        parts = []
        for axis, step in enumerate((self.slice_spacing, self.pixel, self.pixel)):
            length, spare = self.image.shape[axis], _WARP if axis else 0.0
            start = int(np.floor((low[axis] - spare) / step + (length - 1) / 2))
            stop = int(np.ceil((high[axis] + spare) / step + (length - 1) / 2)) + 1
            parts.append(slice(max(0, start), min(length, stop)))
        return None if any(part.start >= part.stop for part in parts) else (parts[0], parts[1], parts[2])

    def _lay(
        self,
        name: str,
        value: float | NDArray[np.float32],
        window: Window,
        share: NDArray[np.float32],
        within: tuple[str, ...],
    ) -> None:
        if name not in self.names:
            self.names.append(name)
        organ = self.organ[window]
        if within:
            share = share * np.isin(organ, [n for n, known in enumerate(self.names) if known in within])
        image = self.image[window]
        image += share * ((value[window] if isinstance(value, np.ndarray) else np.float32(value)) - image)
        organ[share > 0.5] = self.names.index(name)

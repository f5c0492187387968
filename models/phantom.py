"""A CT of a made body, between heart and liver, whose truth is known: for the demo and the tests.

The scan is that of models.noise: fan-beam projections, Poisson and electronic noise, filtered
back-projection. Places are (z, y, x) in mm from the middle: z to the head, y to the back, x to the
patient's left, which is the right of an image.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.canvas import Canvas, Triple
from models.noise import ct_noise

FIELD = 380.0  # mm across an image
SLICE_SPACING = 2.0  # mm
KERNEL = 0.8  # Hann cut-off of the reconstruction
# Balls in the liver: diameter in mm and contrast in HU; the first four are those of the MITA phantom.
INSERTS = ((3.0, 14.0), (5.0, 7.0), (7.0, 5.0), (10.0, 3.0), (8.0, -40.0), (5.0, -40.0))
LESION = (15.0, 40.0)  # diameter in mm and HU of a solid nodule in the left lung
BLOOD, MUSCLE, FAT, LIVER = 150.0, 58.0, -102.0, 108.0  # HU, about 70 s after contrast


@dataclass(frozen=True)
class Insert:
    """A ball in the liver, and where to measure it and its surroundings."""

    diameter: float  # mm
    contrast: float  # HU against the liver
    inside: NDArray[np.bool_]  # (Z, Y, X)
    around: NDArray[np.bool_]  # (Z, Y, X), liver


@dataclass(frozen=True)
class PhantomSeries:
    """A scanned phantom and its truth; arrays are (Z, Y, X), images float32 in HU."""

    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]
    spacing: Triple  # z, y, x in mm
    body: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    inserts: tuple[Insert, ...]
    regions: dict[str, NDArray[np.bool_]]  # organs, 3 pixels from their edges
    dose: float


def ct_series(*, slices: int, size: int, seed: int, dose: float) -> PhantomSeries:
    """A scan of the phantom: `slices` images of `size`² pixels at a fraction `dose` of the full dose.

    The same arguments give the same series. Raises ValueError for sizes and doses out of range.
    """
    if slices < 1 or size < 64 or not 0 < dose <= 10:
        raise ValueError("a phantom has 1 slice or more of 64² pixels or more, at 0 < dose ≤ 10")
    rng = np.random.default_rng(seed)
    canvas = Canvas(slices, size, SLICE_SPACING, FIELD / size, rng)
    _trunk(canvas)
    _lungs(canvas)
    _upper_abdomen(canvas)
    _heart(canvas)
    _spine(canvas)
    _ribs(canvas)
    lesion = _nodule(canvas)
    inserts = _inserts(canvas)
    body = canvas.organ > 0
    _table(canvas)
    clean = np.asarray(ndimage.gaussian_filter(canvas.image, (0.35, 0.6, 0.6)), np.float32)
    pixel = FIELD / size
    noise = ct_noise(clean, pixel, dose=dose, seed=int(rng.integers(2**31)), cutoffs=(KERNEL,))[0]
    cross = np.ones((1, 3, 3), bool)
    names = ("liver", "aorta", "muscle", "fat", "lung", "spleen", "heart")
    regions = {name: ndimage.binary_erosion(canvas.region(name), cross, iterations=3) for name in names}
    return PhantomSeries(
        noisy=np.maximum(clean + noise, np.float32(-1024)),
        clean=clean,
        spacing=(SLICE_SPACING, pixel, pixel),
        body=body,
        lesion=lesion,
        inserts=inserts,
        regions=regions,
        dose=dose,
    )


def _trunk(canvas: Canvas) -> None:
    """Skin, fat, the muscles of the wall, and fat between the lungs."""
    endless = 1e5
    fat = FAT + 9 * canvas.texture(1.6) + 6 * canvas.texture(7)
    canvas.ellipsoid("skin", 20.0, (0, 4, 0), (endless, 116, 169))
    canvas.ellipsoid("fat", fat, (0, 4, 0), (endless, 114, 167))
    muscle = MUSCLE + 5 * canvas.texture(1.2) - 30 * np.clip(canvas.texture(3) - 1.4, 0, 1)
    canvas.ellipsoid("muscle", muscle, (0, 2, 0), (endless, 98, 148))
    for side in (-1, 1):
        canvas.ellipsoid("muscle", muscle, (0, 88, side * 31), (endless, 16, 27), angle=side * 0.25)
        canvas.ellipsoid("muscle", muscle, (0, 48, side * 136), (endless, 36, 14), angle=side * 0.5)
        # Seams of fat between the layers of the wall.
        canvas.ellipsoid("fat", fat, (0, 8, side * 143), (endless, 40, 1.6), angle=side * 0.1)
    canvas.ellipsoid("cavity", -92 + 6 * canvas.texture(2), (0, 0, 0), (endless, 88, 136))


def _lungs(canvas: Canvas) -> None:
    """Lungs, denser towards the back, with vessels that branch from the hila."""
    depth = np.clip(canvas.y / 80, -1, 1)
    air = (-862 + 28 * depth + 14 * canvas.texture(1.0) + 14 * canvas.texture(6)).astype(np.float32)
    for side in (-1, 1):
        canvas.ellipsoid("lung", air, (0, 4, side * 77), (160, 80, 56), angle=side * 0.12)
        canvas.ellipsoid("lung", air, (0, 46, side * 52), (160, 36, 34), angle=-side * 0.5)
        for height in np.linspace(-42, 42, 14):
            start = (height + canvas.rng.uniform(-3, 3), 12 + canvas.rng.uniform(-16, 16), side * 32.0)
            heading = np.array([canvas.rng.uniform(-0.2, 0.2), canvas.rng.uniform(-1.3, 1.3), side])
            _branch(canvas, ("lung",), "lung vessel", 45.0, start, heading, canvas.rng.uniform(2.2, 3.8))


def _branch(
    canvas: Canvas,
    within: tuple[str, ...],
    name: str,
    value: float,
    start: Triple,
    heading: NDArray[np.float64],
    radius: float,
) -> None:
    """A vessel and, from its end, two thinner ones; down to 0.45 mm."""
    rng = canvas.rng
    heading = heading / np.linalg.norm(heading)
    end = np.asarray(start) + heading * rng.uniform(3.2, 5.5) * (radius + 1.2)
    canvas.rod(name, value, start, (end[0], end[1], end[2]), radius, within=(*within, name))
    for share in (rng.uniform(0.78, 0.9), rng.uniform(0.5, 0.75)):
        if radius * share > 0.45:
            bend = rng.normal(0, 0.42, 3) * np.array([0.6, 1, 1])
            _branch(canvas, within, name, value, (end[0], end[1], end[2]), heading + bend, radius * share)


def _upper_abdomen(canvas: Canvas) -> None:
    """The domes of liver, spleen and stomach, which rise into the lungs' bases."""
    liver = (LIVER + 2.5 * canvas.texture(1.2)).astype(np.float32)
    canvas.ellipsoid("diaphragm", 55.0, (-72, -6, -62), (96, 83, 76.5), angle=0.15)
    canvas.ellipsoid("liver", liver, (-72, -6, -62), (94, 81, 74.5), angle=0.15)
    canvas.ellipsoid("liver", liver, (-72, -44, 0), (70, 34, 52), angle=-0.15)
    for start, heading, radius in (
        ((-30.0, 20.0, -24.0), (0.5, -0.5, -1.0), 4.2),
        ((-10.0, 24.0, -22.0), (-0.25, -0.9, -0.8), 3.6),
        ((-10.0, 26.0, -24.0), (-0.3, 0.2, -1.0), 3.6),
        ((-14.0, 20.0, -20.0), (-0.1, -1.0, 0.1), 3.2),
    ):
        _branch(canvas, ("liver",), "liver vessel", BLOOD + 12, start, np.array(heading), radius)
    spleen = (118 + 2.5 * canvas.texture(1.5)).astype(np.float32)
    canvas.ellipsoid("spleen", spleen, (-62, 44, 92), (70, 38, 27), angle=-0.5)
    canvas.ellipsoid("stomach", 62.0, (-58, -22, 66), (66, 46, 42), angle=-0.3)
    canvas.ellipsoid("stomach", 18.0, (-58, -22, 66), (63, 42.5, 38.5), angle=-0.3)
    # Gas lies above the fluid: only voxels in front of a level.
    gas = np.where(canvas.y < -38, np.float32(-985), canvas.image)
    canvas.ellipsoid("stomach", gas, (-58, -22, 66), (62, 41, 37), angle=-0.3, within=("stomach",))


def _heart(canvas: Canvas) -> None:
    """Heart with its chambers, aorta, oesophagus, inferior vena cava and azygos vein."""
    myocardium = (104 + 3 * canvas.texture(1.5)).astype(np.float32)
    canvas.ellipsoid("cavity", -95.0, (44, -36, 26), (84, 49, 63), angle=0.55)
    canvas.ellipsoid("heart", myocardium, (46, -33, 27), (80, 43, 56), angle=0.55)
    canvas.ellipsoid("blood", BLOOD, (48, -30, 45), (66, 19, 27), angle=0.75)
    canvas.ellipsoid("blood", BLOOD + 8, (48, -47, 8), (66, 17, 30), angle=0.45)
    canvas.ellipsoid("blood", BLOOD + 4, (50, -14, -8), (56, 17, 22), angle=0.2)
    canvas.ellipsoid("heart", myocardium, (50, -32, 54), (40, 3.5, 5), angle=0.75)
    canvas.ellipsoid("vessel wall", 70.0, (0, 38, 21), (1e5, 13, 13))
    canvas.ellipsoid("aorta", BLOOD, (0, 38, 21), (1e5, 11.8, 11.8))
    canvas.ellipsoid("oesophagus", 42.0, (0, 19, 15), (1e5, 6.5, 9))
    canvas.ellipsoid("oesophagus", -700.0, (0, 17.5, 15), (1e5, 1.4, 2.6))
    canvas.ellipsoid("vein", BLOOD + 5, (0, 14, -27), (1e5, 11, 14), angle=0.3)
    canvas.ellipsoid("vein", BLOOD, (0, 41, -6), (1e5, 3.2, 3.2))


def _spine(canvas: Canvas) -> None:
    """Vertebrae, discs between them, the canal, and the sternum."""
    marrow = (190 + 45 * canvas.texture(0.9) + 15 * canvas.texture(4)).astype(np.float32)
    canvas.ellipsoid("muscle", 40.0, (0, 62, 0), (1e5, 17, 21))
    for height in (-26, 4, 34):
        canvas.ellipsoid("bone", 640.0, (height, 60, 0), (14, 15.5, 19.5))
        canvas.ellipsoid("marrow", marrow, (height, 60, 0), (13, 14, 18))
        canvas.rod("bone", 600.0, (height - 4, 90, 0), (height - 12, 106, 0), 3.2, tall=3)
        for side in (-1, 1):
            canvas.rod("bone", 620.0, (height, 70, side * 12), (height, 86, side * 4), 4.5, tall=3)
            canvas.rod("marrow", 260.0, (height, 71, side * 12), (height, 84, side * 5), 2.6, tall=2)
            canvas.rod("bone", 560.0, (height, 78, side * 14), (height, 84, side * 34), 3.8, tall=1.4)
            canvas.rod("marrow", 230.0, (height, 78, side * 14), (height, 84, side * 33), 2.2, tall=1.2)
    canvas.ellipsoid("canal", -20.0, (0, 79, 0), (1e5, 7.5, 9))
    canvas.ellipsoid("canal", 12.0, (0, 79, 0), (1e5, 6.6, 8))
    canvas.ellipsoid("canal", 42.0, (0, 79, 0), (1e5, 4.2, 5.2))
    canvas.ellipsoid("bone", 420.0, (40, -92, 0), (60, 6, 19))
    canvas.ellipsoid("marrow", marrow - 60, (40, -92, 0), (59, 4.2, 17))


def _ribs(canvas: Canvas) -> None:
    """Ribs that run from the spine around the chest, downwards to the front."""
    steps = np.linspace(0, 1, 22)
    for side in (-1, 1):
        for top in np.arange(-30, 120, 27.0) + canvas.rng.uniform(-4, 4):
            around = 0.5 * np.pi - 0.23 - steps * 2.35  # from the back towards the front
            x, y = side * 143 * np.cos(around), 2 + 94 * np.sin(around)
            z = top - 78 * steps**1.2
            points = list(zip(z.tolist(), y.tolist(), x.tolist(), strict=True))
            for name, value, radius in (("bone", 780.0, 4.3), ("marrow", 240.0, 2.5)):
                for start, end in pairwise(points):
                    canvas.rod(name, value, start, end, radius, tall=1.5)


def _nodule(canvas: Canvas) -> NDArray[np.bool_]:
    """The lesion, (Z, Y, X): a solid nodule with short spicules in the left lung."""
    diameter, value = LESION
    centre = (4.0, 2.0, 104.0)
    radius = diameter / 2
    for _ in range(14):
        heading = canvas.rng.normal(0, 1, 3)
        tip = np.asarray(centre) + heading / np.linalg.norm(heading) * radius * canvas.rng.uniform(1.3, 1.7)
        canvas.rod("spicule", -150.0, centre, (tip[0], tip[1], tip[2]), 0.7)
    canvas.ellipsoid("lesion", value, centre, (radius, radius, radius))
    return canvas.region("lesion")


def _inserts(canvas: Canvas) -> tuple[Insert, ...]:
    """Low-contrast balls in even liver, side by side."""
    made = []
    for n, (diameter, contrast) in enumerate(INSERTS):
        centre = (-5.0, -38.0 + 30 * (n // 2), -96.0 + 34 * (n % 2))
        radius = diameter / 2
        name = f"insert {n}"
        canvas.ellipsoid("liver", LIVER, centre, (16, 14, 14), within=("liver", "liver vessel"))
        canvas.ellipsoid(name, LIVER + contrast, centre, (radius, radius, radius), within=("liver",))
        made.append((diameter, contrast, canvas.region(name), centre))
    z, y, x, liver = canvas.z[:, None, None], canvas.y, canvas.x, canvas.region("liver")
    inserts = []
    for diameter, contrast, inside, centre in made:
        away = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        around = liver & (away > diameter / 2 + 2.5) & (away < 13)
        inserts.append(Insert(diameter, contrast, inside, around))
    return tuple(inserts)


def _table(canvas: Canvas) -> None:
    """The table's thin shell under the patient."""
    axis = ((np.arange(canvas.size) - (canvas.size - 1) / 2) * canvas.pixel).astype(np.float32)
    y, x = axis[:, None], axis[None, :]
    top = 138 - (x / 200) ** 2 * 26
    shell = np.clip(1.2 - np.abs(np.abs(y - top - 9) - 8) / canvas.pixel, 0, 1) * (np.abs(x) < 175)
    core = (np.abs(y - top - 9) < 8) & (np.abs(x) < 175)
    free = canvas.organ == 0
    canvas.image[free & core] = -955
    canvas.image += free * shell * (-250 - canvas.image)

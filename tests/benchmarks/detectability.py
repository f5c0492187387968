"""Our observer, and our CT denoiser, on the images of a published test of denoisers.

    python -m tests.benchmarks.detectability DATA/ct-mita-lcd [MODEL] [--strength 0.5]

The data (FDA's LCD_CT, small data set) are ten simulated scans with the four MITA discs and ten without, at
three doses, reconstructed by filtered back-projection (fbp) and by a learned denoiser (DL_denoised). Its
images are other scans than those of fbp: none of the one correlates with any of the other, so that theirs
and ours are compared as two groups, and only ours with its own input. Ours denoises the fbp images.

For each disc the channelized Hotelling observer is learned on nine scans and tells the tenth from eight
places around the middle of a scan without discs. "ideal" is the area of an observer that knows disc and
noise; intervals are of a bootstrap over the ten scans.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from models import weights
from models.denoiser import denoise
from models.image_quality import channels, detectability_of_few, mean_frequency
from models.intervals import bootstrap
from models.weights import LoadedModel

SIZE = 256
CONTRASTS = {14: "3 mm, 14 HU", 7: "5 mm, 7 HU", 5: "7 mm, 5 HU", 3: "10 mm, 3 HU"}
DOSES = ("dose_010", "dose_055", "dose_100")
# The headers say 1 mm; the discs of the truth have the areas of 3, 5, 7 and 10 mm at this.
SPACING = 0.646
SIDE, PLACES = 33, 8  # pixels of a region; regions on the discs' circle

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Scanned:
    """Ten images with the discs and ten without (N, Y, X), HU."""

    present: Images
    absent: Images


def read_scans(folder: Path, method: str, dose: str) -> Scanned:
    """The images of a method and a dose in HU. Raises ValueError where a group is incomplete."""
    # fbp: little-endian, HU + 1000; the denoiser's: big-endian, and unsigned values written as signed.
    kind, air = ("<i2", 1000) if method == "fbp" else (">i2", 1000 - 32768)
    groups = []
    for group in ("signal_present", "signal_absent"):
        paths = sorted((folder / method / dose / group).glob("*.raw"))
        if len(paths) != 10:
            raise ValueError(f"{method}/{dose}/{group} has {len(paths)} images, not 10")
        images = [np.fromfile(path, kind).reshape(SIZE, SIZE) for path in paths]
        groups.append((np.stack(images).astype(np.float32) - air).astype(np.float32))
    return Scanned(*groups)


def truth(folder: Path) -> Images:
    """The phantom (Y, X) in HU."""
    raw = np.fromfile(folder / "fbp" / "ground_truth.raw", "<u2").reshape(SIZE, SIZE)
    return np.asarray(raw.astype(np.float32) - 1000, np.float32)


def centres(phantom: Images) -> dict[int, tuple[int, int]]:
    """The middle of each disc, by its contrast in HU."""
    parts, count = ndimage.label(phantom > 0)
    found = {}
    for part in range(1, count + 1):
        disc = parts == part
        if disc.sum() > 4:
            y, x = ndimage.center_of_mass(disc)
            found[int(phantom[disc].max())] = (round(y), round(x))
    return found


def area_of_disc(phantom: Images, centre: tuple[int, int], contrast: int) -> float:
    """The disc's area in pixels, partial ones by their share."""
    return float(_region(phantom[None], centre)[0].sum() / contrast)


def areas(scans: Scanned, centre: tuple[int, int]) -> NDArray[np.float64]:
    """The observer's area (10,) of each scan with the discs, that one left out, for the disc there."""
    places = _places(centre)
    absent = np.stack([_region(scans.absent, place) for place in places], 1)
    return detectability_of_few(_region(scans.present, centre), absent, channels(SIDE, SPACING))


def ideal_area(scans: Scanned, phantom: Images, centre: tuple[int, int]) -> float:
    """The area of an observer that knows the disc and the noise's power spectrum."""
    noise = np.concatenate([_region(scans.absent, place) for place in _places(centre)])
    power = np.square(np.abs(np.fft.fft2(noise - noise.mean((1, 2), keepdims=True)))).mean(0)
    # As even around the middle as noise is, and above none: ten scans leave gaps.
    axis = np.fft.fftfreq(SIDE)
    ring = np.rint(np.hypot(axis[:, None], axis) * SIDE).astype(int)
    even = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    signal = np.square(np.abs(np.fft.fft2(_region(phantom[None], centre)[0])))
    squared = float((signal / even[ring])[ring > 0].sum())
    return float(stats.norm.cdf(np.sqrt(squared / 2)))


def denoised(model: LoadedModel, scans: Scanned, strength: float) -> Scanned:
    """The scans after our denoiser, each slice by itself."""

    def clean(images: Images) -> Images:
        return denoise(
            model,
            images,
            padding=np.zeros(images.shape, bool),
            neighbours=np.repeat(np.arange(len(images))[:, None], 3, 1),
            strength=strength,
            limit_sigma=model.card["limit_sigma"],
        ).image

    return Scanned(clean(scans.present), clean(scans.absent))


def background(scans: Scanned) -> tuple[float, float]:
    """SD in HU and mean frequency in 1/mm of the noise around the middle."""
    middle = scans.absent[:, 96:160, 96:160]
    flat = middle - middle.mean(0)
    return float(flat.std() * np.sqrt(10 / 9)), mean_frequency(flat, SPACING)


def _places(centre: tuple[int, int]) -> list[tuple[int, int]]:
    middle = (SIZE - 1) / 2
    y, x = centre[0] - middle, centre[1] - middle
    turns = 2 * np.pi * np.arange(PLACES) / PLACES
    return [
        (round(middle + y * np.cos(t) - x * np.sin(t)), round(middle + y * np.sin(t) + x * np.cos(t)))
        for t in turns
    ]


def _region(images: Images, place: tuple[int, int]) -> Images:
    half = SIDE // 2
    return images[:, place[0] - half : place[0] + half + 1, place[1] - half : place[1] + half + 1]


def mean_areas(scans: Scanned, discs: dict[int, tuple[int, int]]) -> NDArray[np.float64]:
    """The observer's areas (4, 10) of each disc and scan."""
    return np.stack([areas(scans, discs[contrast]) for contrast in CONTRASTS])


def _line(dose: str, name: str, scans: Scanned, found: NDArray[np.float64], *more: str) -> str:
    sd, texture = background(scans)
    cells = [f"{value:.2f}" for value in found.mean(1)]
    cells += [_interval(found.mean(0), ""), *more]
    return f"| {int(dose[-3:])} % | {name} | {sd:.1f} | {texture:.3f} | " + " | ".join(cells) + " |"


def _interval(values: NDArray[np.float64], sign: str) -> str:
    low, high = bootstrap({str(n): [float(value)] for n, value in enumerate(values)}) or (np.nan, np.nan)
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", nargs="?", default="ct-denoise")
    parser.add_argument("--strength", type=float, help="Instead of the model's default.")
    asked = parser.parse_args()
    model = weights.load(asked.model)
    strength = model.card["strength"] if asked.strength is None else asked.strength
    phantom = truth(asked.data)
    discs = centres(phantom)
    heads = ["dose", "images", "noise, HU", "NPS mean, 1/mm", *CONTRASTS.values(), "mean AUC", "less fbp's"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for dose in DOSES:
        fbp = read_scans(asked.data, "fbp", dose)
        ideal = [f"{ideal_area(fbp, phantom, discs[contrast]):.2f}" for contrast in CONTRASTS]
        print(f"| {int(dose[-3:])} % | ideal observer of fbp | | | " + " | ".join(ideal) + " | | |")
        before = mean_areas(fbp, discs)
        print(_line(dose, "fbp", fbp, before, ""))
        ours = denoised(model, fbp, strength)
        after = mean_areas(ours, discs)
        less = _interval((after - before).mean(0), "+")
        print(_line(dose, f"{model.name} {model.version} at {strength:g}, on fbp", ours, after, less))
        theirs = read_scans(asked.data, "DL_denoised", dose)
        print(_line(dose, "DL_denoised", theirs, mean_areas(theirs, discs), "other scans"))


if __name__ == "__main__":
    main()

"""What denoisers of each modality are judged on: truths, the noise that is added, windows and words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cases import Case
from models.intensity import INTENSITIES
from models.noise import ct_noise
from models.noise_mr import complex_noise, rician

Image = NDArray[np.float32]

DOSES = (0.5, 0.25, 0.1)  # of the slice's own dose
MR_LEVELS = (0.02, 0.05, 0.1)  # SD of the noise in each channel, of the series' unit
WINDOW = (-160.0, 240.0)  # HU, for PSNR and SSIM
TISSUES = {"lung": (-950, -700), "fat": (-130, -70), "soft": (0, 100), "bone": (250, 1500)}  # HU of the truth
_MOST_OWN_NOISE = 16.0  # HU: noisier slices are no truth
_MOST_OWN_SHARE = 0.05  # of the unit, in MR
_KERNEL = 0.8  # Hann cut-off of the added noise
_ACQUIRED = (1.0, 0.7)  # share of k-space of the added noise: slices take turns
_LEAST_BODY = 500  # pixels


@dataclass(frozen=True)
class Truth:
    """A slice that is clean enough to be the truth."""

    person: str
    image: Image  # (Y, X) modality units
    padding: NDArray[np.bool_]
    body: NDArray[np.bool_]
    own_noise: float  # modality units
    spacing: float
    window: tuple[float, float]  # of PSNR and SSIM
    per_cent: float  # what errors are told in: 1 HU, or a hundredth of the series' unit


@dataclass(frozen=True)
class Bench:
    """How a modality's denoisers are judged."""

    modality: str
    level_name: str
    levels: tuple[float, ...]
    error_name: str
    shift_name: str
    own_name: str
    none: str  # what is said where no slice is clean enough
    truths: Callable[[Case], Iterator[Truth]]
    noisy: Callable[[Truth, float, int], Image]
    tissues: Mapping[str, tuple[float, float]]


def ct_truths(case: Case) -> Iterator[Truth]:
    """The middle square of each slice, where it has little noise of its own."""
    values = INTENSITIES["CT"]
    side = min(case.volume.shape[1:])
    side -= side % 8
    top, left = ((length - side) // 2 for length in case.volume.shape[1:])
    for image, pad in zip(case.volume, case.padding, strict=True):
        square, padding = (
            image[top : top + side, left : left + side],
            pad[top : top + side, left : left + side],
        )
        body = values.body(square[None], padding[None])
        own = float(values.noise(square[None], body)[0])
        if 0 < own < _MOST_OWN_NOISE:
            yield Truth(case.person, square, padding, body[0], own, case.spacing[1], WINDOW, 1.0)


def ct_noisy(truth: Truth, dose: float, seed: int) -> Image:
    """The slice as a scan at `dose` would show it: noise of SD own × √(1/dose − 1) is added."""
    clean = np.maximum(np.where(truth.padding, np.float32(-1000), truth.image), np.float32(-1024))
    noise = ct_noise(clean[None], truth.spacing, dose=dose, seed=seed, cutoffs=(_KERNEL,))[0, 0]
    wanted = truth.own_noise * np.sqrt(1 / dose - 1)
    noisy = np.maximum(clean + noise * np.float32(wanted / noise[truth.body].std()), np.float32(-1024))
    return np.where(truth.padding, truth.image, noisy).astype(np.float32)


def mr_truths(case: Case) -> Iterator[Truth]:
    """Each slice that shows enough of the person and has little noise of its own."""
    values = INTENSITIES["MR"]
    body = values.body(case.volume, case.padding)
    unit = values.unit(case.volume, body)
    own = values.noise(case.volume, body)
    for z, image in enumerate(case.volume):
        if 0 < own[z] < _MOST_OWN_SHARE * unit and body[z].sum() >= _LEAST_BODY:
            yield Truth(
                case.person,
                image,
                case.padding[z],
                body[z],
                float(own[z]),
                case.spacing[1],
                (0.0, unit),
                unit / 100,
            )


def mr_noisy(truth: Truth, level: float, seed: int) -> Image:
    """The slice as a scan of less signal shows it: Rician noise, every other slice from a filled k-space."""
    rng = np.random.default_rng(seed)
    noise = complex_noise(truth.image.shape, _ACQUIRED[seed % len(_ACQUIRED)], rng)
    clean = np.where(truth.padding, np.float32(0), truth.image)
    noisy = rician(clean, level * truth.window[1], noise)
    return np.where(truth.padding, truth.image, noisy).astype(np.float32)


BENCHES: Mapping[str, Bench] = {
    "CT": Bench(
        modality="CT",
        level_name="dose",
        levels=DOSES,
        error_name="rmse_hu",
        shift_name="shift_hu",
        own_name="own_noise_hu",
        none=f"no slice has less than {_MOST_OWN_NOISE:g} HU of noise of its own",
        truths=ct_truths,
        noisy=ct_noisy,
        tissues=TISSUES,
    ),
    "MR": Bench(
        modality="MR",
        level_name="noise",
        levels=MR_LEVELS,
        error_name="rmse_percent",
        shift_name="shift_percent",
        own_name="own_noise_percent",
        none=f"no slice has noise of its own below {100 * _MOST_OWN_SHARE:g} % of its series' unit",
        truths=mr_truths,
        noisy=mr_noisy,
        tissues={},
    ),
}

"""What a series shows that the network, taught on normal people, would not have drawn there.

The network is a U-Net that was trained to take coarse noise off normal images (Kascenas, Pugeault
and O'Neil 2022). Where it changes an image, the image is unlike what it was taught on. The score
is that change, signed, smoothed by a median, in standard deviations of the same tissue and depth
in held-out normal people. It is no probability of disease.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from models.calibration import Calibration, slice_score
from models.denoiser import slices_at_once
from models.preparation import Contract, OutsideDomain, Prepared, prepare, restore
from models.weights import LoadedModel, WeightsError

__all__ = ["AnomalyScores", "CoarseDAE", "OutsideDomain", "errors", "score"]

_THIN_MM = 2.0  # slices as near as this share a lesion, so the median may use three of them


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
            nn.SiLU(),
        )


class CoarseDAE(nn.Module):
    """A U-Net (B, 1, H, W) → (B, 1, H, W) with skips; H and W are divisible by 2^(len(widths) − 1)."""

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192), groups: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Block(before, after, groups) for before, after in zip((1, *widths), widths, strict=False)
        )
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, stride=2) for deep, flat in pairs)
        self.up = nn.ModuleList(_Block(2 * flat, flat, groups) for _, flat in pairs)
        self.out = nn.Conv2d(widths[0], 1, 1)

    def scales(self, image: Tensor) -> list[Tensor]:
        """The encoder's answer at every resolution, the finest first."""
        kept = []
        x = image
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)  # (B, width, H / 2^level, W / 2^level)
            kept.append(x)
        return kept

    def forward(self, image: Tensor) -> Tensor:
        """Draw the image again as a normal person's."""
        kept = self.scales(image)
        x = kept[-1]
        for grow, block, skip in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([grow(x), skip], dim=1))
        out: Tensor = self.out(x)
        return out


@dataclass(frozen=True)
class AnomalyScores:
    """What is unlike the normal people of the calibration, pixel by pixel."""

    score: NDArray[np.float32]  # (Z, Y, X), signed, in SD of normal people; 0 where not evaluated
    evaluated: NDArray[np.bool_]  # (Z, Y, X), the foreground without its rim and without padding
    threshold: float  # a stated share of normal pixels scores above it (model.json, calibration)
    per_slice: NDArray[np.float32]  # (Z,), a high percentile of the evaluated pixels
    series_score: float  # the largest of per_slice
    rarer_than: float | None  # share of normal series that score lower; None under 100 of them
    normals: int  # series of normal people in the calibration
    normal_scores: NDArray[np.float32] | None = None  # their series scores, sorted


def score(
    model: LoadedModel,
    volume: NDArray[np.float32],
    *,
    padding: NDArray[np.bool_],
    spacing: tuple[float, float],
    slice_mm: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AnomalyScores:
    """Score a series (Z, Y, X) in modality units; `padding` is True where the scanner filled in.

    `spacing` is (y, x) in mm. `slice_mm` is the distance of neighbouring slices; without it, or
    above 2 mm, each slice is judged alone. Raises OutsideDomain where the series is not what the
    model was made for, WeightsError where the model is no anomaly model.
    """
    contract, calibration = _parts(model)
    _require_sound(volume, padding)
    prepared = prepare(volume, padding, spacing, contract)
    signed, level = errors(model.network, prepared, contract, model.device, slice_mm, progress)
    judged = prepared.depth > contract.erode
    if not judged.any():
        raise OutsideDomain(f"what it shows of the {contract.foreground} is too small to be judged")
    scores = np.where(judged, calibration.to_sd(signed, level, prepared.depth), 0).astype(np.float32)
    per_slice = np.array(
        [slice_score(s[j], contract.quantile) for s, j in zip(scores, judged, strict=True)], np.float32
    )
    evaluated = (restore(judged.astype(np.float32), prepared, nearest=True) > 0.5) & ~padding
    series_score = float(per_slice[judged.any((1, 2))].max())
    return AnomalyScores(
        score=np.where(evaluated, restore(scores, prepared), 0).astype(np.float32),
        evaluated=evaluated,
        threshold=calibration.threshold,
        per_slice=per_slice,
        series_score=series_score,
        rarer_than=calibration.rarer_than(series_score),
        normals=len(calibration.series_scores),
        normal_scores=calibration.series_scores,
    )


def errors(
    network: nn.Module,
    prepared: Prepared,
    contract: Contract,
    device: str = "cpu",
    slice_mm: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The signed, median-filtered error and the level of tissue it belongs to, (Z, H, W) on the canvas."""
    drawn = np.empty_like(prepared.image)
    at_once = slices_at_once(drawn.shape[1:], device)
    # As its golden output was made: in float32, without TF32's rounding on a GPU.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for k in range(0, len(drawn), at_once):
            batch = torch.from_numpy(prepared.image[k : k + at_once])[:, None].to(device)
            drawn[k : k + at_once] = network(batch)[:, 0].float().cpu().numpy()
            if progress is not None:
                progress(min(k + at_once, len(drawn)), len(drawn))
    raw = contract.sign * (prepared.image - drawn) * prepared.foreground
    across = 3 if slice_mm is not None and slice_mm <= _THIN_MM and len(raw) >= 3 else 1
    size = (across, contract.median, contract.median)
    signed = ndimage.median_filter(raw, size=size, mode="nearest")
    if contract.shading_mm:
        signed = _without_shading(signed, prepared.foreground, contract.shading_mm / contract.pixel_mm)
    return signed, drawn if contract.tissues else np.zeros_like(drawn)


def _without_shading(
    signed: NDArray[np.float32], foreground: NDArray[np.bool_], sigma: float
) -> NDArray[np.float32]:
    """Take off what changes more slowly than a lesion: the receive coil's shading differs by scanner."""
    out = np.zeros_like(signed)
    for k, (plane, inside) in enumerate(zip(signed, foreground, strict=True)):
        share = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
        smooth = ndimage.gaussian_filter(plane * inside, sigma) / np.maximum(share, 1e-3)
        out[k] = (plane - smooth) * inside
    return out


def _parts(model: LoadedModel) -> tuple[Contract, Calibration]:
    if model.kind != "anomaly":
        raise WeightsError(f"model {model.name} is a {model.kind}, not an anomaly model")
    try:
        return Contract.of(model.card), Calibration.of(model.calibration)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"model {model.name} has no usable contract or calibration: {error}") from error


def _require_sound(volume: NDArray[np.float32], padding: NDArray[np.bool_]) -> None:
    if volume.ndim != 3 or volume.shape != padding.shape or not len(volume):
        raise ValueError(f"volume {volume.shape} and padding {padding.shape} are not one (Z, Y, X) shape")
    if not np.isfinite(volume[~padding]).all():
        raise OutsideDomain("the series holds values that are not finite")

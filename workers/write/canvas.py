"""Pictures made of slices, scores and text: windowing, heat colours, orientation letters, lettering."""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_voi

RGB = tuple[int, int, int]
WHITE: RGB = (235, 235, 235)
GREY: RGB = (165, 165, 165)
DARK: RGB = (60, 60, 60)
AMBER: RGB = (255, 191, 64)
CONTOUR: RGB = (255, 240, 170)
# The part of inferno from red to pale yellow: evenly brighter with the score, clear to the
# colour-blind, and never a grey of the image below it.
_RAMP = np.asarray(colormaps["inferno"](np.linspace(0.5, 0.97, 256))[:, :3] * 255, np.uint8)
# Of a difference: blue below, orange above, black where nothing changed; as clear to the colour-blind.
_ENDS = (-1.0, -0.4, 0.0, 0.4, 1.0)
_DIFFERENCE = ((170, 220, 255), (30, 120, 235), (0, 0, 0), (225, 95, 20), (255, 215, 140))


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so that every machine letters alike."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)


def heat(position: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (..., 3) for positions 0 to 1 between the threshold and the top of the scale."""
    colours: NDArray[np.uint8] = _RAMP[np.asarray(position.clip(0, 1) * 255, np.uint8)]
    return colours


def difference_colours(position: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (..., 3) for positions -1 to 1 between the ends of a symmetric scale."""
    channels = [np.interp(position, _ENDS, channel) for channel in zip(*_DIFFERENCE, strict=True)]
    return np.asarray(np.stack(channels, axis=-1).round(), np.uint8)


def window_of(header: Dataset, plane: NDArray[np.float32], padding: NDArray[np.bool_]) -> tuple[float, float]:
    """Centre and width to show a slice with: the header's first, else from the slice's own values."""
    try:
        centre, width = (_first(header[name].value) for name in ("WindowCenter", "WindowWidth"))
        if width >= 1 and np.isfinite(centre):
            return centre, width
    except (KeyError, TypeError, ValueError):
        pass
    if header.get("Modality") == "CT":
        return 40.0, 400.0
    seen = plane[~padding]
    low, high = np.percentile(seen, (1, 99.5)) if seen.size else (0.0, 1.0)
    return float(low + high) / 2, float(max(high - low, 1.0))


def _first(value: object) -> float:
    return float(str(value[0] if isinstance(value, MultiValue | list) else value))


def by_voi_lut(header: Dataset, stored: NDArray[np.int32]) -> NDArray[np.float32] | None:
    """Grey 0 to 255 (Y, X) by the header's first VOI LUT (PS3.3 C.11.2), which comes before its window.

    None where it has none, or where values before the LUT are not the stored ones.
    """
    tables = header.get("VOILUTSequence") or []
    if not tables or header.get("WindowCenter") or header.get("ModalityLUTSequence"):
        return None
    if float(header.get("RescaleSlope") or 1) != 1 or float(header.get("RescaleIntercept") or 0) != 0:
        return None
    try:
        shown = apply_voi(stored, header).astype(np.float32)
        top = float((1 << int(tables[0].LUTDescriptor[2])) - 1)
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return None
    return np.asarray((shown / top * 255).clip(0, 255), np.float32)


def inverted(header: Dataset) -> bool:
    """Whether low values are shown bright (PS3.3 C.7.6.3.1.2, C.11.6)."""
    return bool(
        header.get("PresentationLUTShape") == "INVERSE"
        or header.get("PhotometricInterpretation") == "MONOCHROME1"
    )


def windowed(plane: NDArray[np.float32], centre: float, width: float) -> NDArray[np.float32]:
    """Grey 0 to 255 (Y, X) by the linear window (PS3.3 C.11.2.1.2)."""
    span = max(width - 1, 1e-6)
    return np.asarray((((plane - (centre - 0.5)) / span + 0.5) * 255).clip(0, 255), np.float32)


def fitted(shape: tuple[int, int], spacing: tuple[float, float], box: int) -> tuple[int, int]:
    """Width and height in pixels of a slice (Y, X) with `spacing` (y, x) mm, as large as `box` allows.

    Pixels of unknown spacing (NaN) are taken as square.
    """
    spacing = spacing if np.isfinite(spacing).all() else (1.0, 1.0)
    height, width = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = box / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def fused(
    grey: NDArray[np.float32],
    score: NDArray[np.float32],
    threshold: float,
    top: float,
    size: tuple[int, int],
) -> Image.Image:
    """The grey slice with the scores above the threshold over it, and a line round them.

    `grey` is 0 to 255 and `score` 0 where it does not count, both (Y, X); `size` is (width, height).
    """
    base = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)).clip(0, 255)
    values = np.asarray(Image.fromarray(score).resize(size, Image.Resampling.BILINEAR))
    inside = values >= threshold
    position = np.asarray((values - threshold) / max(top - threshold, 1e-6), np.float32).clip(0, 1)
    opacity = np.where(inside, 0.35 + 0.25 * position, 0)[..., None]
    rgb = base[..., None] * (1 - opacity) + heat(position) * opacity
    rgb[_outline(inside)] = CONTOUR
    return Image.fromarray(rgb.round().astype(np.uint8))


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels just outside a region, so that the line hides nothing of it."""
    around = np.zeros_like(inside)
    around[1:] |= inside[:-1]
    around[:-1] |= inside[1:]
    around[:, 1:] |= inside[:, :-1]
    around[:, :-1] |= inside[:, 1:]
    return around & ~inside


def letters(direction: NDArray[np.float64]) -> str:
    """Where a direction in patient coordinates points: L, R, P, A, H, F, the strongest first.

    A second letter stands where that part is more than a fifth of the whole (PS3.3 C.7.6.1.1.1).
    """
    names = ("RL", "AP", "FH")
    order = [int(axis) for axis in np.argsort(-np.abs(direction)) if abs(direction[axis]) > 0.2]
    return "".join(names[axis][int(direction[axis] > 0)] for axis in order)


def colour_bar(
    draw: ImageDraw.ImageDraw,
    image: Image.Image,
    place: tuple[int, int, int, int],
    threshold: float,
    top: float,
) -> None:
    """A vertical scale from the threshold to the top, with numbers, in the box (x, y, width, height)."""
    values = np.linspace(threshold, top, 5)
    texts = [f"{'≥ ' if value == top else ''}{value:.1f}" for value in values]
    _bar(draw, image, place, heat(np.linspace(1, 0, place[3], dtype=np.float32)), texts)


def difference_bar(
    draw: ImageDraw.ImageDraw, image: Image.Image, place: tuple[int, int, int, int], limit: float
) -> None:
    """A vertical scale from -limit to +limit with numbers, in the box (x, y, width, height)."""
    texts = [f"{value:+.3g}" if value else "0" for value in np.linspace(-limit, limit, 5)]
    _bar(draw, image, place, difference_colours(np.linspace(1, -1, place[3], dtype=np.float32)), texts)


def _bar(
    draw: ImageDraw.ImageDraw,
    image: Image.Image,
    place: tuple[int, int, int, int],
    ramp: NDArray[np.uint8],
    texts: Sequence[str],
) -> None:
    """A ramp (height, 3) from its top down, with texts at even distances from the bottom up."""
    x, y, width, height = place
    image.paste(Image.fromarray(np.repeat(ramp[:, None], width, axis=1)), (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=GREY)
    for number, text in enumerate(texts):
        at = y + height - round(number / (len(texts) - 1) * height)
        draw.line((x + width, at, x + width + 6, at), fill=WHITE)
        draw.text((x + width + 10, at), text, font=font(20), fill=WHITE, anchor="lm")


def bars(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int, int, int],
    values: NDArray[np.float64],
    top: float,
    marked: Collection[int] = (),
    colour: RGB = GREY,
) -> None:
    """A bar for each value from 0 to `top` in the box (x, y, width, height), the `marked` ones amber."""
    x, y, width, height = place
    step = width / len(values)
    for index, value in enumerate(values):
        left, right = x + index * step, x + (index + 1) * step
        bar = (round(left), y + height - value / top * height, round(right - (step > 4)), y + height)
        draw.rectangle(bar, fill=AMBER if index in marked else colour)


def among_normals(
    draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], normal: NDArray[np.float32], own: float
) -> None:
    """A score among those of normal series: a grey tick each, an amber mark for this one, in (x, y, w, h)."""
    x, y, width, height = place
    low = float(min(normal.min(), own, 0))
    span = max(float(max(normal.max(), own)) - low, 1e-6)
    for value in normal:
        at = x + round((float(value) - low) / span * width)
        draw.line((at, y + 8, at, y + height), fill=GREY)
    draw.line((x, y + height, x + width, y + height), fill=GREY)
    at = x + round((own - low) / span * width)
    draw.line((at, y, at, y + height), fill=AMBER, width=3)
    draw.polygon([(at - 6, y - 4), (at + 6, y - 4), (at, y + 6)], fill=AMBER)
    draw.text((x, y + height + 4), f"among {len(normal)} normal series", font=font(16), fill=GREY)


def scale_bar(draw: ImageDraw.ImageDraw, at: tuple[int, int], pixels_per_mm: float, room: int) -> None:
    """A line of 10, 20, 50 or 100 mm, whichever fits, with its length over it."""
    length = next((mm for mm in (100, 50, 20, 10) if mm * pixels_per_mm <= room), 5)
    x, y = at
    end = x + round(length * pixels_per_mm)
    for colour, thick in (((0, 0, 0), 5), (WHITE, 2)):
        draw.line((x, y, end, y), fill=colour, width=thick)
        for side in (x, end):
            draw.line((side, y - 6, side, y + 6), fill=colour, width=thick)
    outlined(draw, (x, y - 12), f"{length} mm", 20, anchor="lb")


def outlined(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, *, anchor: str, fill: RGB = WHITE
) -> None:
    """Text with a black rim, readable on any image."""
    draw.text(at, text, font=font(size), fill=fill, anchor=anchor, stroke_width=3, stroke_fill=(0, 0, 0))

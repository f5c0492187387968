"""A denoiser's page: slices before and after, and what was taken off them, on a scale of its own.

After is what was written, rounded to stored values, and the difference is between those two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from scipy import ndimage

from models.denoiser import Denoised
from workers.read import Volume
from workers.write.canvas import (
    AMBER,
    GREY,
    RGB,
    WHITE,
    bars,
    difference_bar,
    difference_colours,
    fitted,
    font,
)
from workers.write.derived import Part, new_plane
from workers.write.provenance import Provenance
from workers.write.sheet import SIDE, grey_of, made_by, position_text, sheet, write_lines

Place = tuple[slice, slice]
_TILE, _LEFT, _PITCH = 284, 24, 290
_ROW, _TOP = 314, 312  # from one row of pictures to the next, and where the first begins
_MOST_PIXELS = 400  # across a picture; of more no noise would be seen
_BAR = (908, _TOP + _ROW + 42, 18, 170)
_PROFILE = (84, 924, 810, 44)
_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts", "PROPCNTS": "counts", "CPS": "counts/s"}
_NICE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, slots=True)
class Compared:
    """One slice before and after; all (Y, X) in modality units."""

    volume: Volume
    denoised: Denoised
    index: int
    after: NDArray[np.float32]
    stored: NDArray[np.int32]  # of the result

    @classmethod
    def of(cls, part: Part, index: int) -> "Compared":
        """A slice with its result as it is written."""
        volume, denoised = part
        new = np.asarray(new_plane(volume, denoised, index), np.int32)
        if volume.colour is not None:
            after = np.rint(denoised.image[index]).astype(np.float32)
        else:
            slope = float(volume.headers[index].get("RescaleSlope") or 1)
            after = volume.voxels[index] + ((new - volume.stored[index]) * slope).astype(np.float32)
        return cls(volume, denoised, index, after, new)

    @property
    def difference(self) -> NDArray[np.float32]:
        """After less before."""
        return np.asarray(self.after - self.volume.voxels[self.index], np.float32)


def chosen(parts: Sequence[Part]) -> list[Compared]:
    """Of each half of the series the slice that changed most; where nothing changed, the middle one."""
    changes = [
        (_mean_change(*part, index), which, index)
        for which, part in enumerate(parts)
        for index in range(len(part[0].voxels))
    ]
    halves = [changes[: len(changes) // 2], changes[len(changes) // 2 :]]
    best = [max(half, key=lambda place: place[0]) for half in halves if half]
    shown = [Compared.of(parts[which], index) for change, which, index in best if change > 0]
    middle = parts[len(parts) // 2]
    return shown or [Compared.of(middle, len(middle[0].voxels) // 2)]


def _mean_change(volume: Volume, denoised: Denoised, index: int) -> float:
    seen = ~volume.padding[index]
    change = np.abs(denoised.image[index] - volume.voxels[index])[seen]
    return float(change.mean()) if change.size else 0.0


def comparison_page(parts: Sequence[Part], shown: Sequence[Compared], provenance: Provenance) -> Image.Image:
    """The page of a series, with the slices to show."""
    image, draw = sheet("AI denoising: before and after")
    unit = unit_of(parts[0][0].headers[0])
    draw.text((24, 82), noise_words(parts, unit), font=font(34, bold=True), fill=WHITE)
    write_lines(draw, 134, facts(parts, shown, unit), step=30, size=22)
    if provenance.domain:
        _write(draw, 222, provenance.domain, AMBER)
    limit = scale_of([row.difference for row in shown])
    for column, title in enumerate(("before", "after", "after − before")):
        middle = _LEFT + column * _PITCH + _TILE // 2
        draw.text((middle, _TOP - 34), title, font=font(22, bold=True), fill=WHITE, anchor="md")
    alone = len(shown) == 1
    for number, row in enumerate((*shown, *shown) if alone else shown):
        y, detail = _TOP + number * _ROW, alone and number > 0
        _draw_row(image, draw, row, y, limit, unit, whole=alone and not detail, detail=detail)
    difference_bar(draw, image, _BAR, limit)
    draw.text((_BAR[0], _BAR[1] - 16), unit, font=font(20), fill=WHITE, anchor="ld")
    for line, text in enumerate(("clipped", "beyond")):
        draw.text((_BAR[0], _BAR[1] + _BAR[3] + 14 + line * 22), text, font=font(18), fill=GREY)
    _profile(draw, parts, shown, unit)
    write_lines(draw, 984, (made_by(provenance),))
    return image


def noise_words(parts: Sequence[Part], unit: str) -> str:
    """The series' noise before and after, the medians of its slices."""
    pairs = [pair for _, denoised in parts for pair in _noise(denoised)]
    if not pairs:
        return "No noise was found; nothing was changed"
    before, after = np.median(np.array(pairs), axis=0)
    if np.isnan(after):
        return f"Noise {figure(before)} {unit}"
    less = f", {1 - after / before:.0%} less" if after < before else ""
    return f"Noise {figure(before)} → {figure(after)} {unit}{less}"


def _noise(denoised: Denoised) -> list[tuple[float, float]]:
    remaining = np.full(len(denoised.sigma), np.nan) if denoised.remaining is None else denoised.remaining
    return [(float(a), float(b)) for a, b in zip(denoised.sigma, remaining, strict=True) if a > 0]


def facts(parts: Sequence[Part], shown: Sequence[Compared], unit: str) -> tuple[str, ...]:
    """What the page says in words."""
    volume, denoised = parts[0]
    slices = sum(len(part.voxels) for part, _ in parts)
    what = ("picture" if volume.flat else "slice") + ("" if slices == 1 else "s")
    if len(parts) > 1:
        what += f" in {len(parts)} volumes"
    body = str(volume.headers[0].get("BodyPartExamined") or "body part not given")
    differences = [row.difference for row in shown]
    largest = max(float(np.abs(difference).max()) for difference in differences)
    mean = float(np.mean([difference.mean() for difference in differences]))
    each = f"shown: {len(shown)}, of each half of the series the one that changed most"
    if len(shown) == 1:
        each = "shown: one, and its middle" if slices == 1 else "shown: the one that changed, and its middle"
    return (
        f"{volume.modality}, {body}, {slices} {what}; {each}",
        f"Strength {denoised.strength:g}, limit {denoised.limit_sigma:g} × noise: no pixel changes by more "
        f"than {figure(denoised.strength * denoised.limit_sigma)} × the noise of its slice",
        f"Of the slices shown: largest change {figure(largest)} {unit}, mean change {mean:+.2g} {unit}",
    )


def _draw_row(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: Compared,
    y: int,
    limit: float,
    unit: str,
    *,
    whole: bool,
    detail: bool,
) -> None:
    volume, index = row.volume, row.index
    place: Place = slice(None), slice(None)
    if not whole:
        place = _middle(around_the_patient(volume.voxels[index], volume.padding[index]), row.after.shape)
    before, window = grey_of(volume, index)
    after, _ = grey_of(volume, index, row.after, row.stored)
    shape = before[place].shape
    size = fitted((shape[0], shape[1]), volume.spacing[1:], _TILE)
    position = np.asarray(row.difference[place] / np.float32(limit), np.float32).clip(-1, 1)
    pictures = (
        grey_picture(Image.fromarray(before[place]), size),
        grey_picture(Image.fromarray(after[place]), size),
        Image.fromarray(difference_colours(position)).resize(size, Image.Resampling.NEAREST),
    )
    for column, picture in enumerate(pictures):
        x = _LEFT + column * _PITCH
        image.paste(picture, (x + (_TILE - size[0]) // 2, y + (_TILE - size[1]) // 2))
    words = _row_words(row, window, unit) if not detail else ("the middle of it",)
    _write(draw, y - 26, "  ·  ".join(filter(None, words)), WHITE)


def _row_words(row: Compared, window: tuple[float, float], unit: str) -> tuple[str, ...]:
    volume, index = row.volume, row.index
    sigma = float(row.denoised.sigma[index])
    noise = f"noise {figure(sigma)}"
    if row.denoised.remaining is not None:
        noise += f" → {figure(float(row.denoised.remaining[index]))} {unit}"
    slope = abs(float(volume.headers[index].get("RescaleSlope") or 1))
    bound = row.denoised.strength * row.denoised.limit_sigma * sigma + slope / 2  # as it is rounded
    largest = float(np.abs(row.difference).max())
    return (
        "" if volume.flat else f"slice {index + 1}",
        position_text(volume, index),
        volume.label,
        f"W {window[1]:.0f} L {window[0]:.0f}" if volume.colour is None else "",
        noise,
        f"largest change {figure(largest)} of {figure(bound)}",
    )


def _profile(draw: ImageDraw.ImageDraw, parts: Sequence[Part], shown: Sequence[Compared], unit: str) -> None:
    """The noise of every slice before (grey) and after (white), with those shown marked."""
    before = np.concatenate([denoised.sigma for _, denoised in parts]).astype(np.float64)
    if len(before) < 2 or not before.any():
        return
    starts = np.cumsum([0, *(len(volume.voxels) for volume, _ in parts)])
    places = [
        int(start) + row.index
        for row in shown
        for start, (volume, _) in zip(starts, parts, strict=False)
        if volume is row.volume
    ]
    x, y, width, height = _PROFILE
    top = float(before.max())
    bars(draw, _PROFILE, before, top, places)
    if all(denoised.remaining is not None for _, denoised in parts):
        after = np.concatenate(
            [denoised.remaining for _, denoised in parts if denoised.remaining is not None]
        )
        bars(draw, _PROFILE, after.astype(np.float64), top, colour=WHITE)
    draw.text((x - 8, y), f"{figure(top)}", font=font(18), fill=WHITE, anchor="ra")
    draw.text((x - 8, y + height), "0", font=font(18), fill=WHITE, anchor="rd")
    legend = (("noise", WHITE), ("before", GREY), ("after", WHITE))
    for line, (text, colour) in enumerate(legend):
        draw.text((x + width + 14, y - 8 + line * 22), text, font=font(18), fill=colour)


def _middle(place: Place, shape: tuple[int, ...]) -> Place:
    """The middle of a part of a slice, so that it is at most _MOST_PIXELS across."""
    spans = [part.indices(length)[:2] for part, length in zip(place, shape, strict=True)]
    rows, columns = (
        slice(
            start + max(0, stop - start - _MOST_PIXELS) // 2,
            stop - (max(0, stop - start - _MOST_PIXELS) + 1) // 2,
        )
        for start, stop in spans
    )
    return rows, columns


def grey_picture(grey: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture in mode F, grey 0 to 255, as an RGB one of `size` (width, height)."""
    picture = grey.resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.asarray(picture).clip(0, 255).round().astype(np.uint8)).convert("RGB")


def _write(draw: ImageDraw.ImageDraw, y: int, text: str, colour: RGB) -> None:
    """One line across the page, in smaller letters where it is long, cut where it is too long for these."""
    size, width = 20, SIDE - 2 * _LEFT
    while size > 16 and font(size).getlength(text) > width:
        size -= 1
    if font(size).getlength(text) > width:
        while font(size).getlength(f"{text}…") > width:
            text = text[:-1]
        text += "…"
    draw.text((_LEFT, y), text, font=font(size), fill=colour)


def figure(value: float) -> str:
    """A number to three digits, whole where it has more."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def scale_of(differences: Sequence[NDArray[np.float32]]) -> float:
    """The end of a symmetric scale: 99 % of the pixels that changed lie within, rounded up."""
    touched = np.concatenate([np.abs(difference[difference != 0]) for difference in differences])
    typical = float(np.percentile(touched, 99)) if touched.size else 1.0
    power = 10.0 ** np.floor(np.log10(typical))
    return float(next(nice for nice in _NICE if nice * power >= typical * (1 - 1e-6)) * power)


def unit_of(header: Dataset) -> str:
    """The modality's unit as people write it; "units" where it has none."""
    if header.get("Modality") == "CT":
        return "HU"
    return _UNITS.get(str(header.get("Units") or ""), "units")


def around_the_patient(units: NDArray[np.float32], padding: NDArray[np.bool_]) -> Place:
    """The part of a slice (Y, X) that holds the patient, with a margin; all of it where none stands out."""
    if padding.all():
        return slice(None), slice(None)
    low, high = np.percentile(units[~padding], (1, 99))
    inside = ndimage.binary_opening(~padding & (units > low + 0.3 * (high - low)), iterations=3)
    if not inside.any():
        return slice(None), slice(None)
    labels, _ = ndimage.label(inside)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    place = ndimage.find_objects(labels)[largest - 1]
    margin = max(units.shape) // 40
    rows, columns = (slice(max(0, part.start - margin), part.stop + margin) for part in place)
    return rows, columns

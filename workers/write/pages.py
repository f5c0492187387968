"""The pages of an anomaly capture: a summary of the series, and one page for each slice shown.

Every page is 1024 × 1024, with lettering that can still be read at half that size.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from workers.read import Volume
from workers.write.canvas import (
    AMBER,
    DARK,
    GREY,
    WHITE,
    among_normals,
    bars,
    colour_bar,
    fitted,
    font,
    fused,
    letters,
    outlined,
    scale_bar,
)
from workers.write.findings import SMALLEST_MM2, Marked
from workers.write.sheet import SIDE, directions, grey_of, made_by, position_text, sheet, write_lines

MARKS = {"unlike": "unlike", "brighter": "brighter than", "darker": "darker than"}
_SCALE = 3.0  # the colours run from the threshold to three times it, in every series alike


def top_of(figures: Marked) -> float:
    """The score at the upper end of the colours."""
    return figures.scores.threshold * _SCALE


def slice_page(figures: Marked, index: int, page: int, pages: int) -> Image.Image:
    """One slice with its regions, legend, orientation and position."""
    volume, scores = figures.volume, figures.scores
    image, draw = sheet("AI anomaly map")
    box, left, upper = 824, 24, 80
    size = fitted(volume.voxels.shape[1:], volume.spacing[1:], box)
    x, y = left + (box - size[0]) // 2, upper + (box - size[1]) // 2
    picture, window = _slice_picture(figures, index, size)
    image.paste(picture, (x, y))
    for finding in figures.findings:
        if finding.key == index:
            column, row = finding.outline[finding.outline[:, 0].argmax()]
            scale = size[0] / volume.voxels.shape[2], size[1] / volume.voxels.shape[1]
            at = (x + round(column * scale[0]) + 6, y + round(row * scale[1]))
            outlined(draw, at, str(finding.number), 22, anchor="lm", fill=AMBER)
    _letter_edges(draw, figures, index, (x, y, *size))
    per_mm = size[0] / (volume.voxels.shape[2] * volume.spacing[2])
    scale_bar(draw, (x + 14, y + size[1] - 16), per_mm, size[0] // 3)
    _legend(draw, image, figures, (876, 240, 30, 460))
    draw.text((SIDE - 24, 100), f"page {page}/{pages}", font=font(20), fill=GREY, anchor="ra")
    count = len(volume.headers)
    which = f"{figures.provenance.part}, s" if figures.provenance.part else "S"
    lines = (
        f"{which}lice {index + 1} of {count} (image {_instance(volume, index)}), "
        f"{position_text(volume, index)}  ·  marked {figures.area[index]:.0f} mm²",
        f"Slice score {scores.per_slice[index]:.1f}, series score {scores.series_score:.1f}, "
        f"threshold {scores.threshold:.1f}  ·  W {window[1]:.0f} L {window[0]:.0f}",
        made_by(figures.provenance),
    )
    write_lines(draw, 918, lines)
    return image


def summary_page(figures: Marked, shown: Sequence[int], pages: int) -> Image.Image:
    """The series at a glance: the verdict, thumbnails, and the score along the series."""
    volume, scores = figures.volume, figures.scores
    image, draw = sheet("AI anomaly summary")
    found = int((figures.area > 0).sum())
    verdict, colour = (
        (
            f"Regions {MARKS[figures.provenance.marks]} normal in {found} of {len(volume.headers)} slices",
            AMBER,
        )
        if found
        else (f"No region above the threshold ({scores.threshold:.1f})", WHITE)
    )
    draw.text((24, 88), verdict, font=font(34, bold=True), fill=colour)
    draw.text((SIDE - 24, 100), f"page 1/{pages}", font=font(20), fill=GREY, anchor="ra")
    write_lines(draw, 136, facts(figures, shown), step=30, size=22)
    if scores.normal_scores is not None and len(scores.normal_scores):
        among_normals(draw, (780, 150, 220, 30), scores.normal_scores, scores.series_score)
    thumbnails = shown or np.unique(np.linspace(0, len(volume.headers) - 1, 8).round().astype(int)).tolist()
    columns = min(len(thumbnails), 4)
    tile = min(976 // columns - 8, 428 // -(-len(thumbnails) // columns))
    for place, index in enumerate(thumbnails):
        x, y = 24 + (place % columns) * (976 // columns), 300 + (place // columns) * (tile + 6)
        size = fitted(volume.voxels.shape[1:], volume.spacing[1:], tile)
        at = (x + (976 // columns - size[0]) // 2, y + (tile - size[1]) // 2)
        image.paste(_slice_picture(figures, index, size)[0], at)
        outlined(draw, (at[0] + 6, at[1] + 4), f"slice {index + 1}", 20, anchor="la")
    _profiles(draw, figures, shown)
    write_lines(draw, 978, (made_by(figures.provenance),))
    return image


def facts(figures: Marked, shown: Sequence[int]) -> tuple[str, ...]:
    """What the summary says in words."""
    volume, scores = figures.volume, figures.scores
    header = volume.headers[0]
    rare = (
        f"rarer than {scores.rarer_than:.1%} of {scores.normals} normal series"
        if scores.rarer_than is not None
        else f"too few normal series ({scores.normals}) to say how rare that is"
    )
    share = figures.provenance.false_positive_rate
    often = f"; {share:.2%} of the pixels of normal people exceed it" if share is not None else ""
    evaluated = int(scores.evaluated.any(axis=(1, 2)).sum())
    part = str(header.get("BodyPartExamined") or "body part not given")
    if figures.provenance.part:
        part += f", {figures.provenance.part}"
    apart = "pictures" if volume.flat else f"slices, {volume.spacing[0]:.1f} mm apart"
    pages = "No slice page follows; the slices below are a sample, unmarked"
    if shown:
        pages = f"{len(shown)} of these slices {'follows' if len(shown) == 1 else 'follow'}, chosen by score"
    return (
        f"{volume.modality}, {part}, {len(volume.headers)} {apart}; {evaluated} evaluated",
        f"Series score {scores.series_score:.1f}: {rare}",
        f"Marked: {MARKS[figures.provenance.marks]} normal by {scores.threshold:.1f} SD or more{often}",
        f"{pages}.",
        f"Regions under {SMALLEST_MM2:g} mm² are not marked. A score is no probability of disease.",
    )


def patient_orientation(volume: Volume, index: int) -> list[str] | None:
    """PatientOrientation of a slice page (PS3.3 C.7.6.1.1.1): its own, or from its direction cosines."""
    if not volume.flat:
        return [letters(direction) for direction in directions(volume, index)]
    given = [str(word) for word in volume.headers[index].get("PatientOrientation") or []]
    return given if len(given) == 2 and all(set(word) <= set(_OPPOSITE) for word in given) else None


_OPPOSITE = dict(zip("RLAPHF", "LRPAFH", strict=True))


def _opposite(word: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in word)


def _instance(volume: Volume, index: int) -> str:
    return str(volume.headers[index].get("InstanceNumber") or "without number")


def _slice_picture(
    figures: Marked, index: int, size: tuple[int, int]
) -> tuple[Image.Image, tuple[float, float]]:
    grey, window = grey_of(figures.volume, index)
    picture = fused(grey, figures.marked[index], figures.scores.threshold, top_of(figures), size)
    return picture, window


def _letter_edges(
    draw: ImageDraw.ImageDraw, figures: Marked, index: int, place: tuple[int, int, int, int]
) -> None:
    x, y, width, height = place
    orientation = patient_orientation(figures.volume, index)
    if orientation is None:
        return
    row, column = orientation
    for text, at, anchor in (
        (_opposite(row), (x + 10, y + height // 2), "lm"),
        (row, (x + width - 10, y + height // 2), "rm"),
        (_opposite(column), (x + width // 2, y + 8), "ma"),
        (column, (x + width // 2, y + height - 8), "md"),
    ):
        outlined(draw, at, text, 28, anchor=anchor)


def _legend(
    draw: ImageDraw.ImageDraw, image: Image.Image, figures: Marked, place: tuple[int, int, int, int]
) -> None:
    x, y, _, height = place
    for number, line in enumerate((MARKS[figures.provenance.marks], "normal,", "in SD")):
        draw.text((x, y - 84 + number * 24), line, font=font(20), fill=WHITE)
    colour_bar(draw, image, place, figures.scores.threshold, top_of(figures))
    for number, line in enumerate(("clear below", "the threshold")):
        draw.text((x - 8, y + height + 20 + number * 24), line, font=font(18), fill=GREY)


def _profiles(draw: ImageDraw.ImageDraw, figures: Marked, shown: Sequence[int]) -> None:
    """Slice score and marked area along the series; the slices shown stand out."""
    x, width, height = 110, 890, 86
    count = len(figures.area)
    for y, name, values in (
        (744, "slice score", np.maximum(figures.scores.per_slice.astype(np.float64), 0)),
        (846, "marked, mm²", figures.area),
    ):
        top = float(values.max()) * 1.1 or 1.0
        draw.rectangle((x, y, x + width, y + height), outline=DARK)
        bars(draw, (x, y, width, height), values, top, shown)
        for value, at, anchor in ((values.max(), y, "ra"), (0.0, y + height, "rd")):
            text = f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"
            draw.text((x - 8, at), text, font=font(20), fill=WHITE, anchor=anchor)
        outlined(draw, (x + 8, y + 4), name, 18, anchor="la")
    for index, anchor in ((0, "la"), (count - 1, "ra")):
        if anchor == "la" or count > 1:
            where = f"slice {index + 1}, {position_text(figures.volume, index)}"
            draw.text(
                (x if anchor == "la" else x + width, 936), where, font=font(20), fill=WHITE, anchor=anchor
            )

"""Input, denoised, difference and anomaly map of one slice, side by side in one picture.

    python -m workers.picture OUT.png --source FOLDER --results FOLDER

SOURCE holds the series that was sent, RESULTS what came back; both are searched below. The slice is
one that an anomaly page shows, else the one in the middle.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import SecondaryCaptureImageStorage

from models.intensity import body_mask
from models.noise import estimate_noise
from node.errors import SeriesRefused
from workers.read.values import OUT_OF_FIELD_HU
from workers.write.canvas import (
    AMBER,
    GREY,
    WHITE,
    difference_bar,
    difference_colours,
    fitted,
    font,
    window_of,
    windowed,
)
from workers.write.comparison import around_the_patient, grey_picture, scale_of, unit_of
from workers.write.provenance import NOT_FOR_DIAGNOSIS

Place = tuple[slice, slice]
PANEL, GAP, CAPTION, HEAD = 760, 16, 64, 64


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture with its title and a line of figures."""

    picture: Image.Image
    title: str
    figures: str


def draw(out: Path, source: Path, results: Path) -> None:
    """Write the picture. Raises SeriesRefused where no result has its source image in `source`."""
    found = [(path, ds) for path, ds in _headers(results) if "SourceImageSequence" in ds]
    captures = [(path, ds) for path, ds in found if ds.SOPClassUID == SecondaryCaptureImageStorage]
    pages = [(path, ds) for path, ds in captures if "anomaly" in str(ds.get("DerivationDescription", ""))]
    derived = {_source_uid(ds): path for path, ds in found if ds.SOPClassUID != SecondaryCaptureImageStorage}
    sources = {str(ds.SOPInstanceUID): path for path, ds in _headers(source)}
    uid, page = _slice(pages, derived, sources)
    before = pydicom.dcmread(sources[uid])
    units = _units(before)
    window = window_of(before, units, np.zeros(units.shape, bool))
    outside = (units < OUT_OF_FIELD_HU) & (before.get("Modality") == "CT")
    place = around_the_patient(units, outside)
    about = f"{before.get('Modality', '')} image {before.get('InstanceNumber', '')}, "
    about += f"W {window[1]:.0f} L {window[0]:.0f}{_noise(before, units)}"
    panels = [Panel(_grey(before, units, window, place), "Input", about)]
    if uid in derived:
        panels += _denoised(before, units, window, place, pydicom.dcmread(derived[uid]))
    if page is not None:
        ds = pydicom.dcmread(page)
        picture = Image.fromarray(ds.pixel_array).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
        panels.append(Panel(picture, "Anomaly map", _model(ds)))
    _sheet(panels).save(out)


def _headers(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "SOPInstanceUID" in ds and "Rows" in ds:
            yield path, ds


def _source_uid(ds: Dataset) -> str:
    return str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID)


def _slice(
    pages: Sequence[tuple[Path, Dataset]], derived: dict[str, Path], sources: dict[str, Path]
) -> tuple[str, Path | None]:
    """The source image to show, and the capture beside it."""
    shown = [
        (_source_uid(ds), path)
        for path, ds in pages
        if len(ds.SourceImageSequence) == 1 and ds.get("InstanceNumber") != 1 and _source_uid(ds) in sources
    ]
    if shown:
        return shown[len(shown) // 2]
    summary = next((path for path, ds in pages if _source_uid(ds) in sources), None)
    known = [uid for uid in derived if uid in sources]
    if not known and summary is not None:
        known = [_source_uid(ds) for path, ds in pages if path == summary]
    if not known:
        raise SeriesRefused("None of the results has its source image in the source folder.")
    return known[len(known) // 2], summary


def _units(ds: Dataset) -> NDArray[np.float32]:
    slope, intercept = float(ds.get("RescaleSlope") or 1), float(ds.get("RescaleIntercept") or 0)
    return np.asarray(ds.pixel_array * slope + intercept, np.float32)


def _grey(ds: Dataset, units: NDArray[np.float32], window: tuple[float, float], place: Place) -> Image.Image:
    grey = windowed(units[place], *window)
    if ds.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    return _panel(Image.fromarray(grey), ds)


def _panel(picture: Image.Image, ds: Dataset) -> Image.Image:
    """A picture of a slice in the middle of a panel, in the slice's proportions."""
    spacing = [float(v) for v in ds.get("PixelSpacing") or (1, 1)]
    size = fitted((picture.height, picture.width), (spacing[0], spacing[1]), PANEL)
    drawn = grey_picture(picture, size) if picture.mode == "F" else picture.resize(size)
    panel = Image.new("RGB", (PANEL, PANEL))
    panel.paste(drawn, ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return panel


def _model(result: Dataset) -> str:
    """The part of a result's SeriesDescription that we wrote."""
    description = str(result.get("SeriesDescription", ""))
    return description[description.rfind("[") :].strip("[]")


def _noise(ds: Dataset, units: NDArray[np.float32]) -> str:
    """The noise of a CT slice as the denoiser estimates it, in words; nothing for other images."""
    if ds.get("Modality") != "CT":
        return ""
    volume = units[None]
    body = body_mask(volume, np.zeros(volume.shape, np.bool_))
    return f", noise {float(estimate_noise(volume, body)[0]):.1f} HU"


def _denoised(
    before: Dataset,
    units: NDArray[np.float32],
    window: tuple[float, float],
    place: Place,
    after: Dataset,
) -> list[Panel]:
    """The denoised slice, and what was taken off it on a scale of its own."""
    changed = _units(after)
    difference = changed - units
    unit = unit_of(before)
    limit = scale_of([difference])
    position = np.asarray(difference[place] / limit, np.float32).clip(-1, 1)
    picture = _panel(Image.fromarray(difference_colours(position)), before)
    difference_bar(ImageDraw.Draw(picture), picture, (PANEL - 110, PANEL - 236, 22, 200), limit)
    largest, mean = float(np.abs(difference).max()), float(difference.mean())
    return [
        Panel(
            _grey(after, changed, window, place),
            "Denoised",
            f"{_model(after)}{_noise(after, changed)}",
        ),
        Panel(picture, "Difference", f"in {unit}; largest {largest:.3g}, mean {mean:+.2g}"),
    ]


def _sheet(panels: Sequence[Panel]) -> Image.Image:
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    width = columns * (PANEL + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + rows * (PANEL + CAPTION + GAP)), (18, 18, 20))
    draw = ImageDraw.Draw(sheet)
    title, label = "aenode", f"AI · {NOT_FOR_DIAGNOSIS}"
    draw.text((GAP, HEAD // 2), title, font=font(30, bold=True), fill=WHITE, anchor="lm")
    draw.text((width - GAP, HEAD // 2), label, font=font(24, bold=True), fill=AMBER, anchor="rm")
    for number, panel in enumerate(panels):
        x = GAP + number % columns * (PANEL + GAP)
        y = HEAD + number // columns * (PANEL + CAPTION + GAP)
        sheet.paste(panel.picture, (x, y + CAPTION - 8))
        draw.text((x, y + 24), panel.title, font=font(28, bold=True), fill=WHITE, anchor="lm")
        draw.text((x + PANEL, y + 24), panel.figures, font=font(20), fill=GREY, anchor="rm")
    return sheet


def main(arguments: list[str] | None = None) -> int:
    """Draw as the command line says; 1 where there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m workers.picture", description="Results side by side.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="folder of the series that was sent")
    parser.add_argument("--results", type=Path, required=True, help="folder of what came back")
    given = parser.parse_args(arguments)
    try:
        draw(given.out, given.source, given.results)
    except SeriesRefused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every page of a capture has: its sheet, who made it, and slices as a viewer shows them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from workers.read import Volume
from workers.write.canvas import AMBER, WHITE, by_voi_lut, font, inverted, window_of, windowed
from workers.write.provenance import NOT_FOR_DIAGNOSIS, Provenance

SIDE = 1024
LABEL = f"AI · {NOT_FOR_DIAGNOSIS}"
_SMALLEST = 12  # pixels of lettering that a long line shrinks to


def sheet(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty page with its title and the label."""
    image = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE, 60), fill=(38, 30, 12))
    draw.text((24, 30), title, font=font(28, bold=True), fill=WHITE, anchor="lm")
    draw.text((SIDE - 24, 30), LABEL, font=font(28, bold=True), fill=AMBER, anchor="rm")
    return image, draw


def write_lines(
    draw: ImageDraw.ImageDraw, y: int, lines: Sequence[str], step: int = 34, size: int = 21
) -> None:
    """Lines across the page from `y` on, each as large as fits."""
    for number, line in enumerate(lines):
        while size > _SMALLEST and font(size).getlength(line) > SIDE - 48:
            size -= 1
        draw.text((24, y + number * step), line, font=font(size), fill=WHITE)


def made_by(provenance: Provenance) -> str:
    """Model, weights and program in one line."""
    return f"{provenance.algorithm}  ·  {provenance.weights}  ·  {provenance.program}"


def grey_of(
    volume: Volume,
    index: int,
    plane: NDArray[np.float32] | None = None,
    stored: NDArray[np.int32] | None = None,
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Grey 0 to 255 (Y, X) of a slice as a viewer shows it, and the window's centre and width.

    With `plane` and `stored`, a result's values, in the window of their source.
    """
    own, header = volume.voxels[index], volume.headers[index]
    plane = own if plane is None else plane
    centre, width = 128.0, 256.0
    if volume.colour is not None:
        grey = plane.copy()
    else:
        centre, width = window_of(header, own, volume.padding[index])
        looked_up = by_voi_lut(header, volume.stored[index] if stored is None else stored)
        grey = windowed(plane, centre, width) if looked_up is None else looked_up
        if inverted(header):
            grey = 255 - grey
    grey[volume.padding[index]] = 0
    return grey, (centre, width)


def directions(volume: Volume, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The unit vectors (3,) along a slice's rows and columns."""
    cosines = np.asarray(volume.headers[index].ImageOrientationPatient, np.float64)
    return cosines[:3], cosines[3:]


def position_text(volume: Volume, index: int) -> str:
    """Where the middle of a slice lies along the axis it mostly crosses, such as "F 120.5 mm".

    Of a picture without a place in the patient its number.
    """
    if volume.flat:
        return f"picture {index + 1}"
    header = volume.headers[index]
    rows, columns = directions(volume, index)
    normal = np.cross(rows, columns)
    _, height, width = volume.voxels.shape
    centre = (
        np.asarray(header.ImagePositionPatient, np.float64)
        + rows * volume.spacing[2] * (width - 1) / 2
        + columns * volume.spacing[1] * (height - 1) / 2
    )
    axis = int(np.argmax(np.abs(normal)))
    letter = ("RL", "AP", "FH")[axis][int(centre[axis] > 0)]
    return f"{letter} {abs(centre[axis]):.1f} mm"

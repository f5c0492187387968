"""CR, DX, MG, XA, RF, NM and ultrasound: pictures without a place in the patient, each judged by itself.

Frames of a cine are pictures too: what moves from one to the next must not be averaged.

Colour is read as RGB with its luminance as the voxels (ITU-R BT.601), so that a result changes how
bright a pixel is and never its hue.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from node.errors import SeriesRefused
from workers.read.decode import is_lossy
from workers.read.frames import frame_count, top_level, words_of_frames
from workers.read.header import number_of, numbers_of, refusing, shown, text_of
from workers.read.image import Image, named, require_modality_units, require_pixel_module
from workers.read.kinds import Kind
from workers.read.nuclear import frames_together
from workers.read.values import values_of
from workers.read.volume import Volume

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")
_PALETTE = ("RedPalette", "GreenPalette", "BluePalette", "PaletteColor", "SegmentedRed", "SegmentedGreen")
_CENTIMETRES = 3  # PhysicalUnitsXDirection (PS3.3 C.8.5.5.1.15)


class _Pictures(NamedTuple):
    """What one file holds."""

    headers: list[Dataset]  # one a picture
    path: Path
    images: list[Image]
    words: NDArray[np.integer]  # (F, Y, X) or (F, Y, X, 3)
    whole: Dataset | None  # the object, where it may hold several


def flat_volumes(headers: Sequence[tuple[Dataset, Path]], kind: Kind) -> list[Volume]:
    """One volume for each multi-frame object, else one for the pictures of each size."""
    files = [_pictures(ds, path, kind) for ds, path in headers]
    if kind.frames:
        return [volume for file in files for volume in _of_object(file)]
    sizes: dict[tuple[object, ...], list[_Pictures]] = {}
    for file in files:
        sizes.setdefault((file.words.shape[1:], _spacing(file.headers[0])), []).append(file)
    return [_volume(group) for group in sizes.values()]


def _of_object(file: _Pictures) -> list[Volume]:
    """The volumes of a multi-frame object: several where nuclear medicine has several detectors and such."""
    whole = file.whole
    if whole is None or text_of(whole, "Modality") != "NM":
        return [_volume([file])]
    volumes = []
    for found in frames_together(whole, len(file.images), named(whole)):
        images = [file.images[k] for k in found.indices]
        volume = _volume([file._replace(images=images, words=file.words[found.indices])])
        notes = (*volume.notes, *filter(None, (found.note,)))
        volumes.append(replace(volume, label=found.label, neighbours=found.neighbours, notes=notes))
    return volumes


def _pictures(ds: Dataset, path: Path, kind: Kind) -> _Pictures:
    whose = named(ds)
    photometric = text_of(ds, "PhotometricInterpretation")
    colour = photometric in _COLOURS
    if colour and kind.modality != "US":
        raise SeriesRefused(f"{whose}: colour is read for ultrasound only.")
    count = frame_count(ds, whose)
    if count > 1 and not kind.frames:
        raise SeriesRefused(f"{whose}: NumberOfFrames is {count}; its SOP class has one.")
    if colour:
        _require_colour(ds, whose, photometric)
    else:
        require_pixel_module(ds, whose, frames=True, inverted=True)
        require_modality_units(ds, whose)
    words = words_of_frames(ds, path, count, kind)
    if photometric == "PALETTE COLOR":
        with refusing(f"{whose}: its palette cannot be applied."):
            words = np.stack([apply_color_lut(plane, ds) for plane in words])
        words = (words >> 8 if words.dtype.itemsize == 2 else words).astype(np.uint8)
    own = _as_rgb(ds) if colour else ds
    flat = [_numbered(own, number) for number in range(1, count + 1)] if kind.frames else [own]
    images = [_image(header, path, words.shape, k) for k, header in enumerate(flat, start=1)]
    return _Pictures(flat, path, images, words, own if kind.frames else None)


def _require_colour(ds: Dataset, whose: str, photometric: str) -> None:
    samples = 1 if photometric == "PALETTE COLOR" else 3
    bits = [number_of(ds, word, whose) for word in ("SamplesPerPixel", "BitsAllocated", "BitsStored")]
    if bits != [samples, 8, 8] and not (samples == 1 and bits[:2] == [1, 16]):
        raise SeriesRefused(
            f"{whose}: {shown(photometric)} of {bits[0]} samples in {bits[1]} bits is not read; 8 bits are."
        )


def _as_rgb(ds: Dataset) -> Dataset:
    """The header as it is once the pixels are RGB; the object itself where they are so already."""
    rgb = top_level(ds)
    for element in list(rgb):
        if element.keyword.startswith(_PALETTE) or element.keyword.startswith("SegmentedBlue"):
            del rgb[element.tag]
    rgb.PhotometricInterpretation, rgb.SamplesPerPixel, rgb.PlanarConfiguration = "RGB", 3, 0
    rgb.BitsAllocated, rgb.BitsStored, rgb.HighBit, rgb.PixelRepresentation = 8, 8, 7, 0
    return rgb


def _numbered(ds: Dataset, number: int) -> Dataset:
    header = copy.copy(ds)
    header.InstanceNumber = number
    header.file_meta = ds.file_meta
    return header


def _image(header: Dataset, path: Path, shape: tuple[int, ...], number: int) -> Image:
    return Image(
        header=header,
        path=path,
        uid=named(header).removeprefix("Image "),
        rows=shape[1],
        columns=shape[2],
        orientation=np.array([1.0, 0, 0, 0, 1, 0]),
        position=np.zeros(3),
        spacing=(1.0, 1.0),
        thickness=None,
        frame=number,
    )


def _volume(files: Sequence[_Pictures]) -> Volume:
    words = np.concatenate([file.words for file in files])
    images = [image for file in files for image in file.images]
    colour = words.astype(np.uint8) if words.ndim == 4 else None
    if colour is not None:
        voxels = np.asarray(colour @ LUMA, np.float32)
        stored, padding = np.rint(voxels).astype(np.int32), np.zeros(voxels.shape, np.bool_)
    else:
        planes = [values_of(image, plane) for image, plane in zip(images, words, strict=True)]
        stored, padding = np.stack([p.stored for p in planes]), np.stack([p.padding for p in planes])
        voxels = np.stack([p.modality for p in planes])
    count = len(images)
    lossy = sum(is_lossy(image) for image in images)
    notes = [f"lossy compression changed the pixels before they came here (in {lossy} of {count} images)"]
    index = np.arange(count)
    header = files[0].headers[0]
    spacing = _spacing(header)
    return Volume(
        voxels=voxels,
        padding=padding,
        stored=stored,
        headers=tuple(image.header for image in images),
        paths=tuple(image.path for image in images),
        spacing=(float("nan"), *spacing),
        positions=index.astype(np.float64),
        neighbours=np.stack([index, index, index], axis=1),
        notes=tuple(notes if lossy else ()),
        modality=text_of(header, "Modality"),
        frames=np.array([image.frame for image in images]) if files[0].whole is not None else None,
        whole=files[0].whole,
        flat=True,
        colour=colour,
    )


def _spacing(ds: Dataset) -> tuple[float, float]:
    """Mm between rows and columns, as near to the patient as the header has it; NaN where it has none."""
    whose = named(ds)
    regions = ds.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1:
        units = [regions[0].get(f"PhysicalUnits{axis}Direction") for axis in "XY"]
        deltas = [number_of(regions[0], f"PhysicalDelta{axis}", whose) for axis in "XY"]
        if units == [_CENTIMETRES] * 2 and all(deltas):
            return abs(float(deltas[1] or 0)) * 10, abs(float(deltas[0] or 0)) * 10
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = numbers_of(ds, keyword, 2, whose)
        if spacing and min(spacing) > 0:
            return spacing[0], spacing[1]
    return float("nan"), float("nan")

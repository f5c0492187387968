"""A multi-frame object → one header a frame, as a classic image would have it, and its decoded frames.

What the shared and per-frame functional groups hold (PS3.3 C.7.6.16) is laid over the top level, so
that everything behind reads one kind of header. The object itself stays as it is: what is written
back is a copy of it, frame by frame in its own order.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from node.errors import SeriesRefused
from workers.read.codestream import frame_size
from workers.read.decode import (
    CODECS,
    NATIVE,
    decoded_frames,
    needs_gdcm_itself,
    require_agreement,
    twelve_bit_jpeg,
)
from workers.read.header import number_of, refusing, syntax_of, text_of
from workers.read.image import Image, image_of, named, whole_number
from workers.read.kinds import Kind

MOST_PIXELS = 1 << 30  # of all frames together
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Sequences of functional groups whose items refer elsewhere, or are taken whole.
_NOT_FLATTENED = frozenset(
    {"ReferencedImageSequence", "DerivationImageSequence", "RealWorldValueMappingSequence"}
)


def frames_of(ds: Dataset, path: Path, kind: Kind) -> list[Image]:
    """The frames of an enhanced object as images, each with its words.

    Raises SeriesRefused where groups and frames do not agree, or a frame has no place.
    """
    whose = named(ds)
    count = frame_count(ds, whose)
    if text_of(ds, "ConcatenationUID"):
        raise SeriesRefused(f"{whose} is a part of a concatenation; those are not joined.")
    with refusing(f"{whose}: its functional groups cannot be read."):
        shared = (ds.get(_GROUPS[0]) or [Dataset()])[0]
        groups = list(ds.get(_GROUPS[1]) or [])
    if len(groups) != count:
        raise SeriesRefused(
            f"{whose}: NumberOfFrames is {count}, functional groups are there for {len(groups)}."
        )
    top = top_level(ds)
    headers = [flattened(top, shared, group, number) for number, group in enumerate(groups, start=1)]
    images = [image_of(header, path, frame=number) for number, header in enumerate(headers, start=1)]
    words = words_of_frames(ds, path, count, kind)
    return [replace(image, words=plane) for image, plane in zip(images, words, strict=True)]


def frame_count(ds: Dataset, whose: str) -> int:
    """NumberOfFrames, 1 where it is absent. Raises SeriesRefused where it is none."""
    number = number_of(ds, "NumberOfFrames", whose)
    if number is not None and (number < 1 or number != int(number)):
        raise SeriesRefused(f"{whose}: NumberOfFrames is {number:g}.")
    return int(number or 1)


def top_level(ds: Dataset) -> Dataset:
    """A copy of an object without its functional groups and pixels, with its file meta information."""
    top = Dataset()
    for element in ds:
        if element.keyword not in (*_GROUPS, "PixelData"):
            top[element.tag] = element
    top.file_meta = ds.file_meta
    top.set_original_encoding(*ds.original_encoding)
    return top


def flattened(top: Dataset, shared: Dataset, group: Dataset, number: int) -> Dataset:
    """The header of one frame: top level, shared groups and its own groups, the nearest last."""
    flat = Dataset()
    flat.update({element.tag: element for element in top})
    flat.file_meta = top.file_meta
    flat.set_original_encoding(*top.original_encoding)
    for item in (shared, group):
        for element in _leaves(item):
            flat[element.tag] = element
    flat.InstanceNumber = number
    return flat


def _leaves(item: Dataset) -> Iterator[pydicom.DataElement]:
    for element in item:
        if element.VR != "SQ" or element.tag.is_private or element.keyword in _NOT_FLATTENED:
            continue
        for inner in element.value[:1]:
            for leaf in inner:
                yield leaf
                if leaf.VR == "SQ" and leaf.value and leaf.keyword == "DiffusionGradientDirectionSequence":
                    yield from leaf.value[0]


def words_of_frames(ds: Dataset, path: Path, count: int, kind: Kind) -> NDArray[np.integer]:
    """All frames' words (F, Y, X), by the named codec. Raises SeriesRefused as `decode` does."""
    whose, syntax = named(ds), syntax_of(ds)
    if syntax not in NATIVE | CODECS.keys():
        raise SeriesRefused(f"{whose}: transfer syntax {syntax.name} is not decoded.")
    rows, columns = whole_number(ds, "Rows", whose), whole_number(ds, "Columns", whose)
    if min(rows, columns) < 1:
        raise SeriesRefused(f"{whose}: Rows×Columns is {rows}×{columns}, there is no pixel in it.")
    if count * rows * columns > MOST_PIXELS:
        raise SeriesRefused(f"{whose}: {count} frames of {rows}×{columns} are more than are read at once.")
    with refusing(f"{whose}: the file cannot be read to its end."):
        full = pydicom.dcmread(path)
        value = full.get("PixelData")
    if not value:
        raise SeriesRefused(f"{whose}: PixelData is missing.")
    _require_whole(full, value, count, kind, whose)
    with refusing(f"{whose}: PixelData cannot be decoded as {syntax.name}."):
        if count == 1 and needs_gdcm_itself(syntax, full):
            words = twelve_bit_jpeg(path, rows, columns)[None]
        else:
            words = decoded_frames(full, syntax, as_shown=kind.flat)
    if words.shape[:3] != (count, rows, columns):
        raise SeriesRefused(
            f"{whose}: PixelData decodes to {words.shape}, {count} frames of {rows}×{columns} are said."
        )
    return words


def _require_whole(ds: Dataset, value: bytes, count: int, kind: Kind, whose: str) -> None:
    """Refuse pixel data of another length, number or size of frames than the header says."""
    syntax, rows, columns = syntax_of(ds), int(ds.Rows), int(ds.Columns)
    if syntax in NATIVE:
        samples = int(number_of(ds, "SamplesPerPixel", whose) or 1)
        subsampled = text_of(ds, "PhotometricInterpretation") == "YBR_FULL_422"
        expected = count * rows * columns * samples * (int(ds.BitsAllocated) // 8)
        expected = expected * 2 // 3 if subsampled else expected
        if len(value) < expected:
            raise SeriesRefused(
                f"{whose}: PixelData is truncated, {len(value)} of {expected} bytes are there."
            )
        if any(value[expected:]):
            raise SeriesRefused(f"{whose}: PixelData is longer than its {count} frames need.")
    else:
        with refusing(f"{whose}: PixelData is no readable {syntax.name} codestream."):
            frames = list(generate_frames(value, number_of_frames=count))
            sizes = [frame_size(frame, syntax) for frame in frames]
        if len(frames) != count:
            raise SeriesRefused(f"{whose}: PixelData holds {len(frames)} frames, NumberOfFrames is {count}.")
        for size in sizes:
            if size is not None:
                require_agreement(whose, rows, columns, ds, size, kind.flat)

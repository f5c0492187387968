"""Read the Part-10 files of one series into a `Volume`.

In two passes: the headers decide whether there is one regular stack, before memory is taken; then
the pixels are decoded into it, slice by slice.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.errors import SeriesRefused
from workers.read.decode import decode, is_lossy
from workers.read.duplicates import require_one_per_place
from workers.read.flat import flat_volumes
from workers.read.frames import frames_of
from workers.read.header import text_of, without_quotes
from workers.read.image import Image
from workers.read.kinds import KINDS
from workers.read.selection import images_of, opened, require_one_geometry
from workers.read.split import acquisitions, split
from workers.read.stack import (
    gaps_of,
    missing_sentence,
    most_common,
    neighbours_of,
    normal_of,
    shifts_of,
    spacing_notes,
)
from workers.read.values import values_of
from workers.read.volume import Volume

MAX_VOXELS = 1 << 30  # 4096 slices of 512 × 512; 9 bytes a voxel are allocated


def read_series(
    paths: Sequence[Path],
    *,
    missing: Literal["refuse", "note"] = "refuse",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    """Read the instances of one series, in any order, into a volume.

    `missing` says what happens where slices are missing inside the stack: a series for a patient is
    refused, training data thinned on purpose may be noted. `threads` decode at once, by default one
    a core. `progress` is told (slices decoded, slices in all) in this thread.

    Raises SeriesRefused with one sentence that names what is wrong, and OSError where a file cannot
    be opened. What is left out (localizers) or noticed is in the volume's notes.
    """
    volumes = _read(paths, missing, threads, progress, parted=False)
    if len(volumes) > 1:
        raise SeriesRefused(f"The series holds {len(volumes)} objects or sizes that are no one stack.")
    return volumes[0]


def read_volumes(
    paths: Sequence[Path],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Volume]:
    """As `read_series`, but a series of several stacks (time, echo, b-value, phase) gives one volume each.

    Each has a `label` that says what tells it from the others.
    """
    return _read(paths, "refuse", threads, progress, parted=True)


def _read(
    paths: Sequence[Path],
    missing: str,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
    *,
    parted: bool,
) -> list[Volume]:
    with without_quotes():
        headers = opened(paths)
        groups: list[tuple[str, list[Image], Dataset | None]] = []
        whole, notes = None, list[str]()
        kind = KINDS[UID(text_of(headers[0][0], "SOPClassUID"))]
        if kind.flat:
            return flat_volumes(headers, kind)
        if kind.enhanced:
            found = [(ds, frames_of(ds, path, kind)) for ds, path in headers]
            for _, images in found:
                require_one_geometry(images)
            groups = [
                (label, group, ds)
                for ds, images in found
                for label, group in (split(images) if parted else [("", images)])
            ]
        else:
            images, notes = images_of(headers)
            stacks = split(images) if parted else [("", images)]
            if parted and len(stacks) == 1:
                stacks = acquisitions(images) or stacks
            groups = [(label, group, whole) for label, group in stacks]
        stacked = [(label, _stacked(group, missing), ds) for label, group, ds in groups]
        _require_room([stack for _, stack, _ in stacked])
        cores = threads or len(os.sched_getaffinity(0))
        return [_decoded(stack, notes, cores, progress, label, ds) for label, stack, ds in stacked]


def _require_room(stacks: Sequence["_Stack"]) -> None:
    images = [image for stack in stacks for image in stack.images]
    voxels = len(images) * images[0].rows * images[0].columns
    if voxels > MAX_VOXELS:
        raise SeriesRefused(
            f"The series has {len(images)} slices of {images[0].rows}×{images[0].columns}, "
            f"{voxels} voxels; at most {MAX_VOXELS} are read at once."
        )


class _Stack(NamedTuple):
    images: list[Image]  # sorted
    positions: NDArray[np.float64]
    neighbours: NDArray[np.int64]
    spacing: tuple[float, float, float]
    notes: list[str]


def _stacked(unsorted: Sequence[Image], missing: str) -> _Stack:
    normal = normal_of(unsorted)
    images = sorted(unsorted, key=lambda image: float(normal @ image.position))
    positions = np.array([normal @ image.position for image in images])
    require_one_per_place(images, positions, normal)
    gaps = gaps_of(positions, [image.thickness for image in images])
    sentence = missing_sentence(images, gaps, normal)
    if sentence and missing == "refuse":
        raise SeriesRefused(sentence)
    shifts = shifts_of(images, normal)
    neighbours = neighbours_of(images, gaps, shifts)
    notes = [sentence.rstrip(".")] if sentence else []
    notes += spacing_notes(gaps, shifts, neighbours)
    step = most_common(gaps.width) if len(images) > 1 else images[0].thickness or float("nan")
    return _Stack(images, positions, neighbours, (step, *images[0].spacing), notes)


def _decoded(
    stack: _Stack,
    notes: list[str],
    threads: int,
    progress: Callable[[int, int], None] | None,
    label: str,
    whole: Dataset | None,
) -> Volume:
    images = stack.images
    shape = (len(images), images[0].rows, images[0].columns)
    voxels, padding = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    stored = np.empty(shape, np.int32)

    def fill(k: int) -> tuple[str, ...]:
        words, decoding = decode(images[k])
        lossy = is_lossy(images[k])
        stored[k], padding[k], voxels[k], field = values_of(images[k], words, lossy=lossy)
        history = "lossy compression changed the pixels before they came here" if lossy else ""
        return tuple(filter(None, (decoding, field, history)))

    seen: Counter[str] = Counter()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending = [pool.submit(fill, k) for k in range(len(images))]
        try:
            for done, slice_notes in enumerate(pending, start=1):
                seen.update(slice_notes.result())
                if progress:
                    progress(done, len(images))
        finally:
            pool.shutdown(cancel_futures=True)
    found = [f"{text} (in {count} of {len(images)} images)" for text, count in sorted(seen.items())]
    return Volume(
        voxels=voxels,
        padding=padding,
        stored=stored,
        headers=tuple(image.header for image in images),
        paths=tuple(image.path for image in images),
        spacing=stack.spacing,
        positions=stack.positions,
        neighbours=stack.neighbours,
        notes=(*notes, *stack.notes, *found),
        modality=text_of(images[0].header, "Modality"),
        frames=np.array([image.frame for image in images]) if whole is not None else None,
        whole=whole,
        label=label,
    )

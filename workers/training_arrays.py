"""Training data in npz: "image" (N, Y, X), whose each slice is, and how large its pixels are."""

import zipfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cases import Case
from workers.training_checks import DataRefused, require_finite, require_size, table_rows
from workers.training_persons import hashed

_KNOWN = ("image", "person", "spacing", "modality")
_DAMAGED = (OSError, ValueError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


def npz_cases(path: Path, modality: str, pixel_mm: float | None) -> list[Case]:
    """One case a person. Raises DataRefused with the file and the array that is not as it must be."""
    arrays = _arrays(path)
    images = arrays.get("image")
    if images is None or images.ndim != 3 or not images.size:
        raise DataRefused(f'{path} has no array "image" of (N, Y, X)')
    if images.dtype.kind not in "buif":
        raise DataRefused(f'{path}: "image" is of type {images.dtype}, not of real numbers')
    said = arrays.get("modality")
    if said is not None and (said.size != 1 or str(said.item()) != modality):
        raise DataRefused(f"{path} holds {said}, not {modality}")
    spacing = _spacing(arrays, path, pixel_mm)
    people = _people(arrays, path, len(images))
    slices: defaultdict[str, list[int]] = defaultdict(list)
    for index, person in enumerate(people):
        slices[str(person)].append(index)
    cases = []
    for person, chosen in slices.items():
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            volume = images[chosen].astype(np.float32)
        require_finite(volume, path, 'slice of "image"', chosen)
        padding = np.zeros(volume.shape, np.bool_)
        cases.append(Case(hashed(person), path.name, modality, volume, padding, spacing))
    return cases


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    found = {}
    with path.open("rb") as stream:
        try:
            archive: Any = np.load(stream, allow_pickle=False)
        except _DAMAGED as error:
            raise DataRefused(f"{path} is not an archive of plain arrays: {error}") from error
        if isinstance(archive, np.ndarray):
            raise DataRefused(f"{path} is one array (.npy), not an archive (.npz) with an array named image")
        for name in (name for name in _KNOWN if name in archive.files):
            try:
                found[name] = np.asarray(archive[name])
            except _DAMAGED as error:
                raise DataRefused(f'{path}: "{name}" is damaged or no plain array: {error}') from error
    return found


def _spacing(arrays: dict[str, NDArray[Any]], path: Path, pixel_mm: float | None) -> tuple[float, float]:
    said = arrays.get("spacing")
    if said is None:
        if pixel_mm is None:
            raise DataRefused(f'{path} has no "spacing": give the pixel size with --pixel-mm')
        return pixel_mm, pixel_mm
    if said.shape != (2,) or said.dtype.kind not in "uif":
        raise DataRefused(f'{path}: "spacing" is {said.tolist()!r}; it must be two numbers (y, x) in mm')
    return require_size((float(said[0]), float(said[1])), f'{path}: "spacing"')


def _people(arrays: dict[str, NDArray[Any]], path: Path, count: int) -> NDArray[np.str_]:
    said = arrays.get("person")
    if said is None:
        return _people_of_table(path, count)
    if said.ndim != 1 or said.dtype.kind not in "USuif":
        raise DataRefused(f'{path}: "person" is {said.dtype} {said.shape}; it must be (N,), text or numbers')
    if len(said) != count:
        raise DataRefused(f'{path}: "image" has {count} slices, and "person" has {len(said)} persons')
    try:
        return said.astype(str)
    except UnicodeDecodeError as error:
        raise DataRefused(f'{path}: "person" holds bytes that are no text: {error}') from error


def _people_of_table(path: Path, count: int) -> NDArray[np.str_]:
    table = path.with_name("meta.csv")
    if not table.is_file():
        raise DataRefused(f'{path} has no "person" and no meta.csv beside it: whose is which slice?')
    rows = [row for row in table_rows(table) if row.get("split") == path.stem]
    try:
        people = {int(row["index"]): row["subject"] for row in rows}
    except (KeyError, ValueError) as error:
        raise DataRefused(
            f"{table} has no index and subject for each slice of {path.name}: {error}"
        ) from error
    if unnamed := [index for index in range(count) if not people.get(index)]:
        raise DataRefused(f"{table} does not name the person of slice {unnamed[0]} of {path.name}")
    if len(rows) != count:
        raise DataRefused(f'{table} names {len(rows)} slices of {path.name}, and "image" has {count}')
    return np.array([people[index] for index in range(count)])

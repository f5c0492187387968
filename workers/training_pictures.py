"""Pictures as training data: JPEG and PNG, in folders or in zip archives, as cases of one film.

A meta.csv beside the archive, or in the folder, with the columns split, file, patient, label says whose
each picture is ("split" is the archive's name) and whether it is "normal". Without it each picture is a
person of its own, of whom nothing is known. Such pictures carry no size in mm.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.cases import Case
from workers.training_checks import DataRefused, require_finite, table_rows

PICTURES = frozenset({".jpg", ".jpeg", ".png"})
NORMAL = "normal"
_LARGEST = 100 * 2**20  # bytes of one picture in an archive
_MOST_PIXELS = 64 * 2**20
_NO_PICTURE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    struct.error,
)


Table = dict[str, tuple[str, str]]  # file → patient, label


def is_picture(path: Path) -> bool:
    """Whether this module reads the file: a picture, or an archive of some."""
    return path.suffix.lower() in PICTURES | {".zip"}


def picture_cases(path: Path, modality: str, pixel_mm: float | None) -> Iterator[Case]:
    """A case for each picture of a file. Raises DataRefused where one is damaged or of no known person."""
    spacing = (pixel_mm, pixel_mm) if pixel_mm else (1.0, 1.0)
    archive = path.suffix.lower() == ".zip"
    table = _table(path.with_name("meta.csv"), path.stem if archive else None)
    for name, data in _members(path) if archive else [(path.name, path.read_bytes())]:
        image = _grey(data, f"{path.name}/{name}" if archive else path.name)
        patient, label = table.get(name, (name, "")) if table else (name, "")
        if table and name not in table:
            raise DataRefused(f"meta.csv does not name the person of {name} in {path.name}")
        yield Case(
            patient,
            path.name,
            modality,
            image[None],
            np.zeros((1, *image.shape), np.bool_),
            spacing,
            abnormal=None if not label else label != NORMAL,
        )


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.infolist(), key=lambda one: one.filename):
                name = PurePosixPath(member.filename)
                if member.is_dir() or name.suffix.lower() not in PICTURES:
                    continue
                if member.file_size > _LARGEST:
                    raise DataRefused(f"{path.name}: {name.name} is larger than {_LARGEST >> 20} MiB")
                yield str(name), archive.read(member)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        RuntimeError,
    ) as error:  # RuntimeError: a password
        raise DataRefused(f"{path} cannot be read as a zip archive: {error}") from error


def _grey(data: bytes, name: str) -> NDArray[np.float32]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise DataRefused(f"{name} has {picture.width} × {picture.height} pixels")
            grey = picture if picture.mode in ("L", "I;16", "I", "F") else picture.convert("L")
            pixels = np.asarray(grey, np.float32)
    except _NO_PICTURE as error:
        raise DataRefused(f"{name} cannot be read as a picture: {error}") from error
    require_finite(pixels[None], name)
    return pixels


def _table(path: Path, split: str | None) -> Table:
    if not path.is_file():
        return {}
    rows = [row for row in table_rows(path) if split is None or row.get("split") == split]
    named = [row for row in rows if row.get("file")]
    if any(not row.get("patient") for row in named):
        raise DataRefused(f"{path} has no patient for each file")
    return {row["file"]: (row["patient"], row.get("label", "")) for row in named}

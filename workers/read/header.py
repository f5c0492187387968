"""Open a Part-10 file without its pixels, and read attributes that may hold anything at all."""

import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from node.errors import SeriesRefused

# What pydicom and the codecs raise over bytes that they cannot make sense of.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

MAX_INFLATED = 1 << 29  # bytes of a deflated data set; a few kilobytes can inflate to gigabytes
_CHUNK = 1 << 20
_UID = re.compile(r"[0-9.]{1,64}")


@contextmanager
def refusing(sentence: str) -> Iterator[None]:
    """Turn what bad bytes raise inside into SeriesRefused(sentence).

    An OSError of the system passes: a file that cannot be opened says nothing about the series, and
    another attempt may help. pydicom raises OSError too, without a number, at the end of the bytes.
    """
    try:
        yield
    except UNREADABLE as error:
        raise SeriesRefused(sentence) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise SeriesRefused(sentence) from error


@contextmanager
def without_quotes() -> Iterator[None]:
    """Silence pydicom, which quotes each odd value in a warning and its log: it may be a patient's."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        log.setLevel(level)


def read_header(path: Path) -> Dataset:
    """The data set of a Part-10 file up to its pixel data, with file_meta.

    Raises SeriesRefused where the file is no DICOM, OSError where it cannot be opened.
    """
    with refusing(f"File {shown(path.name)} is not readable as a DICOM Part-10 file."):
        if _syntax(path) == DeflatedExplicitVRLittleEndian:
            _require_inflatable(path)
        return pydicom.dcmread(path, stop_before_pixels=True)


def _syntax(path: Path) -> str:
    return str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))


def _require_inflatable(path: Path) -> None:
    with path.open("rb") as file:
        read_preamble(file, force=False)
        read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated, pending = 0, b""
        while inflated <= MAX_INFLATED and not inflater.eof and (pending or (pending := file.read(_CHUNK))):
            inflated += len(inflater.decompress(pending, _CHUNK))
            pending = inflater.unconsumed_tail
    if inflated > MAX_INFLATED:
        raise SeriesRefused(
            f"File {shown(path.name)} inflates to more than {MAX_INFLATED >> 20} MiB, no single image."
        )


def require_sequences(ds: Dataset, whose: str) -> None:
    """Refuse a header with a sequence whose items cannot be read; private ones are never looked into."""
    for tag in list(ds.keys()):
        vr = ds.get_item(tag).VR
        unknown = vr in (None, "UN") and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
        if tag.is_private or not (vr == "SQ" or unknown):
            continue
        with refusing(f"{whose}: {keyword_for_tag(tag) or tag} cannot be read."):
            for item in ds[tag].value:
                for _ in item.iterall():
                    pass


def shown(text: str) -> str:
    """Remote or local text, fit for a sentence: printable ASCII without quotes, at most 64 characters."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "?" for c in text[:64])


def uid_of(ds: Dataset, keyword: str) -> str | None:
    """The UID under `keyword`; None where it is absent, empty or no UID."""
    value = text_of(ds, keyword)
    return value if _UID.fullmatch(value) else None


def syntax_of(ds: Dataset) -> UID:
    """The transfer syntax of the file; an empty UID where the meta information has none."""
    return UID(uid_of(ds.file_meta, "TransferSyntaxUID") or "")


def text_of(ds: Dataset, keyword: str) -> str:
    """The value under `keyword` as text; empty where it is absent or cannot be read."""
    try:
        value = ds.get(keyword)
    except UNREADABLE:
        return ""
    return "" if value is None else str(value).strip(" \0")


def words_of(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued text attribute; empty where it is absent or cannot be read."""
    try:
        value = ds.get(keyword)
    except UNREADABLE:
        return ()
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value)


def numbers_of(ds: Dataset, keyword: str, count: int, whose: str) -> tuple[float, ...] | None:
    """The `count` finite numbers under `keyword`; None where it is absent or empty.

    Raises SeriesRefused, naming `whose` and the attribute, where there are more, fewer, or they are
    not finite numbers.
    """
    with refusing(f"{whose}: {keyword} cannot be read as a number."):
        value = ds.get(keyword)
        if value is None or value in ("", b"") or (not isinstance(value, (int, float)) and len(value) == 0):
            return None
        listed = [value] if isinstance(value, (str, int, float)) else list(value)
        numbers = tuple(float(item) for item in listed)
    if len(numbers) != count:
        raise SeriesRefused(f"{whose}: {keyword} has {len(numbers)} values, it must have {count}.")
    if not all(math.isfinite(number) for number in numbers):
        raise SeriesRefused(f"{whose}: {keyword} is not a finite number.")
    return numbers


def number_of(ds: Dataset, keyword: str, whose: str) -> float | None:
    """The one finite number under `keyword`; None where it is absent or empty. Raises as `numbers_of`."""
    numbers = numbers_of(ds, keyword, 1, whose)
    return None if numbers is None else numbers[0]


def mm(value: float) -> str:
    """A length in a sentence: at most three decimals, at least one."""
    whole, decimals = f"{value:.3f}".split(".")
    return f"{whole}.{decimals.rstrip('0') or '0'} mm".replace("-0.0 mm", "0.0 mm")

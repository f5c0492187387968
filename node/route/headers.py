"""Reads from the spool what the rules need to know of a frozen series."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from node.entities import Instance
from node.errors import SeriesRefused
from node.route.rules import UNDECODABLE, unjudged

# What a file that is no sound Part-10 file makes pydicom raise.
_UNREADABLE = (InvalidDicomError, EOFError, zlib.error, RecursionError, *UNDECODABLE)


def read_headers(data: Path, instances: Sequence[Instance], keywords: Iterable[str]) -> list[Dataset]:
    """The named attributes of each instance, in its order.

    Raises SeriesRefused, naming the instance, where a file is gone or cannot be read as DICOM, and
    OSError where the storage fails, which may pass.
    """
    wanted = sorted({"SOPInstanceUID", *keywords})
    return [_read(data / instance.path, instance.sop_instance_uid, wanted) for instance in instances]


def _read(path: Path, sop_instance_uid: str, keywords: Sequence[str]) -> Dataset:
    with unjudged():
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            found = str(ds.get("SOPInstanceUID", ""))
        except FileNotFoundError:
            raise SeriesRefused(f"instance {sop_instance_uid} is no longer in the spool") from None
        except _UNREADABLE as error:
            kind = type(error).__name__
            raise SeriesRefused(f"instance {sop_instance_uid} cannot be read as DICOM ({kind})") from None
    if found != sop_instance_uid:
        raise SeriesRefused(f"the file of instance {sop_instance_uid} does not hold it")
    return ds

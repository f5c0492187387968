"""A result as a Part-10 file that appears whole or not at all."""

import os
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from node.entities import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.job import ProducedArtifact, Role


def write_part10(ds: Dataset, target: Path) -> None:
    """Write `ds` to `target` as Explicit VR Little Endian: temporary file, fsync, rename."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        dcmwrite(stream, ds, enforce_file_format=True)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(target)


def save(ds: Dataset, folder: Path, path: Path, role: Role) -> ProducedArtifact:
    """Write `ds` to `folder`/`path` and say what it is."""
    write_part10(ds, folder / path)
    return ProducedArtifact(
        path=path.as_posix(),
        role=role,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
    )

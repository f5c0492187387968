"""Rejection notes (IHE IOCM): a Key Object Selection that tells an archive to retire older results.

A note is made when every result that supersedes them is with its peers, so that an archive never has
none. Its UIDs are those of the job that supersedes; a second one would be the same.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from node.config_file import SettingsFile
from node.entities import CONTRIBUTING_MANUFACTURER, IMPLEMENTATION_CLASS_UID, Artifact
from node.entities import IMPLEMENTATION_VERSION_NAME as VERSION_NAME
from node.index import Index, Retirement

ROLE = "rejection"
SERIES_NUMBER = 9991
_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)


class Rejections:
    """Makes the notes that are due, as deliveries like any other."""

    def __init__(self, file: SettingsFile, index: Index, clock: Callable[[], datetime]) -> None:
        self._file = file
        self._index = index
        self._clock = clock

    def step(self) -> int:
        """Make every note whose superseding results are all with their peers; how many."""
        due = self._index.due_retirements()
        for retirement in due:
            artifact = None
            if retirement.retired:
                artifact = self._write(retirement)
            self._index.record_retirement(retirement, artifact, self._clock())
        return len(due)

    def _write(self, retirement: Retirement) -> Artifact:
        data = self._file.settings.node.data
        job_id = retirement.job.id
        like = pydicom.dcmread(data / retirement.produced[0].path, stop_before_pixels=True)
        note = rejection_note(like, retirement.retired, job_id, self._clock())
        path = retirement.produced[0].path.parents[-3] / f"{ROLE}.dcm"  # results/<job>/rejection.dcm
        part = (data / path).with_suffix(".part")
        with part.open("wb") as file:
            note.save_as(file, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        part.rename(data / path)
        _sync(part.parent)
        return Artifact(
            sop_instance_uid=str(note.SOPInstanceUID),
            sop_class_uid=str(note.SOPClassUID),
            series_instance_uid=str(note.SeriesInstanceUID),
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            role=ROLE,
            path=path,
            job_id=job_id,
        )


def rejection_note(like: Dataset, retired: Sequence[Artifact], key: str, now: datetime) -> FileDataset:
    """A KOS titled "Rejected for Quality Reasons" over `retired` (PS3.3 A.35.4, PS3.16 TID 2010).

    Patient and study are those of `like`. The same `key` gives the same UIDs.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = like.get("SpecificCharacterSet", "ISO_IR 192")
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.SOPInstanceUID = _uid(key, "rejection note")
    for keyword in (*_PATIENT, *_STUDY, "AccessionNumber"):
        if keyword in like:
            ds[keyword] = like[keyword]
        elif keyword != "IssuerOfPatientID":
            setattr(ds, keyword, "")
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "KO", SERIES_NUMBER, 1
    ds.SeriesInstanceUID = _uid(key, "rejection series")
    ds.SeriesDescription = "AI result superseded"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.Manufacturer = CONTRIBUTING_MANUFACTURER
    ds.ContentDate, ds.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    equipment = Dataset()
    equipment.Manufacturer = CONTRIBUTING_MANUFACTURER
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    ds.ContributingEquipmentSequence = [equipment]
    evidence = Dataset()
    evidence.StudyInstanceUID = ds.StudyInstanceUID
    evidence.ReferencedSeriesSequence = _by_series(retired)
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]
    _put_content(ds, retired)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(IMPLEMENTATION_CLASS_UID), VERSION_NAME
    return FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128)


def _put_content(ds: Dataset, retired: Sequence[Artifact]) -> None:
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [_code("113001", "Rejected for Quality Reasons")]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ContentTemplateSequence = [template]
    reason = Dataset()
    reason.RelationshipType, reason.ValueType = "CONTAINS", "TEXT"
    reason.ConceptNameCodeSequence = [_code("113012", "Key Object Description")]
    reason.TextValue = "Superseded: late images arrived, and the series was processed again with them."
    ds.ContentSequence = [reason, *(_image(artifact) for artifact in retired)]


def _image(artifact: Artifact) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
    item.ReferencedSOPSequence = [_reference(artifact)]
    return item


def _by_series(retired: Sequence[Artifact]) -> list[Dataset]:
    series = []
    ordered = sorted(retired, key=lambda a: (a.series_instance_uid, a.sop_instance_uid))
    for uid, artifacts in groupby(ordered, key=lambda a: a.series_instance_uid):
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedSOPSequence = [_reference(artifact) for artifact in artifacts]
        series.append(item)
    return series


def _reference(artifact: Artifact) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = artifact.sop_class_uid
    item.ReferencedSOPInstanceUID = artifact.sop_instance_uid
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _uid(*words: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256('|'.join(words).encode()).digest()[:16], 'big')}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

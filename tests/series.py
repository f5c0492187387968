"""Small series for tests, as data sets and as files. Made here, so no patient is in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(*words: object) -> str:
    """A UID that is the same for the same words."""
    return str(generate_uid(prefix="2.25.", entropy_srcs=[str(word) for word in words]))


def body(slices: int, size: int, *, seed: int = 0, noise: float = 20.0) -> NDArray[np.float32]:
    """A water ellipse in air with one dense insert, in HU, (Z, Y, X) float32."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    plane = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 40.0, -1000.0)
    plane = np.where((x - 0.3) ** 2 + y**2 < 0.02, 200.0, plane)
    draw = np.random.default_rng(seed).normal(0, noise, (slices, size, size))
    return np.asarray(plane + np.where(plane > -900, draw, draw / 4), np.float32)


def image(
    number: int,
    hu: NDArray[np.float32],
    *,
    series: object = "series",
    study: object = "study",
    modality: str = "CT",
    position: Sequence[float] | None = None,
    orientation: Sequence[float] = AXIAL,
    step: float = 2.0,
    spacing: tuple[float, float] = (0.8, 0.8),
    slope: float = 1.0,
    intercept: float = -1024.0,
) -> FileDataset:
    """Slice `number` (from 1) of a CT or MR series, uncompressed, with all of its mandatory attributes."""
    ds = Dataset()
    # SOP Common, Patient, General Study
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    ds.SOPInstanceUID = uid(study, series, number)
    ds.PatientName, ds.PatientID = "Test^Person", "TEST-1"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = uid(study), "1", "ACC-1"
    ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName = "20260102", "101500", ""
    # General Series, Frame of Reference, General Equipment
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = modality, uid(study, series), 3
    ds.SeriesDescription, ds.BodyPartExamined, ds.PatientPosition = "Thin axial", "CHEST", "HFS"
    ds.SeriesDate, ds.SeriesTime = "20260102", "101600"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid(study, "frame"), ""
    ds.Manufacturer, ds.ManufacturerModelName = "Maker", "Scanner"
    # General Image, Image Plane
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    ds.InstanceNumber, ds.AcquisitionNumber = number, 1
    ds.AcquisitionDate = ds.ContentDate = "20260102"
    ds.AcquisitionTime = ds.ContentTime = "101601"
    ds.ImageOrientationPatient = list(orientation)
    ds.ImagePositionPatient = list(position or (-100.0, -100.0, number * step))
    ds.PixelSpacing, ds.SliceThickness = list(spacing), step
    # Image Pixel, Modality LUT, VOI LUT
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.WindowCenter, ds.WindowWidth = 40, 400
    if modality == "CT":
        ds.RescaleType, ds.KVP, ds.ConvolutionKernel = "HU", 120, "STANDARD"
    else:
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
        ds.MRAcquisitionType, ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = "2D", 10, 500, 1
        ds.MagneticFieldStrength = 3
    stored = np.round((hu - intercept) / slope).clip(-32768, 32767).astype("<i2")
    ds.PixelData = stored.tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return FileDataset(None, ds, file_meta=meta, preamble=b"\0" * 128)


def series(slices: int = 6, size: int = 64, *, seed: int = 0, **settings: object) -> list[FileDataset]:
    """A regular series; `settings` go to `image`."""
    return [image(k + 1, plane, **settings) for k, plane in enumerate(body(slices, size, seed=seed))]  # type: ignore[arg-type]  # settings are image's own


def write(folder: Path, images: Sequence[FileDataset]) -> list[Path]:
    """Write the images as Part-10 files in the order given; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.dcm" for number in range(len(images))]
    for path, ds in zip(paths, images, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths

"""Images that a network drew, as DICOM that nobody can take for a patient's.

Each is a secondary capture of a made-up person, says SyntheticData YES (PS3.3 C.12.1), has the word in
its description and burnt into its pixels.
"""

import uuid
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from node.entities import CONTRIBUTING_MANUFACTURER
from workers.write.part10 import write_part10

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "synthetic.aenode")
_WORD = "SYNTHETIC"
_LEAST_SIDE = 128  # pixels: the word must be readable


def picture_of(plane: NDArray[np.float32], *, marked: bool = True) -> Image.Image:
    """A drawn slice (Y, X) of 0 … 1 as a grey picture with the word burnt in."""
    grey = np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    times = max(1, -(-_LEAST_SIDE // min(grey.shape)))
    picture = Image.fromarray(np.kron(grey, np.ones((times, times), np.uint8)))
    if marked:
        pen = ImageDraw.Draw(picture)
        left, top, right, bottom = pen.textbbox((2, 2), _WORD)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=0)
        pen.text((2, 2), _WORD, fill=255)
    return picture


def write_synthetic(
    images: NDArray[np.float32], folder: Path, *, model: str, weights_sha256: str, seed: int, now: datetime
) -> list[Path]:
    """Write drawn slices (N, Y, X) of 0 … 1 as one series dated `now`; returns the files in order.

    The same model, seed and time give the same UIDs.
    """
    words = f"{weights_sha256}|{seed}|{len(images)}|{now.isoformat()}"
    paths = []
    for number, plane in enumerate(images, start=1):
        pixels = np.asarray(picture_of(plane))
        ds = _header(words, number, model, weights_sha256, seed, now)
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = pixels.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        raw = pixels.tobytes()
        ds.PixelData = raw + b"\0" * (len(raw) % 2)
        ds["PixelData"].VR = "OB"
        path = folder / f"{number:04}.dcm"
        write_part10(ds, path)
        paths.append(path)
    return paths


def _uid(words: str, part: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, f'{words}|{part}').int}")


def _header(words: str, number: int, model: str, weights_sha256: str, seed: int, now: datetime) -> Dataset:
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds = Dataset()
    # SOP Common
    ds.SpecificCharacterSet, ds.TimezoneOffsetFromUTC = "ISO_IR 192", now.strftime("%z")
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, _uid(words, f"image {number}")
    ds.SyntheticData = "YES"
    # Patient, General Study, General Series
    ds.PatientName, ds.PatientID = "Synthetic^Image", f"{_WORD}-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = _uid(words, "study"), "1", ""
    ds.StudyDate, ds.StudyTime = date, time
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Synthetic images, drawn by a network"
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "OT", _uid(words, "series"), 1
    ds.SeriesDescription, ds.Laterality = f"{_WORD} {model}"[:64], ""
    # General Equipment, SC Equipment
    ds.Manufacturer = ds.SecondaryCaptureDeviceManufacturer = CONTRIBUTING_MANUFACTURER
    ds.ManufacturerModelName = model[:64]
    ds.SoftwareVersions = f"weights sha256 {weights_sha256[:16]}"
    ds.ConversionType = "SYN"
    # General Image, SC Image
    ds.InstanceNumber, ds.PatientOrientation, ds.ImageType = number, None, ["DERIVED", "SECONDARY"]
    ds.ContentDate = ds.DateOfSecondaryCapture = date
    ds.ContentTime = ds.TimeOfSecondaryCapture = time
    ds.DerivationDescription = f"{_WORD}: drawn by {model} from seed {seed}; it shows no patient."
    ds.BurnedInAnnotation = "YES"
    return ds

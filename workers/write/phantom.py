"""The physics phantom as a CT series on disk, for the demo and the tests: no patient is in it.

python -m workers.write.phantom FOLDER [--slices 24] [--seed 1]
"""

import argparse
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from models.phantom import ct_series
from workers.write.derived import put_pixels
from workers.write.part10 import write_part10

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "phantom.aenode")
_INTERCEPT = -1024
_BITS = 12


def write_phantom_series(
    folder: Path, *, slices: int = 24, size: int = 512, seed: int = 1, dose: float = 0.25, now: datetime
) -> list[Path]:
    """Write models.phantom.ct_series as a CT series of one study dated `now`; returns the files in order.

    `dose` is the share of a full dose. The same arguments give the same files, UIDs included.
    """
    phantom = ct_series(slices=slices, size=size, seed=seed, dose=dose)
    folder.mkdir(parents=True, exist_ok=True)
    words = f"{slices}|{size}|{seed}|{dose!r}|{now.isoformat()}"
    paths = []
    for number, plane in enumerate(phantom.noisy, start=1):
        ds = _header(words, number, phantom.spacing, plane.shape, seed, now)
        stored = np.rint(plane - _INTERCEPT).clip(0, (1 << _BITS) - 1)
        put_pixels(ds, stored.astype(np.int32))
        path = folder / f"{number:04}.dcm"
        write_part10(ds, path)
        paths.append(path)
    return paths


def _uid(words: str, part: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, f'{words}|{part}').int}")


def _header(
    words: str,
    number: int,
    spacing: tuple[float, float, float],
    shape: tuple[int, ...],
    seed: int,
    now: datetime,
) -> Dataset:
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    rows, columns = shape
    thickness, row_step, column_step = spacing
    ds = Dataset()
    # SOP Common
    ds.SpecificCharacterSet, ds.TimezoneOffsetFromUTC = "ISO_IR 192", now.strftime("%z")
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, _uid(words, f"image {number}")
    # Patient, General Study
    ds.PatientName, ds.PatientID = "Phantom^Physics", f"PHANTOM-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = _uid(words, "study"), "1", f"PHANTOM{seed:06}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = time
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Simulated CT"
    # General Series, Frame of Reference
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "CT", _uid(words, "series"), 2
    ds.SeriesDescription, ds.BodyPartExamined = "Simulated low dose", "CHEST"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(words, "frame"), ""
    # General Equipment
    ds.Manufacturer, ds.ManufacturerModelName = "Simulated scanner", "models.phantom"
    # General Image, Image Plane
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber, ds.AcquisitionNumber = number, 1
    ds.BurnedInAnnotation = "NO"
    left, top = -(columns - 1) / 2 * column_step, -(rows - 1) / 2 * row_step
    ds.ImagePositionPatient = [round(left, 4), round(top, 4), round(number * thickness, 4)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [round(row_step, 6), round(column_step, 6)]
    ds.SliceThickness, ds.SliceLocation = round(thickness, 4), round(number * thickness, 4)
    # CT Image, VOI LUT, Image Pixel
    ds.KVP, ds.ConvolutionKernel = 120, "SIMULATED"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, _BITS, _BITS - 1, 0
    return ds


def main(arguments: list[str] | None = None) -> None:
    """Write the phantom as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.write.phantom", description="Write a CT phantom."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dose", type=float, default=0.25, help="share of a full dose")
    given = parser.parse_args(arguments)
    write_phantom_series(
        given.folder,
        slices=given.slices,
        size=given.size,
        seed=given.seed,
        dose=given.dose,
        now=datetime.now(UTC).astimezone(),
    )


if __name__ == "__main__":
    main()

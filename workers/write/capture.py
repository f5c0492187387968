"""The anomaly result as RGB Secondary Captures: a summary page, and the slices worth a look.

Why not every slice, and which: deploy/decisions/0003-captures.md.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage
from scipy import ndimage

from models.anomaly import AnomalyScores
from node.entities import CONTRIBUTING_MANUFACTURER
from node.job import ProducedArtifact
from workers.read import Volume
from workers.write.header import (
    fill_type_2,
    local_time,
    put_dates,
    series_description,
    series_number,
    taken_over,
)
from workers.write.history import put_lossy_history, put_references
from workers.write.iod import module_keywords
from workers.write.pages import SMALLEST_MM2, Figures, patient_orientation, slice_page, summary_page
from workers.write.part10 import save
from workers.write.provenance import (
    NOT_FOR_DIAGNOSIS,
    Provenance,
    code,
    contributing_equipment,
    result_uid,
    sources_key,
)

SERIES_OFFSET = 2
MOST_SLICES = 8
APART_MM = 5.0  # nearer slices show the same finding
_MODULES = ("patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study")
_SERIES_KEPT = frozenset(
    {
        "BodyPartExamined",
        "Laterality",
        "ProtocolName",
        "RequestAttributesSequence",
        "TimezoneOffsetFromUTC",
        "OriginalAttributesSequence",
        "ContributingEquipmentSequence",
    }
)


def write_captures(
    volume: Volume,
    scores: AnomalyScores,
    provenance: Provenance,
    folder: Path,
    now: datetime,
    notes: list[str] | None = None,
) -> list[ProducedArtifact]:
    """Write the summary and up to MOST_SLICES slice pages to `folder`/capture, summary first.

    Attributes left out because their value is unlawful are named in `notes`.
    """
    marked, area = regions(scores, volume.spacing)
    figures = Figures(volume, scores, marked, area, provenance)
    shown = choose(scores.per_slice, area > 0, volume.positions)
    settings = (
        f"threshold={scores.threshold!r} most={MOST_SLICES} apart={APART_MM} smallest={SMALLEST_MM2} "
        f"normals={scores.normals}"
    )
    sources = [str(header.SOPInstanceUID) for header in volume.headers]
    key = sources_key(sources)

    def uid(part: str) -> UID:
        return result_uid("capture", provenance, settings, key, part)

    pages = 1 + len(shown)
    drawn: list[tuple[Image.Image, int | None]] = [(summary_page(figures, shown, pages), None)]
    drawn += [(slice_page(figures, index, 2 + n, pages), index) for n, index in enumerate(shown)]
    artifacts, left_out = [], set[str]()
    for number, (picture, index) in enumerate(drawn, start=1):
        source = volume.headers[index if index is not None else len(volume.headers) // 2]
        ds, faulty = _header(source, provenance, now, _words(figures, shown, index))
        left_out.update(faulty)
        ds.SeriesInstanceUID = uid("series")
        ds.SOPInstanceUID = uid("summary" if index is None else sources[index])
        ds.InstanceNumber = number
        ds.PatientOrientation = patient_orientation(volume, index) if index is not None else None
        if index is not None:
            put_references(ds, source, spatial="NO")
        else:
            put_references(
                ds, *(volume.headers[i] for i in shown or range(len(volume.headers))), spatial="NO"
            )
        _put_rgb(ds, np.asarray(picture))
        artifacts.append(save(ds, folder, Path("capture") / f"{number:04}.dcm", "capture"))
    if left_out and notes is not None:
        notes.append(f"left out of the captures for unlawful values: {', '.join(sorted(left_out))}")
    return artifacts


def regions(
    scores: AnomalyScores, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Scores inside the regions worth marking (Z, Y, X), 0 elsewhere, and their area a slice in mm².

    A region is evaluated, at or above the threshold, connected on its slice, SMALLEST_MM2 or larger.
    """
    above = scores.evaluated & (scores.score >= scores.threshold)
    marked = np.zeros_like(scores.score)
    area = np.zeros(len(above))
    pixel = spacing[1] * spacing[2]
    for index, plane in enumerate(above):
        labels, count = ndimage.label(plane, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1) * pixel
        sizes[0] = 0
        kept = (sizes >= SMALLEST_MM2)[labels]
        marked[index][kept] = scores.score[index][kept]
        area[index] = kept.sum() * pixel
    return marked, area


def choose(
    per_slice: NDArray[np.float32], found: NDArray[np.bool_], positions: NDArray[np.float64]
) -> list[int]:
    """The slices to show, in anatomical order: the highest scores first, none within APART_MM of another."""
    chosen: list[int] = []
    for index in np.argsort(-per_slice, kind="stable"):
        near = any(abs(positions[index] - positions[other]) < APART_MM for other in chosen)
        if found[index] and not near:
            chosen.append(int(index))
        if len(chosen) == MOST_SLICES:
            break
    return sorted(chosen)


def _words(figures: Figures, shown: Sequence[int], index: int | None) -> str:
    scores = figures.scores
    found = int((figures.area > 0).sum())
    if not found:
        return (
            f"No region above the threshold ({scores.threshold:.2f}); series score {scores.series_score:.2f}."
        )
    what = "Summary" if index is None else f"Slice {index + 1}, score {scores.per_slice[index]:.2f}"
    return (
        f"{what}. Regions in {found} of {len(scores.per_slice)} slices; the {len(shown)} with the highest "
        f"scores are shown, {APART_MM:g} mm apart or more. Threshold {scores.threshold:.2f}, series score "
        f"{scores.series_score:.2f}. Regions under {SMALLEST_MM2:g} mm2 are not marked."
    )


def _header(source: Dataset, provenance: Provenance, now: datetime, words: str) -> tuple[Dataset, list[str]]:
    ds, faulty = taken_over(source, module_keywords(*_MODULES) | _SERIES_KEPT)
    local_now = local_time(source, now)
    # SOP Common, General Series
    ds.SOPClassUID = SecondaryCaptureImageStorage
    put_dates(ds, local_now, series=True)
    ds.Modality = "OT"
    ds.SeriesNumber = series_number(source, SERIES_OFFSET)
    ds.SeriesDescription = series_description(source, f"AI anomaly {provenance.algorithm}")
    if source.get("ImageLaterality") in ("L", "R"):
        ds.Laterality = source.ImageLaterality
    # General Equipment, SC Equipment
    ds.Manufacturer = ds.SecondaryCaptureDeviceManufacturer = CONTRIBUTING_MANUFACTURER
    ds.ManufacturerModelName = ds.SecondaryCaptureDeviceManufacturerModelName = provenance.algorithm[:64]
    versions = [provenance.program[:64], provenance.weights]
    ds.SoftwareVersions = ds.SecondaryCaptureDeviceSoftwareVersions = versions
    ds.ConversionType = "WSD"
    ds.ContributingEquipmentSequence = [
        *ds.get("ContributingEquipmentSequence", []),
        contributing_equipment(provenance, local_now, "Anomaly map"),
    ]
    # General Image, SC Image
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    warning = f" {provenance.domain}." if provenance.domain else ""
    told = f"AI anomaly map, {NOT_FOR_DIAGNOSIS}. {words} {provenance.algorithm}.{warning}"
    ds.DerivationDescription = told[:1024]
    ds.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    ds.BurnedInAnnotation = "YES"
    put_lossy_history(ds, source)
    fill_type_2(ds)
    return ds, faulty


def _put_rgb(ds: Dataset, picture: NDArray[np.uint8]) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = picture.tobytes()
    ds["PixelData"].VR = "OW"

"""Results as RGB Secondary Captures: of an anomaly a summary and slices, of a denoiser one page.

Why not every slice, and which: deploy/decisions/0003-captures.md.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from models.anomaly import AnomalyScores
from node.entities import CONTRIBUTING_MANUFACTURER
from node.job import ProducedArtifact
from workers.read import Volume
from workers.write.comparison import chosen, comparison_page, noise_words, unit_of
from workers.write.derived import Part, uids_of
from workers.write.dressing import dress
from workers.write.findings import SMALLEST_MM2, Marked, instance_names, marked_of
from workers.write.history import put_lossy_history, put_references, put_references_of
from workers.write.pages import patient_orientation, slice_page, summary_page
from workers.write.part10 import save
from workers.write.provenance import NOT_FOR_DIAGNOSIS, Provenance, code

MOST_SLICES = 8
APART_MM = 5.0  # nearer slices show the same finding


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
    return captures_of(marked_of(volume, scores, provenance), folder, now, notes)


def captures_of(
    found: Marked, folder: Path, now: datetime, notes: list[str] | None = None
) -> list[ProducedArtifact]:
    """As `write_captures`, of regions that are known already."""
    volume = found.volume
    shown = choose(found.scores.per_slice, found.area > 0, volume.positions)
    pages = 1 + len(shown)
    drawn: list[tuple[Image.Image, int | None]] = [(summary_page(found, shown, pages), None)]
    drawn += [(slice_page(found, index, 2 + n, pages), index) for n, index in enumerate(shown)]
    names = instance_names(volume)
    rule = f"{MOST_SLICES} {APART_MM}"
    artifacts, left_out = [], set[str]()
    for number, (picture, index) in enumerate(drawn, start=1):
        source = volume.headers[index if index is not None else len(volume.headers) // 2]
        told = f"AI anomaly map, {NOT_FOR_DIAGNOSIS}. {_words(found, shown, index)}"
        ds, faulty = _header(source, found.provenance, now, "anomaly", told)
        left_out.update(faulty)
        ds.SeriesInstanceUID = found.uid("capture", f"series {rule}")
        ds.SOPInstanceUID = found.uid("capture", f"{'summary' if index is None else names[index]} {rule}")
        ds.InstanceNumber = number
        ds.PatientOrientation = patient_orientation(volume, index) if index is not None else None
        put_references(ds, volume, [index] if index is not None else shown or None, spatial="NO")
        put_rgb(ds, np.asarray(picture))
        artifacts.append(save(ds, folder, Path("capture") / f"{number:04}.dcm", "capture"))
    if left_out and notes is not None:
        notes.append(f"left out of the captures for unlawful values: {', '.join(sorted(left_out))}")
    return artifacts


def write_comparison(
    parts: Sequence[Part], provenance: Provenance, folder: Path, now: datetime, notes: list[str] | None = None
) -> list[ProducedArtifact]:
    """Write the page of a denoised series to `folder`/capture; `parts` are all its volumes with results.

    Attributes left out because their value is unlawful are named in `notes`.
    """
    shown = chosen(parts)
    volume, denoised = parts[0]
    uid = uids_of("capture", parts, provenance)
    told = (
        f"AI denoising, before and after, {NOT_FOR_DIAGNOSIS}. "
        f"{noise_words(parts, unit_of(volume.headers[0]))}. Strength {denoised.strength:g}, no change beyond "
        f"strength x {denoised.limit_sigma:g} x noise."
    )
    source = shown[0].volume.headers[shown[0].index]
    ds, faulty = _header(source, provenance, now, "denoising", told)
    ds.SeriesInstanceUID, ds.SOPInstanceUID = uid("series"), uid("comparison")
    ds.InstanceNumber, ds.PatientOrientation = 1, None
    put_references_of(ds, [(row.volume, row.index) for row in shown], spatial="NO")
    put_rgb(ds, np.asarray(comparison_page(parts, shown, provenance)))
    if faulty and notes is not None:
        notes.append(f"left out of the capture for unlawful values: {', '.join(faulty)}")
    return [save(ds, folder, Path("capture/0001.dcm"), "capture")]


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


def _words(figures: Marked, shown: Sequence[int], index: int | None) -> str:
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


def _header(
    source: Dataset, provenance: Provenance, now: datetime, what: str, told: str
) -> tuple[Dataset, list[str]]:
    ds = Dataset()
    ds.SOPClassUID, ds.Modality = SecondaryCaptureImageStorage, "OT"
    faulty = dress(ds, "capture", source, provenance, now, what)
    # SC Equipment
    ds.SecondaryCaptureDeviceManufacturer = CONTRIBUTING_MANUFACTURER
    ds.SecondaryCaptureDeviceManufacturerModelName = ds.ManufacturerModelName
    ds.SecondaryCaptureDeviceSoftwareVersions = list(ds.SoftwareVersions)
    ds.ConversionType = "WSD"
    # General Image, SC Image
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    warning = f" {provenance.domain}." if provenance.domain else ""
    warning = f" Of {provenance.part}.{warning}" if provenance.part else warning
    ds.DerivationDescription = f"{told} {provenance.algorithm}.{warning}"[:1024]
    ds.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    ds.BurnedInAnnotation = "YES"
    put_lossy_history(ds, source)
    return ds, faulty


def put_rgb(ds: Dataset, picture: NDArray[np.uint8]) -> None:
    """An RGB picture (Y, X, 3) as the pixels of `ds`."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = picture.tobytes()
    ds["PixelData"].VR = "OW"

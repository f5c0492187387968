"""Every object that an anomaly pipeline puts out, written from the same regions."""

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

import numpy as np

from models.anomaly import AnomalyScores
from node.job import Output, ProducedArtifact
from workers.read import Volume
from workers.read.header import text_of, uid_of
from workers.write.capture import captures_of
from workers.write.findings import MOST_FINDINGS, Marked, marked_of
from workers.write.keys import write_keys
from workers.write.parametric import write_parametric
from workers.write.presentation import write_presentation
from workers.write.provenance import Provenance
from workers.write.report import write_report
from workers.write.segmentation import write_segmentation

Writer = Callable[[Marked, Path, datetime], list[ProducedArtifact]]
# In the order in which they are sent: what refers comes after what it refers to.
WRITERS: dict[Output, Writer] = {
    "segmentation": write_segmentation,
    "report": write_report,
    "parametric": write_parametric,
    "presentation": write_presentation,
    "keys": write_keys,
}


def write_bundle(
    outputs: Collection[str],
    volume: Volume,
    scores: AnomalyScores,
    provenance: Provenance,
    folder: Path,
    now: datetime,
    notes: list[str],
) -> list[ProducedArtifact]:
    """Write the `outputs` that were asked for below `folder`; what was left out is said in `notes`."""
    found = marked_of(volume, scores, provenance)
    artifacts = captures_of(found, folder, now, notes) if "capture" in outputs else []
    for role, write in WRITERS.items():
        if role not in outputs:
            continue
        if reason := _impossible(role, volume):
            notes.append(f"no {role}: {reason}")
            continue
        written = write(found, folder, now)
        if not written:
            notes.append(f"no {role}: no region is above the threshold")
        artifacts += written
    if found.further:
        notes.append(
            f"the {MOST_FINDINGS} highest of {MOST_FINDINGS + found.further} regions are described one by one"
        )
    return artifacts


def _impossible(role: str, volume: Volume) -> str:
    """Why a series can have no object of this role; empty where it can."""
    if volume.flat and role in ("segmentation", "parametric"):
        return "the images have no place in the patient to lay it over"
    frames = {uid_of(header, "FrameOfReferenceUID") or "" for header in volume.headers}
    if role in ("segmentation", "parametric") and (len(frames) > 1 or frames == {""}):
        return "the images have no common frame of reference to lay it over"
    thick = volume.headers[0].get("SliceThickness") or np.isfinite(volume.spacing[0])
    if not thick and role in ("segmentation", "parametric"):
        return "the slice has no thickness"
    return _no_presentation(volume) if role == "presentation" else ""


def _no_presentation(volume: Volume) -> str:
    keywords = ("RescaleSlope", "RescaleIntercept", "RescaleType")
    rescales = {tuple(text_of(header, keyword) for keyword in keywords) for header in volume.headers}
    if not volume.flat and (volume.whole is not None or len(rescales) > 1):
        return "its slices may have a rescale each, of which a presentation state holds one"
    if volume.modality == "NM":
        return "it is not written for nuclear medicine, whose frames may be shown each in its own way"
    if volume.colour is not None:
        return "the images are in colour, and it is for grey ones"
    return ""

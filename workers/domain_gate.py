"""Is this series one that the model was made for? Two questions before any result is computed.

The contract asks the header: a localizer, CT without rescale and another modality are refused; another
body part, plane, pixel size or tube voltage than the card names is noticed. The features ask the images
(models.domain), where the model was packed with them. Green passes. Amber passes with a note in the
manifest and in every object of the result. Red is refused with the reason.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from models.domain import Domain, Light, evenly
from models.domain_of import SLICES, series_features
from models.intensity import INTENSITIES
from models.weights import LoadedModel
from node.errors import ModelRefused, SeriesRefused
from workers.read import Volume
from workers.read.header import number_of, words_of

_AXIAL = 0.8  # least part of the normal along the body for axial slices
_PIXEL_MM = {"CT": (0.2, 1.6), "MR": (0.2, 2.5)}
_KVP = (70.0, 150.0)
_PHASES = {"P", "PHASE", "PHASE MAP", "VELOCITY MAP"}  # value 3 or later of ImageType, as vendors write it
# What BodyPartExamined may say where a card is for the trunk or for the brain; absent says nothing.
_PARTS = {
    "trunk": {"CHEST", "THORAX", "ABDOMEN", "PELVIS", "CHESTABDPELVIS", "CHESTABDOMEN", "ABDOMENPELVIS"}
    | {"LUNG", "LIVER", "HEART", "WHOLEBODY", "BODY", "SPINE", "TSPINE", "LSPINE", "BREAST", "KIDNEY"},
    "brain": {"BRAIN", "HEAD"},
}


@dataclass(frozen=True)
class Verdict:
    """The light of both stages, and a sentence for each thing that was noticed."""

    light: Light
    notes: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """What results of an amber series carry; empty for green."""
        return "" if self.light == "green" else "Outside the model's usual domain: " + "; ".join(self.notes)


def admit(volume: Volume, model: LoadedModel) -> Verdict:
    """The verdict on a series that may pass. Raises SeriesRefused with the reason for red.

    Raises models.preparation.OutsideDomain where an anomaly model cannot prepare the series.
    """
    _require_contract(volume, model)
    notes = list(_noticed(volume, model))
    noticed = look(model, volume.modality, volume.voxels, volume.padding, volume.spacing[1:])
    if noticed:
        notes.append(noticed)
    return Verdict("amber" if notes else "green", tuple(notes))


def look(
    model: LoadedModel,
    modality: str,
    voxels: NDArray[np.float32],
    padding: NDArray[np.bool_],
    spacing: tuple[float, float],
) -> str:
    """The second stage, on images (Z, Y, X) alone: empty for green, a sentence for amber.

    Raises SeriesRefused for red: values that cannot be of the modality, whatever the header says, and
    images that are nothing like the training's. Raises OutsideDomain as admit does, and ModelRefused for
    statistics of an older form.
    """
    if modality in INTENSITIES:
        chosen = evenly(len(voxels), SLICES)
        reason = INTENSITIES[modality].implausible(voxels[chosen], padding[chosen])
        if reason:
            raise SeriesRefused(f"Model {model.name!r}: {reason}.")
    try:
        domain = Domain.of(model.calibration)
    except ValueError as error:
        raise ModelRefused(f"Model {model.name!r}: {error}.") from error
    if domain is None:
        return ""
    judged = domain.judge(series_features(model, voxels, padding, spacing), model.kind)
    if judged.light == "red":
        raise SeriesRefused(f"Model {model.name!r}: {judged.reason}.")
    return judged.reason


def _require_contract(volume: Volume, model: LoadedModel) -> None:
    # The score has no modality to look at, and a denoiser's noise model is one modality's.
    wanted = str(model.card.get("input", {}).get("modality", "CT" if model.kind == "denoiser" else ""))
    if wanted and wanted != volume.modality:
        raise SeriesRefused(f"Model {model.name!r} is for {wanted}, the series is {volume.modality}.")
    for header in volume.headers:
        if "LOCALIZER" in [str(word).upper() for word in header.get("ImageType") or []]:
            raise SeriesRefused(f"Model {model.name!r} is not for localizers.")
        if volume.modality == "MR" and _is_no_magnitude(header):
            raise SeriesRefused(f"Model {model.name!r} is for magnitudes, the series shows phases or parts.")
        if volume.modality == "CT" and not any(
            keyword in header for keyword in ("RescaleIntercept", "ModalityLUTSequence")
        ):
            raise SeriesRefused(f"Image {header.SOPInstanceUID} has no rescale to HU.")


def _is_no_magnitude(header: Dataset) -> bool:
    """Whether an MR image shows a phase, or the real or imaginary part, whose noise is another."""
    words = {word.strip().upper() for word in words_of(header, "ImageType")[2:]}
    part = str(header.get("ComplexImageComponent") or "").upper()
    return bool(words & _PHASES) or part in ("PHASE", "REAL", "IMAGINARY")


def _noticed(volume: Volume, model: LoadedModel) -> list[str]:
    words, first = model.card.get("input", {}), volume.headers[0]
    found = []
    plane = str(words.get("plane", ""))
    orientation = [float(value) for value in first.get("ImageOrientationPatient") or []]
    if plane.startswith("axial") and len(orientation) == 6:
        normal = np.cross(orientation[:3], orientation[3:])
        if abs(float(normal[2])) < _AXIAL:
            found.append("the slices are not axial")
    low, high = _PIXEL_MM.get(volume.modality, (0.0, np.inf))
    if not all(low <= size <= high for size in volume.spacing[1:] if np.isfinite(size)):
        found.append(
            f"pixels of {volume.spacing[1]:.2f} × {volume.spacing[2]:.2f} mm were not in the training"
        )
    if volume.modality == "CT" and (voltage := _voltage(first)) and not _KVP[0] <= voltage <= _KVP[1]:
        found.append(f"a tube voltage of {voltage:g} kV was not in the training")
    found += _other_part(str(first.get("BodyPartExamined") or ""), f"{plane} {words.get('body_part', '')}")
    return found


def _voltage(header: Dataset) -> float:
    """KVP; 0 where the header has none, or no number."""
    try:
        return number_of(header, "KVP", "") or 0.0
    except SeriesRefused:
        return 0.0


def _other_part(part: str, meant: str) -> list[str]:
    """A sentence where the header names a body part that the card does not mean; the value is not told."""
    known = "brain" if "brain" in meant else "trunk" if any(w in meant for w in ("trunk", "chest")) else ""
    name = "".join(letter for letter in part.upper() if letter.isalpha())
    if not known or not name or name in _PARTS[known]:
        return []
    return [f"BodyPartExamined is not of the {known}"]

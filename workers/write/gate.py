"""The last look at every result before it leaves: read back from its file, held against its source.

All findings are collected; one is enough to refuse the whole result.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, config
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from models.denoiser import Denoised
from node.entities import CONTRIBUTING_MANUFACTURER
from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from workers.read import Volume
from workers.write.derived import padding_limits, stored_range
from workers.write.iod import faults_in_items, iod_of, required_of
from workers.write.lint import lint, lint_set, referenced_uids
from workers.write.repair import IDENTITY, sane_window

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
# What must be the source's own in a derived image.
_SAME_GEOMETRY = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "InstanceNumber",
    "PatientPosition",
    "Modality",
    "PixelRepresentation",
    "BitsStored",
    "BitsAllocated",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "PhotometricInterpretation",
)


def check(
    folder: Path, artifacts: Sequence[ProducedArtifact], volume: Volume, denoised: Denoised | None = None
) -> None:
    """Read every artifact back and examine it. Raises ArtifactRefused with all findings.

    Derived images are also held against the bound |out - in| <= strength × limit × sigma, for which
    `denoised` must be given.
    """
    by_uid = {str(header.SOPInstanceUID): index for index, header in enumerate(volume.headers)}
    known = by_uid.keys() | {a.sop_instance_uid for a in artifacts}
    frame = str(volume.headers[0].get("FrameOfReferenceUID") or "")
    findings: Counter[str] = Counter()
    seen: set[int] = set()
    objects = []
    for artifact in artifacts:
        with config.disable_value_validation():  # examine says what is unlawful, and where that is ours
            ds = pydicom.dcmread(folder / artifact.path)
            ds.decode()
        objects.append(ds)
        index = _source_index(ds, artifact.role, by_uid)
        if index is None:
            findings["its source image is not of this series"] += 1
            continue
        source = volume.headers[index]
        findings.update(examine(ds, source))
        own_frame = source.get("FrameOfReferenceUID") if artifact.role == "derived" else frame
        findings.update(lint(ds, known, str(own_frame or "")))
        if (artifact.sop_instance_uid, artifact.series_instance_uid) != (
            ds.SOPInstanceUID,
            ds.SeriesInstanceUID,
        ):
            findings["the manifest names other UIDs than the file"] += 1
        if artifact.role == "derived":
            seen.add(index)
            findings.update(examine_geometry(ds, source))
            if denoised is None:
                findings["a derived image cannot be checked without the model's bounds"] += 1
            else:
                bound = denoised.strength * denoised.limit_sigma * float(denoised.sigma[index])
                stored, padding = volume.stored[index], volume.padding[index]
                findings.update(examine_values(ds, source, stored, padding, bound))
    findings.update(lint_set(objects, volume.headers[0]))
    if denoised is not None and len(seen) != len(volume.headers):
        findings[f"{len(seen)} of {len(volume.headers)} slices have a derived image"] += 1
    if len({a.sop_instance_uid for a in artifacts}) != len(artifacts):
        findings["two results share a SOP Instance UID"] += 1
    if findings:
        raise ArtifactRefused(
            [text if count == 1 else f"{text} (in {count} objects)" for text, count in findings.items()]
        )


def _source_index(ds: Dataset, role: str, by_uid: dict[str, int]) -> int | None:
    """The first slice that an object is made from; None where it says so of none of the source."""
    if role in ("derived", "capture"):
        named = {str(item.ReferencedSOPInstanceUID) for item in ds.get("SourceImageSequence", [])}
    else:
        named = referenced_uids(ds)
    return min((by_uid[uid] for uid in named if uid in by_uid), default=None)


def examine(ds: Dataset, source: Dataset) -> list[str]:
    """What is wrong with a result of any kind, one sentence each."""
    return [
        *_attributes(ds),
        *_uids(ds, source),
        *_text(ds),
        *_identity(ds, source),
        *_pixels(ds),
    ]


def _attributes(ds: Dataset) -> list[str]:
    """Types 1 and 2 of the mandatory modules, stale leftovers, window, loop guard."""
    if iod_of(str(ds.get("SOPClassUID", ""))) is None:
        return [f"SOP class {ds.get('SOPClassUID')!r} has no IOD"]
    found = []
    for keyword, kind in required_of(ds).items():
        if keyword not in ds:
            found.append(f"{keyword} is missing (type {kind})")
        elif kind == "1" and ds[keyword].is_empty:
            found.append(f"{keyword} is empty (type 1)")
    found += faults_in_items(ds)
    if not sane_window(ds):
        found.append("the window is not sane")
    makers = [item.get("Manufacturer") for item in ds.get("ContributingEquipmentSequence", [])]
    if CONTRIBUTING_MANUFACTURER not in makers:
        found.append("ContributingEquipmentSequence does not name us: the loop guard would not hold")
    if "PixelData" in ds and int(ds.BitsAllocated) > 1 and ds.get("BurnedInAnnotation") not in ("YES", "NO"):
        found.append("BurnedInAnnotation is neither YES nor NO")
    return found


def _uids(ds: Dataset, source: Dataset) -> list[str]:
    found = []
    for element in ds.iterall():
        if element.VR == "UI" and not element.is_empty:
            values = [element.value] if isinstance(element.value, str) else element.value
            wrong = {value for value in values if len(value) > 64 or not _UID.fullmatch(value)}
            if wrong and not wrong <= _uids_of(source):  # what the source is called it must be called here
                found.append(f"{element.keyword or element.tag} is no valid UID")
    found += [
        f"{keyword} is not a new one of ours"
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
        if not str(ds.get(keyword, "")).startswith("2.25.") or ds.get(keyword) == source.get(keyword)
    ]
    meta = getattr(ds, "file_meta", Dataset())
    if meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        found.append("the transfer syntax is not Explicit VR Little Endian")
    if meta.get("MediaStorageSOPInstanceUID") != ds.get("SOPInstanceUID"):
        found.append("the file meta names another SOP Instance UID")
    return found


def _uids_of(ds: Dataset) -> set[str]:
    elements = [e for e in ds.iterall() if e.VR == "UI" and not e.is_empty]
    return {v for e in elements for v in ([e.value] if isinstance(e.value, str) else e.value)}


def _text(ds: Dataset) -> list[str]:
    """One character set, UTF-8, and every value lawful for its VR (a name's length is the source's)."""
    if ds.get("SpecificCharacterSet") != "ISO_IR 192":
        return ["SpecificCharacterSet is not ISO_IR 192"]
    found = []
    for element in ds.iterall():
        if element.keyword == "SpecificCharacterSet" and element is not ds["SpecificCharacterSet"]:
            found.append("an item has a character set of its own")
        if element.VR == "PN" and "\ufffd" in str(element.value):
            found.append(f"{element.keyword} could not be decoded")
        if (
            element.keyword in IDENTITY
            or element.VR in ("SQ", "PN", "OW", "OB", "UN")
            or element.is_empty
            or element.tag.is_private
        ):
            continue
        values = (
            element.value
            if isinstance(element.value, list | pydicom.multival.MultiValue)
            else [element.value]
        )
        try:
            for value in values:
                text = str(value) if element.VR in ("DS", "IS") else value
                pydicom.valuerep.validate_value(element.VR, text, config.RAISE)
        except (ValueError, TypeError):
            found.append(f"{element.keyword} has a value that {element.VR} does not allow")
    return found


def _identity(ds: Dataset, source: Dataset) -> list[str]:
    found = [
        f"{keyword} is not the source's"
        for keyword in sorted(IDENTITY)
        if str(ds.get(keyword) or "") != str(source.get(keyword) or "")
    ]
    if source.get("LossyImageCompression") == "01" and ds.get("LossyImageCompression") != "01":
        found.append("the lossy history is lost")
    if ds.SOPClassUID == SecondaryCaptureImageStorage and ds.get("BurnedInAnnotation") != "YES":
        found.append("a labelled capture must say BurnedInAnnotation YES")
    return found


def _pixels(ds: Dataset) -> list[str]:
    if "Rows" not in ds or "FloatPixelData" in ds:  # documents; a parametric map is lint's
        return []
    try:
        bits, stored = int(ds.BitsAllocated), int(ds.BitsStored)
        expected = int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel) * bits
        expected = -(-expected * int(ds.get("NumberOfFrames") or 1) // 8)
        data = bytes(ds.PixelData)
    except (AttributeError, TypeError, ValueError) as error:
        return [f"the pixel description is incomplete: {error}"]
    found = []
    if len(data) != expected + expected % 2:
        found.append(f"PixelData has {len(data)} bytes, Rows × Columns × … give {expected}")
    elif bits == 1 and stored == 1:  # no other value can be
        pass
    elif bits in (8, 16, 32) and 0 < stored <= bits and int(ds.HighBit) == stored - 1:
        values = np.frombuffer(data[:expected], f"<{'i' if ds.PixelRepresentation else 'u'}{bits // 8}")
        low, high = stored_range(ds)
        if values.size and (values.min() < low or values.max() > high):
            found.append(f"stored values {values.min()} to {values.max()} leave BitsStored {stored}")
    else:
        found.append(f"BitsAllocated {bits}, BitsStored {stored}, HighBit {ds.HighBit} do not fit together")
    return found


def examine_geometry(ds: Dataset, source: Dataset) -> list[str]:
    """Where a derived image lies, how it is scaled and of what it is: exactly as its source."""
    return [
        f"{keyword} differs from the source's"
        for keyword in _SAME_GEOMETRY
        if not _equal(ds.get(keyword), source.get(keyword))
    ]


def examine_values(
    ds: Dataset,
    source: Dataset,
    stored: NDArray[np.int32],
    padding: NDArray[np.bool_],
    bound: float,
) -> list[str]:
    """The values of a derived image against its source's stored values (Y, X).

    No change beyond `bound` in modality units and the rounding to a stored value; padding verbatim,
    and none where there was none.
    """
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{int(ds.BitsAllocated) // 8}"
    count = int(ds.Rows) * int(ds.Columns)
    if stored.shape != (ds.Rows, ds.Columns) or len(ds.PixelData) < count * np.dtype(kind).itemsize:
        return ["the matrix is not the source's"]
    new = np.frombuffer(ds.PixelData, kind, count).reshape(stored.shape).astype(np.int64)
    slope = abs(float(source.get("RescaleSlope") or 1))
    found = []
    change = np.abs(new - stored)[~padding].max(initial=0) * slope
    if not change <= bound * (1 + 1e-6) + slope / 2:
        found.append(f"a value changed by {change:.4g}, allowed are {bound:.4g} and rounding")
    if (new != stored)[padding].any():
        found.append("padding pixels were changed")
    if (limits := padding_limits(source)) is not None:
        made = (new >= limits[0]) & (new <= limits[1]) & ~((stored >= limits[0]) & (stored <= limits[1]))
        if made.any():
            found.append(f"{int(made.sum())} pixels became padding")
    return found


def _equal(one: object, other: object) -> bool:
    """Equal as numbers where both are, to the 1e-9 that a 16 character DS may cost; else as text."""
    if one in (None, "") and other in (None, ""):
        return True
    try:
        first, second = _numbers(one), _numbers(other)
    except (TypeError, ValueError):
        return str(one) == str(other)
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=1e-9, atol=1e-9))


def _numbers(value: object) -> list[float]:
    values: Iterable[object] = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return [float(str(v)) for v in values]

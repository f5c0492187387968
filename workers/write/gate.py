"""The last look at every result before it leaves: read back from its file, held against its source.

All findings are collected; one is enough to refuse the whole result.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset, config
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from models.denoiser import Denoised
from node.entities import CONTRIBUTING_MANUFACTURER
from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from workers.read import Volume
from workers.read.header import text_of
from workers.write.bounds import examine_colour, examine_values
from workers.write.derived import stored_range
from workers.write.frame_groups import same_places
from workers.write.iod import faults_in_items, iod_of, required_of
from workers.write.lint import lint, lint_set, referenced_uids
from workers.write.orientation import is_said_twice
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

# Of these, a value that its VR does not allow is left out: where pixels lie does not hang on it.
_MAY_BE_LEFT_OUT = frozenset({"InstanceNumber", "PatientPosition"})

Part = tuple[Volume, Denoised | None]
Place = tuple[Volume, Denoised | None, int]  # and the index of a slice


def check(
    folder: Path, artifacts: Sequence[ProducedArtifact], volume: Volume, denoised: Denoised | None = None
) -> None:
    """Read every artifact back and examine it. Raises ArtifactRefused with all findings.

    Derived images are also held against the bound |out - in| <= strength × limit × sigma, for which
    `denoised` must be given.
    """
    check_parts(folder, artifacts, [(volume, denoised)])


def check_parts(folder: Path, artifacts: Sequence[ProducedArtifact], parts: Sequence[Part]) -> None:
    """As `check`, of a series that was read as several volumes."""
    places: dict[str, list[Place]] = {}
    for volume, denoised in parts:
        for index, header in enumerate(volume.headers):
            places.setdefault(str(header.SOPInstanceUID), []).append((volume, denoised, index))
    known = places.keys() | {a.sop_instance_uid for a in artifacts}
    first = parts[0][0].headers[0]
    findings: Counter[str] = Counter()
    objects = []
    derived: set[str] = set()
    for artifact in artifacts:
        with config.disable_value_validation():  # examine says what is unlawful, and where that is ours
            ds = pydicom.dcmread(folder / artifact.path)
            ds.decode()
        objects.append(ds)
        uid = _source_uid(ds, artifact.role, places)
        if uid is None:
            findings["its source image is not of this series"] += 1
            continue
        findings.update(_examined(ds, artifact, places[uid], known, first))
        if artifact.role == "derived":
            derived.add(uid)
    seen = sum(len(places[uid]) for uid in derived)
    slices = sum(len(volume.headers) for volume, _ in parts)
    if any(denoised is not None for _, denoised in parts) and seen != slices:
        findings[f"{seen} of {slices} slices have a derived image"] += 1
    findings.update(lint_set(objects, first))
    if len({a.sop_instance_uid for a in artifacts}) != len(artifacts):
        findings["two results share a SOP Instance UID"] += 1
    if findings:
        raise ArtifactRefused(
            [text if count == 1 else f"{text} (in {count} objects)" for text, count in findings.items()]
        )


def check_notice(folder: Path, notice: ProducedArtifact, source: Dataset) -> None:
    """Examine the capture that stands for a result that is not there. Raises ArtifactRefused."""
    with config.disable_value_validation():
        ds = pydicom.dcmread(folder / notice.path)
        ds.decode()
    if found := [*examine(ds, source), *lint(ds, {str(source.SOPInstanceUID)}, ""), *lint_set([ds], source)]:
        raise ArtifactRefused(found)


def _examined(
    ds: Dataset, artifact: ProducedArtifact, slices: Sequence[Place], known: Collection[str], first: Dataset
) -> list[str]:
    """What is wrong with one object that is made from these slices of one source object."""
    volume, _, index = slices[0]
    source = volume.headers[index] if volume.whole is None else volume.whole
    frame = source if artifact.role == "derived" else first
    found = [*examine(ds, source), *lint(ds, known, str(frame.get("FrameOfReferenceUID") or ""))]
    named = (artifact.sop_instance_uid, artifact.series_instance_uid)
    if named != (ds.SOPInstanceUID, ds.SeriesInstanceUID):
        found.append("the manifest names other UIDs than the file")
    if artifact.role != "derived":
        return found
    found += examine_geometry(ds, source)
    if volume.whole is not None:
        found += same_places(ds, source)
    for part, denoised, slice_index in slices:
        if denoised is None:
            found.append("a derived image cannot be checked without the model's bounds")
        else:
            found += _values_of(ds, part, denoised, slice_index)
    return found


def _source_uid(ds: Dataset, role: str, known: Collection[str]) -> str | None:
    """The first source that an object says it is made from; None where it names none of the series."""
    if role in ("derived", "capture"):
        named = {str(item.ReferencedSOPInstanceUID) for item in ds.get("SourceImageSequence", [])}
    else:
        named = referenced_uids(ds)
    return min((uid for uid in named if uid in known), default=None)


def _values_of(ds: Dataset, volume: Volume, denoised: Denoised, index: int) -> list[str]:
    """The values of one slice of a derived object against its bound."""
    bound = denoised.strength * denoised.limit_sigma * float(denoised.sigma[index])
    frame = 0 if volume.frames is None else int(volume.frames[index]) - 1
    if volume.colour is not None:
        return examine_colour(ds, volume.colour[index], bound, frame)
    header = volume.headers[index]
    return examine_values(ds, header, volume.stored[index], volume.padding[index], bound, frame)


def examine(ds: Dataset, source: Dataset) -> list[str]:
    """What is wrong with a result of any kind, one sentence each."""
    return [
        *_attributes(ds, source),
        *_uids(ds, source),
        *_text(ds),
        *_identity(ds, source),
        *_pixels(ds),
    ]


def _attributes(ds: Dataset, source: Dataset) -> list[str]:
    """Types 1 and 2 of the mandatory modules, stale leftovers, window, loop guard."""
    if iod_of(str(ds.get("SOPClassUID", ""))) is None:
        return [f"SOP class {ds.get('SOPClassUID')!r} has no IOD"]
    found = []
    for keyword, kind in required_of(ds).items():
        if keyword not in ds:
            found.append(f"{keyword} is missing (type {kind}){_too(ds, source, keyword)}")
        elif kind == "1" and ds[keyword].is_empty:
            found.append(f"{keyword} is empty (type 1){_too(ds, source, keyword)}")
    found += faults_in_items(ds)
    if not sane_window(ds):
        found.append("the window is not sane")
    makers = [item.get("Manufacturer") for item in ds.get("ContributingEquipmentSequence", [])]
    if CONTRIBUTING_MANUFACTURER not in makers:
        found.append("ContributingEquipmentSequence does not name us: the loop guard would not hold")
    if "PixelData" in ds and int(ds.BitsAllocated) > 1 and ds.get("BurnedInAnnotation") not in ("YES", "NO"):
        found.append("BurnedInAnnotation is neither YES nor NO")
    return found


def _too(ds: Dataset, source: Dataset, keyword: str) -> str:
    """What to add where a copy lacks only what its source lacks: nothing is invented for it."""
    same = ds.SOPClassUID == source.get("SOPClassUID")
    return ", in its source too" if same and not text_of(source, keyword) else ""


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
    if (
        "Rows" in ds
        and source.get("LossyImageCompression") == "01"
        and ds.get("LossyImageCompression") != "01"
    ):
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
        and not (keyword == "PixelSpacing" and keyword not in ds and _no_length(source.get(keyword)))
        and not (keyword == "PatientPosition" and keyword not in ds and is_said_twice(source))
        and not (keyword in _MAY_BE_LEFT_OUT and not ds.get(keyword) and not _is_lawful(source, keyword))
    ]


def _is_lawful(source: Dataset, keyword: str) -> bool:
    element = source[keyword]
    try:
        pydicom.valuerep.validate_value(element.VR, str(element.value), config.RAISE)
    except ValueError:
        return False
    return True


def _no_length(value: object) -> bool:
    """Whether a spacing of the source says nothing: zero is none."""
    return not all(number > 0 for number in _numbers(value))


def _equal(one: object, other: object) -> bool:
    """Equal as numbers where both are, to the 1e-9 that a 16 character DS may cost; else as text."""
    if one in (None, "") and other in (None, ""):
        return True
    try:
        first, second = _numbers(one), _numbers(other)
    except (TypeError, ValueError):
        return str(one).strip().upper() == str(other).strip().upper()  # a code in lower case is repaired
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=1e-9, atol=1e-9))


def _numbers(value: object) -> list[float]:
    values: Iterable[object] = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return [float(str(v)) for v in values]

"""Headers as scanners and anonymisers leave them, made lawful without changing what they say.

A value is repaired where that changes nothing (a DS too long, a CS in lower case, the VR of another
edition, a date or time as ACR-NEMA wrote it); else its attribute is taken out and named. What identifies
the patient and study is kept.
"""

import math
import re

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, MRImageStorage
from pydicom.valuerep import DSfloat, validate_value

from workers.read.kinds import KINDS, Kind
from workers.write.iod import (
    INSTEAD_OF_POSITION,
    anatomic_region,
    iod_of,
    required_of,
    unpaired_body_parts,
)
from workers.write.orientation import is_said_twice

# Whose image it is: taken over as it stands, even where a value is longer than the standard allows,
# because an archive files by it.
IDENTITY = frozenset(
    {
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "AccessionNumber",
        "StudyDate",
        "StudyTime",
        "StudyID",
    }
)

_PLACED = Kind("")
# Dates and times before 1993, which readers accept (PS3.5 6.2).
_OLD = {"DA": re.compile(r"\d{4}\.\d\d\.\d\d"), "TM": re.compile(r"\d\d:\d\d:\d\d(\.\d{1,6})?")}


def repair(ds: Dataset, faulty: list[str], *, nested: bool = False) -> None:
    """Repair or take out what is unlawful in `ds`, and add the keywords taken out to `faulty`."""
    for element in list(ds):
        if element.VR == "SQ":
            _repair_items(ds, element, faulty, nested=nested)
            continue
        if element.tag.is_private or element.keyword in IDENTITY:
            continue
        sound = _sound(element)
        if sound is None:
            del ds[element.tag]
            faulty.append(element.keyword)
        elif sound is not element:
            ds[element.tag] = sound


def _repair_items(ds: Dataset, element: DataElement, faulty: list[str], *, nested: bool) -> None:
    """The items of a sequence without private elements, and without codes that name nothing."""
    items = list(element.value)
    for item in items:
        for inner in list(item):
            if inner.tag.is_private or inner.tag.element == 0:
                del item[inner.tag]
        if "CodingSchemeVersion" in item and not item.CodingSchemeVersion:
            del item.CodingSchemeVersion
        repair(item, faulty, nested=True)
    if element.keyword.endswith("CodeSequence"):
        whole = [item for item in items if _is_code(item)]
        if len(whole) < len(items):
            faulty.append(element.keyword)
            items = whole
            ds[element.tag].value = Sequence(items)
    if not items and not nested:  # within an item it may be of type 2: present, and empty
        del ds[element.tag]


def _is_code(item: Dataset) -> bool:
    """Whether a code has its value, its scheme and its meaning (PS3.3 table 8.8-1)."""
    known = [word for word in ("CodeValue", "LongCodeValue", "URNCodeValue") if item.get(word)]
    scheme = item.get("CodingSchemeDesignator") or known == ["URNCodeValue"]
    return bool(known and scheme and item.get("CodeMeaning"))


def _sound(element: DataElement) -> DataElement | None:
    """The element under its dictionary VR with lawful values; None where that cannot be had."""
    vr, value = element.VR, element.value
    if dictionary_has_tag(element.tag):
        expected = dictionary_VR(element.tag)
        if " or " not in expected and expected != vr:
            vr = expected
    try:
        if vr == "DS" and value not in (None, ""):
            values = list(value) if isinstance(value, MultiValue) else [value]
            if any(len(str(v)) > 16 for v in values):
                short = [DSfloat(float(v), auto_format=True) for v in values]
                return DataElement(element.tag, vr, short if len(short) > 1 else short[0])
        if vr in _OLD and isinstance(value, str) and _OLD[vr].fullmatch(value):
            value = value.replace(".", "", 2) if vr == "DA" else value.replace(":", "")
            element = DataElement(element.tag, vr, value, validation_mode=config.RAISE)
        if vr == "CS" and isinstance(value, str) and value != value.strip().upper():
            value = value.strip().upper()  # the only letters that CS has
            element = DataElement(element.tag, vr, value, validation_mode=config.RAISE)
        if vr != element.VR:
            element = DataElement(element.tag, vr, value, validation_mode=config.RAISE)
        if vr != "PN":  # a name is never dropped for its length
            for v in value if isinstance(value, MultiValue | list) else [value]:
                validate_value(vr, str(v) if vr in ("DS", "IS") and v is not None else v, config.RAISE)
    except (ValueError, TypeError, OverflowError):
        return None
    return element


def settle_conditions(ds: Dataset, faulty: list[str]) -> None:
    """Take out what is empty or ruled out by another attribute, and add what had a value to `faulty`."""
    iod = iod_of(str(ds.get("SOPClassUID", "")))
    kept = required_of(ds).keys() | (iod.may_be_empty - INSTEAD_OF_POSITION if iod else frozenset())
    for element in list(ds):
        if element.is_empty and element.keyword not in kept:
            del ds[element.tag]
    if "PixelSpacing" in ds:
        ds.pop("PixelAspectRatio", None)
    if is_said_twice(ds):
        del ds.PatientPosition
    ruled_out = []
    if "IR" not in _values(ds, "ScanningSequence"):
        ruled_out.append("InversionTime")  # type 2C, only of inversion recovery (PS3.3 C.8.3.1)
    between = ds.get("SpacingBetweenSlices")
    if between is not None and not (isinstance(between, float) and between >= 0):
        ruled_out.append("SpacingBetweenSlices")  # never negative here; the positions say where slices lie
    ruled_out += [
        keyword
        for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
        if not all(float(value) > 0 for value in _values(ds, keyword) if value)
    ]
    if not sane_window(ds):
        ruled_out += ["WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"]
    for keyword in ruled_out:
        if keyword in ds:
            del ds[keyword]
            faulty.append(keyword)
    _settle_anatomy(ds)
    for item in ds.get("RequestAttributesSequence", []):
        for element in list(item):
            if element.is_empty:
                del item[element.tag]  # of type 1C, 2 or 3 with nothing in it: nothing to take over
    ds.pop("PlanarConfiguration", None)  # of several samples a pixel; a capture sets its own


def _settle_anatomy(ds: Dataset) -> None:
    """Side, position and region: present, empty or absent as the object's kind wants it."""
    known_single = str(ds.get("BodyPartExamined") or "") in unpaired_body_parts()
    groups = (
        *ds.get("SharedFunctionalGroupsSequence", []),
        *ds.get("PerFrameFunctionalGroupsSequence", [])[:1],
    )
    if any("FrameAnatomySequence" in group for group in groups):
        ds.pop("Laterality", None)  # the object says it for each frame
    elif not known_single and "ImageLaterality" not in ds and "Laterality" not in ds:
        ds.Laterality = ""  # type 2C: of a structure that may be paired, of unknown side (PS3.3 C.7.3.1)
    if ds.get("SOPClassUID") in (CTImageStorage, MRImageStorage) and "PatientPosition" not in ds:
        ds.PatientPosition = ""  # type 2C in these
    if KINDS.get(ds.get("SOPClassUID", ""), _PLACED).flat and "PatientOrientation" not in ds:
        ds.PatientOrientation = None  # type 2C where nothing else says how the patient lies
    if "AnatomicRegionSequence" in required_of(ds) and not ds.get("AnatomicRegionSequence"):
        _fill_region(ds)


def _fill_region(ds: Dataset) -> None:
    """An empty AnatomicRegionSequence (type 2) from BodyPartExamined, where that has a code."""
    if (region := anatomic_region(str(ds.get("BodyPartExamined") or ""))) is None:
        return
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = region
    ds.AnatomicRegionSequence = [item]


def sane_window(ds: Dataset) -> bool:
    """Whether the windows are whole and can be used: as many centres as widths, each width 1 or more."""
    try:
        centres = [float(value) for value in _values(ds, "WindowCenter") if value]
        widths = [float(value) for value in _values(ds, "WindowWidth") if value]
    except ValueError:
        return False
    finite = all(math.isfinite(value) for value in (*centres, *widths))
    return finite and len(centres) == len(widths) and min(widths, default=1.0) >= 1


def _values(ds: Dataset, keyword: str) -> list[str]:
    value = ds.get(keyword)
    return [str(v) for v in value] if isinstance(value, MultiValue | list) else [str(value or "")]

"""What a validator lets pass and a viewer shows wrongly: frame order, regions, numbers, references.

Each rule stands for a picture that a radiologist would otherwise have seen in a common viewer.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

_GROUP = "125007"  # DCM, Measurement Group
_STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "IconImageSequence",
    "DigitalSignaturesSequence",
)
_POINTS_TO_SOURCES = (
    "SourceImageSequence",
    "ReferencedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence",
)


def referenced_uids(ds: Dataset) -> set[str]:
    """The SOP Instance UIDs that an object names as what it was made from or what it lies on."""
    found: set[str] = set()
    for keyword in _POINTS_TO_SOURCES:
        for item in ds.get(keyword, []):
            found.update(_uids_in(item))
    return found


def _uids_in(item: Dataset) -> Iterator[str]:
    for element in item.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)


def lint(ds: Dataset, known: Collection[str], frame_of_reference: str) -> list[str]:
    """What a viewer would trip over in one object, one sentence each.

    `known` are the SOP Instance UIDs that it may refer to: its source's and its own result's.
    """
    found = [f"{keyword} is a leftover of the source" for keyword in _STALE if keyword in ds]
    if unknown := referenced_uids(ds) - set(known):
        found.append(f"it refers to {len(unknown)} objects that are neither of its source nor of its result")
    own = str(ds.get("FrameOfReferenceUID", "") or "")
    if own and own != frame_of_reference:
        found.append("its frame of reference is not the source's: a viewer would not lay it over the image")
    match ds.SOPClassUID:
        case uid if uid == SegmentationStorage:
            found += _segmentation(ds)
        case uid if uid == ParametricMapStorage:
            found += _parametric(ds)
        case uid if uid == Comprehensive3DSRStorage:
            found += _report(ds)
        case uid if uid == SecondaryCaptureImageStorage and int(ds.get("NumberOfFrames") or 1) > 1:
            found.append("a capture of several frames needs the multi-frame SOP class")
    return found


def _segmentation(ds: Dataset) -> list[str]:
    found = []
    if ds.SegmentationType != "BINARY":
        found.append(f"SegmentationType {ds.SegmentationType} is not shown by common viewers")
    frames = len(ds.PerFrameFunctionalGroupsSequence)
    if frames != int(ds.NumberOfFrames) or not frames:
        found.append(f"NumberOfFrames is {ds.NumberOfFrames}, frames are described for {frames}")
    groups = (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence)
    used = {
        int(item.ReferencedSegmentNumber)
        for group in groups
        for item in group.get("SegmentIdentificationSequence", [])
    }
    listed = [int(item.SegmentNumber) for item in ds.SegmentSequence]
    if listed != list(range(1, len(listed) + 1)):
        found.append("segment numbers do not run from 1")
    if used != set(listed):
        found.append(f"segments {sorted(set(listed) ^ used)} are listed without a frame, or the reverse")
    if any("TrackingUID" not in item for item in ds.SegmentSequence):
        found.append("a segment has no TrackingUID")
    return found


def _parametric(ds: Dataset) -> list[str]:
    found = []
    heights = []
    for group in ds.PerFrameFunctionalGroupsSequence:
        shared = ds.SharedFunctionalGroupsSequence[0]
        oriented = group if "PlaneOrientationSequence" in group else shared
        cosines = np.asarray(oriented.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
        position = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        heights.append(float(np.cross(cosines[:3], cosines[3:]) @ position))
    if heights != sorted(heights):
        found.append("its frames do not ascend: viewers would show them on the wrong slices")
    values = np.frombuffer(ds.FloatPixelData, "<f4") if "FloatPixelData" in ds else np.zeros(0)
    if values.size != int(ds.NumberOfFrames) * int(ds.Rows) * int(ds.Columns):
        found.append("FloatPixelData has another size than Rows × Columns × NumberOfFrames")
    elif not np.isfinite(values).all():
        found.append("FloatPixelData holds values that are not finite")
    return found


def _report(ds: Dataset) -> list[str]:
    found = []
    if ds.get("ValueType") != "CONTAINER" or not ds.get("ContentSequence"):
        found.append("a report whose root holds nothing")
    evidence = {
        uid for item in ds.get("CurrentRequestedProcedureEvidenceSequence", []) for uid in _uids_in(item)
    }
    for group in _groups(ds):
        kinds = Counter(str(item.ValueType) for item in _tree(group))
        if not kinds["SCOORD"]:
            found.append("a measurement group has no image region: viewers blank the image over it")
        if not kinds["UIDREF"]:
            found.append("a measurement group has no tracking identifier")
        named = {uid for item in _tree(group) for uid in _uids_in(item)}
        if not named <= evidence:
            found.append("a measurement group lies on an image that the report does not list as evidence")
    return found


def _groups(ds: Dataset) -> Iterator[Dataset]:
    for item in _tree(ds):
        names = item.get("ConceptNameCodeSequence", [])
        if names and names[0].get("CodeValue") == _GROUP:
            yield item


def _tree(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence", []):
        yield item
        yield from _tree(item)


def lint_set(objects: Sequence[Dataset], source: Dataset) -> list[str]:
    """What is wrong with the objects of a result together: numbers that collide, one finding named twice."""
    found = []
    series: dict[str, set[str]] = {}
    for ds in objects:
        series.setdefault(str(ds.get("SeriesNumber", "")), set()).add(str(ds.SeriesInstanceUID))
    found += [
        f"{len(uids)} series share SeriesNumber {number}" for number, uids in series.items() if len(uids) > 1
    ]
    if str(source.get("SeriesNumber") or "") in series:
        found.append("a result has the SeriesNumber of its source")
    segments = {
        str(item.TrackingUID)
        for ds in objects
        if ds.SOPClassUID == SegmentationStorage
        for item in ds.SegmentSequence
    }
    reported = {
        str(item.UID)
        for ds in objects
        if ds.SOPClassUID == Comprehensive3DSRStorage
        for group in _groups(ds)
        for item in _tree(group)
        if item.ValueType == "UIDREF"
    }
    if segments and reported and not reported <= segments:
        found.append("a finding of the report is no segment of the segmentation")
    return found

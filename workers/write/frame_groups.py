"""What the functional groups of a derived multi-frame object must say: derived, and from which frame."""

from pydicom import Dataset

from workers.write.iod import module_keywords
from workers.write.provenance import code

_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def put_frame_derivation(ds: Dataset, source: Dataset) -> None:
    """FrameType DERIVED in every group, and a DerivationImageSequence a frame (PS3.3 C.7.6.16.2.6).

    What an image that is not ORIGINAL may not hold is taken out, as is a mapping to real world values
    that does not say what it maps to; a CT's RescaleType becomes HU, which it was read as.
    """
    if _OWN not in ds:
        return
    for keyword in module_keywords("mr-pulse-sequence", "bulk-motion-synchronization"):
        ds.pop(keyword, None)
    for group in (*ds.get(_SHARED, []), *ds.get(_OWN, [])):
        group.pop("DerivationImageSequence", None)
        for element in [e for e in group if e.VR == "SQ"]:
            if element.keyword.endswith("FrameTypeSequence"):
                for item in element.value:
                    item.FrameType = ["DERIVED", *list(item.get("FrameType") or [])[1:]]
            unsaid = [not item.get("LUTExplanation") for item in element.value]
            if element.keyword == "RealWorldValueMappingSequence" and any(unsaid):
                del group[element.tag]
            if element.keyword == "PixelValueTransformationSequence" and ds.get("Modality") == "CT":
                for item in element.value:
                    item.RescaleType = "HU"
    ds.SourceImageEvidenceSequence = [_evidence(source)]
    for number, group in enumerate(ds.get(_OWN, []), start=1):
        image = Dataset()
        image.ReferencedSOPClassUID = source.SOPClassUID
        image.ReferencedSOPInstanceUID = source.SOPInstanceUID
        image.ReferencedFrameNumber = number
        image.SpatialLocationsPreserved = "YES"
        image.PurposeOfReferenceCodeSequence = [
            code("121322", "DCM", "Source image for image processing operation")
        ]
        derivation = Dataset()
        derivation.SourceImageSequence = [image]
        derivation.DerivationCodeSequence = [code("113087", "DCM", "Smoothing")]
        group.DerivationImageSequence = [derivation]


def _evidence(source: Dataset) -> Dataset:
    image, series, study = Dataset(), Dataset(), Dataset()
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedSOPSequence = [image]
    study.StudyInstanceUID = source.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    return study


def same_places(ds: Dataset, source: Dataset) -> list[str]:
    """What differs in where the frames lie and how they are scaled, one sentence each."""
    found = []
    own, other = ds.get(_OWN, []), source.get(_OWN, [])
    if len(own) != len(other):
        return [f"{len(own)} frames are described, the source has {len(other)}"]
    pairs = [*zip(ds.get(_SHARED, []), source.get(_SHARED, []), strict=True), *zip(own, other, strict=True)]
    for keyword, values in _GEOMETRY.items():
        if any(_values(one, keyword, values) != _values(two, keyword, values) for one, two in pairs):
            found.append(f"{keyword} differs from the source's in a frame")
    return found


_GEOMETRY = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("DimensionIndexValues", "StackID", "InStackPositionNumber"),
}


def _values(group: Dataset, keyword: str, names: tuple[str, ...]) -> list[list[float | str]]:
    return [[_rounded(item.get(name)) for name in names] for item in group.get(keyword, [])]


def _rounded(value: object) -> str:
    """Numbers to 9 digits, which a DS of 16 characters keeps; anything else as it is."""
    listed = [value] if value is None or isinstance(value, str | int | float) else list(value)  # type: ignore[call-overload]  # a MultiValue
    return "\\".join(f"{v:.9g}" if isinstance(v, float) else str(v) for v in listed)

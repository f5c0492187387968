"""What every object of a result that is no copy of its source says: whose it is, who made it, when.

The writers of highdicom copy their own choice of the source's attributes; what is set here replaces
it, so that patient and study are the source's own in every object, in UTF-8.
"""

from datetime import datetime

from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from node.entities import CONTRIBUTING_MANUFACTURER
from workers.write.header import (
    fill_type_2,
    local_time,
    put_dates,
    series_description,
    series_number,
    taken_over,
)
from workers.write.iod import iod_of, module_keywords
from workers.write.provenance import Provenance, contributing_equipment, put_superseded
from workers.write.repair import IDENTITY

# SeriesNumber of a result: the source's × 100 + this.
OFFSETS = {
    "derived": 1,
    "capture": 2,
    "segmentation": 3,
    "report": 4,
    "parametric": 5,
    "presentation": 6,
    "keys": 7,
    "notice": 9,
}
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


def dress(
    ds: Dataset, role: str, source: Dataset, provenance: Provenance, now: datetime, what: str
) -> list[str]:
    """Put patient, study, series, equipment and dates on a new object; the keywords left out as faulty.

    `what` says in a few words what was made, for SeriesDescription and the equipment entry.
    """
    kept, faulty = taken_over(source, module_keywords(*_MODULES) | _SERIES_KEPT)
    iod = iod_of(str(ds.SOPClassUID))
    for keyword in IDENTITY:
        ds.pop(keyword, None)
    for element in kept:
        if iod is None or element.keyword in iod.keywords | {"ContributingEquipmentSequence"}:
            ds[element.tag] = element
    local_now = local_time(source, now)
    equipment = what.capitalize() if role == "capture" else f"Anomaly {what}"
    put_dates(ds, local_now, series=True)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SeriesNumber = series_number(source, OFFSETS[role])
    part = f", {provenance.part}" if provenance.part else ""
    ds.SeriesDescription = series_description(source, f"AI {what} {provenance.algorithm}{part}")
    if source.get("ImageLaterality") in ("L", "R") and iod is not None and "Laterality" in iod.keywords:
        ds.Laterality = source.ImageLaterality
    if ds.SOPClassUID == SegmentationStorage and not ds.get("Laterality"):
        ds.pop("Laterality", None)  # what is segmented is of no known part that might be paired
    ds.Manufacturer, ds.ManufacturerModelName = CONTRIBUTING_MANUFACTURER, provenance.algorithm[:64]
    ds.SoftwareVersions = [provenance.program[:64], provenance.weights]
    ds.ContributingEquipmentSequence = [
        *kept.get("ContributingEquipmentSequence", []),
        contributing_equipment(provenance, local_now, equipment),
    ]
    put_superseded(ds, provenance)
    for keyword in ("ContentDate", "ContentTime", "SeriesDate", "SeriesTime"):
        if iod is not None and keyword not in iod.keywords and keyword in ds:
            del ds[keyword]
    if "ContentLabel" in ds and "ContentCreatorName" not in ds:
        ds.ContentCreatorName = None  # type 2 of the Content Identification macro
    fill_type_2(ds)
    return faulty

"""What the standard says an object must and may hold: the IOD tables of PS3.3 that highdicom ships."""

from dataclasses import dataclass
from functools import cache

# highdicom keeps these tables behind an underscore; pyproject.toml pins its minor version, and a
# test reads them, so that a move is noticed. No other library ships them without a download.
from highdicom._standard_utils import (
    get_anatomic_region_map,
    get_iod_module_map,
    get_module_attribute_map,
    get_sop_class_iod_map,
)
from pydicom import Dataset

# Of type 2 in PET, where PatientPosition may stand for them and then excludes them (PS3.3 C.8.4.6).
_INSTEAD_OF_POSITION = frozenset({"PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"})


@dataclass(frozen=True, slots=True)
class Iod:
    """One information object definition, top level only."""

    name: str
    keywords: frozenset[str]  # every attribute of every module
    required: dict[str, str]  # keyword -> "1" or "2" by the mandatory modules, the stricter one


@cache
def iod_of(sop_class_uid: str) -> Iod | None:
    """The IOD of a storage SOP class, or None where the tables do not have it."""
    name = get_sop_class_iod_map().get(sop_class_uid)
    if name is None:
        return None
    keywords: set[str] = set()
    required: dict[str, str] = {}
    for module in get_iod_module_map()[name]:
        for attribute in get_module_attribute_map()[module["key"]]:
            if attribute["path"]:
                continue
            keyword, kind = attribute["keyword"], attribute["type"]
            keywords.add(keyword)
            if module["usage"] == "M" and kind in ("1", "2"):
                required[keyword] = min(kind, required.get(keyword, kind))
    return Iod(name, frozenset(keywords), required)


def required_of(ds: Dataset) -> dict[str, str]:
    """The attributes that an object must have, with their type 1 or 2; empty for an unknown SOP class."""
    iod = iod_of(str(ds.get("SOPClassUID", "")))
    required = iod.required if iod else {}
    if "PatientPosition" in ds:
        return {keyword: kind for keyword, kind in required.items() if keyword not in _INSTEAD_OF_POSITION}
    return required


@cache
def module_keywords(*modules: str) -> frozenset[str]:
    """The top-level attributes of some modules, by highdicom's module keys ("patient", "general-study")."""
    tables = get_module_attribute_map()
    return frozenset(a["keyword"] for module in modules for a in tables[module] if not a["path"])


@cache
def unpaired_body_parts() -> frozenset[str]:
    """The values of BodyPartExamined that name an unpaired structure (PS3.16 annex L)."""
    return frozenset(part for part, (_, paired) in get_anatomic_region_map().items() if not paired)

"""What the standard says an object must and may hold: the IOD tables of PS3.3 that highdicom ships."""

from collections.abc import Iterator
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
from pydicom.uid import NuclearMedicineImageStorage

# Its table lists the rows of all value types of a recursive tree, so that no row is one of each item.
_OPEN = frozenset({"sr-document-content"})
_FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Of type 2 in PET, where PatientPosition may stand for them and then excludes them (PS3.3 C.8.4.6).
INSTEAD_OF_POSITION = frozenset({"PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"})


@dataclass(frozen=True, slots=True)
class Iod:
    """One information object definition, top level only."""

    name: str
    keywords: frozenset[str]  # every attribute of every module
    required: dict[str, str]  # keyword -> "1" or "2" by the mandatory modules, the stricter one
    # (path of sequences, keyword) of what items of mandatory modules must hold with a value (type 1)
    nested: tuple[tuple[tuple[str, ...], str], ...] = ()
    may_be_empty: frozenset[str] = frozenset()  # of type 2 in any module, mandatory or not


@cache
def iod_of(sop_class_uid: str) -> Iod | None:
    """The IOD of a storage SOP class, or None where the tables do not have it."""
    name = get_sop_class_iod_map().get(sop_class_uid)
    if name is None:
        return None
    keywords: set[str] = set()
    required: dict[str, str] = {}
    nested: set[tuple[tuple[str, ...], str]] = set()
    empty: set[str] = set()
    for module in get_iod_module_map()[name]:
        for attribute in get_module_attribute_map()[module["key"]]:
            keyword, kind = attribute["keyword"], attribute["type"]
            if attribute["path"]:
                # A functional group may stand in the shared or the per-frame item, or be optional.
                group = len(attribute["path"]) == 1 and attribute["path"][0] in _FRAME_GROUPS
                if module["usage"] == "M" and kind == "1" and not group and module["key"] not in _OPEN:
                    nested.add((tuple(attribute["path"]), keyword))
                continue
            keywords.add(keyword)
            if kind == "2":
                empty.add(keyword)
            if module["usage"] == "M" and kind in ("1", "2") and module["key"] not in _OPEN:
                required[keyword] = min(kind, required.get(keyword, kind))
    return Iod(name, frozenset(keywords), required, tuple(sorted(nested)), frozenset(empty))


def faults_in_items(ds: Dataset) -> list[str]:
    """Attributes of type 1 that are missing or empty within sequences, by the mandatory modules."""
    iod = iod_of(str(ds.get("SOPClassUID", "")))
    found = set()
    for path, keyword in iod.nested if iod else ():
        for item in _items(ds, path):
            if keyword not in item or item[keyword].is_empty:
                found.add(f"{keyword} is missing or empty in {'.'.join(path)} (type 1)")
    return sorted(found)


def _items(ds: Dataset, path: tuple[str, ...]) -> Iterator[Dataset]:
    if not path:
        yield ds
        return
    for item in ds.get(path[0]) or []:
        yield from _items(item, path[1:])


def required_of(ds: Dataset) -> dict[str, str]:
    """The attributes that an object must have, with their type 1 or 2; empty for an unknown SOP class."""
    iod = iod_of(str(ds.get("SOPClassUID", "")))
    required = dict(iod.required) if iod else {}
    for module in _conditional_modules(ds):
        required |= {
            attribute["keyword"]: attribute["type"]
            for attribute in get_module_attribute_map()[module]
            if not attribute["path"] and attribute["type"] in ("1", "2")
        }
    if "PatientPosition" in ds:
        required = {word: kind for word, kind in required.items() if word not in INSTEAD_OF_POSITION}
    return required


def _conditional_modules(ds: Dataset) -> list[str]:
    """Modules that an NM object must have by value 3 of its ImageType (PS3.3 table A.5-1)."""
    words = ds.get("ImageType") or []
    if ds.get("SOPClassUID") != NuclearMedicineImageStorage or len(words) < 3 or "TOMO" not in words[2]:
        return []
    return ["nm-tomo-acquisition", *(["nm-reconstruction"] if "RECON" in words[2] else [])]


@cache
def module_keywords(*modules: str) -> frozenset[str]:
    """The top-level attributes of some modules, by highdicom's module keys ("patient", "general-study")."""
    tables = get_module_attribute_map()
    return frozenset(a["keyword"] for module in modules for a in tables[module] if not a["path"])


@cache
def unpaired_body_parts() -> frozenset[str]:
    """The values of BodyPartExamined that name an unpaired structure (PS3.16 annex L)."""
    return frozenset(part for part, (_, paired) in get_anatomic_region_map().items() if not paired)


@cache
def anatomic_region(body_part: str, *, unpaired: bool = False) -> tuple[str, str, str] | None:
    """Code value, scheme and meaning of a BodyPartExamined (PS3.16 annex L), or None where it has none."""
    code, paired = get_anatomic_region_map().get(body_part, (None, True))
    if code is None or (paired and unpaired):
        return None
    return str(code.value), str(code.scheme_designator), str(code.meaning)

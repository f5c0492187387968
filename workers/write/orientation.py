"""PatientPosition against the codes that stand for it in PET and nuclear medicine (PS3.3 C.7.3.1, C.8.4.6).

The standard rules PatientPosition out where PatientOrientationCodeSequence is present, and scanners write
both. It is left out where the codes say the same, so that nothing is lost; where they say less or
another thing, both stay as the source has them.
"""

from pydicom import Dataset

# Code values of PS3.16 CID 20 and CID 21, of SNOMED CT and of its older SRT and SDM.
_LYING = {
    "40199007": "S",
    "F-10340": "S",
    "1240000": "P",
    "F-10310": "P",
    "102535000": "DR",
    "F-10317": "DR",
    "102536004": "DL",
    "F-10319": "DL",
}
_FIRST = {"102540008": "HF", "F-10470": "HF", "102541007": "FF", "F-10480": "FF"}


def position_by_codes(ds: Dataset) -> str:
    """The PatientPosition that the codes amount to; empty where they do not say one."""
    lying = [
        _LYING.get(str(modifier.get("CodeValue", "")), "")
        for item in ds.get("PatientOrientationCodeSequence") or []
        for modifier in item.get("PatientOrientationModifierCodeSequence") or []
    ]
    first = [
        _FIRST.get(str(item.get("CodeValue", "")), "")
        for item in ds.get("PatientGantryRelationshipCodeSequence") or []
    ]
    return first[0] + lying[0] if len(lying) == len(first) == 1 and lying[0] and first[0] else ""


def is_said_twice(ds: Dataset) -> bool:
    """Whether PatientPosition repeats what the codes say."""
    position = str(ds.get("PatientPosition") or "").strip()
    return bool(position) and position == position_by_codes(ds)

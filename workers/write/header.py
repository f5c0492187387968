"""The header of a result: what is taken over from the source, what never is, and what is added.

Text is decoded by the source's character set first and written as UTF-8 (ISO_IR 192), so names stay
what they are. Only attributes of the object's own IOD are taken over, with a few that vendors add
and viewers need; private attributes only where an allow-list names them.
"""

import copy
import re
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta, timezone

from pydicom import DataElement, Dataset, config
from pydicom.charset import decode_element
from pydicom.datadict import keyword_for_tag
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sequence import Sequence

from workers.write.iod import iod_of, required_of
from workers.write.repair import repair, settle_conditions

# Stale, false or meaningless in a new object (PS3.3 C.7.6.1, C.12.1; PS3.15 for the signatures).
NEVER_COPIED = frozenset(
    {
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "DataSetTrailingPadding",
        "PixelDataProviderURL",
        "IconImageSequence",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
        "SmallestImagePixelValueInPlane",
        "LargestImagePixelValueInPlane",
        "DigitalSignaturesSequence",
        "MACParametersSequence",
        "EncryptedAttributesSequence",
        "SOPInstanceStatus",
        "SOPAuthorizationDateTime",
        "SOPAuthorizationComment",
        "AuthorizationEquipmentCertificationNumber",
        "InstanceCreatorUID",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "InstanceCoercionDateTime",
        "ContentDate",
        "ContentTime",
        "SeriesDate",
        "SeriesTime",
        "ReferencedPerformedProcedureStepSequence",
        "PerformedProcedureStepID",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepEndDate",
        "PerformedProcedureStepEndTime",
        "PerformedProcedureStepDescription",
        "PerformedProtocolCodeSequence",
        "ImageComments",
        "DerivationDescription",
        "DerivationCodeSequence",
        "SourceImageSequence",
        "ReferencedSeriesSequence",
        "StudiesContainingOtherReferencedInstancesSequence",
        "ConversionSourceAttributesSequence",
        "RetrieveAETitle",
        "RetrieveURL",
        "InstanceAvailability",
        "StorageMediaFileSetID",
        "StorageMediaFileSetUID",
        "QueryRetrieveLevel",
    }
)

_FARTHEST_ZONE = 14 * 60  # minutes from UTC, either way
# Not in the classic IODs, yet written there by vendors and read by viewers.
EXTENDED_KEPT = frozenset(
    {
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "ModalityLUTSequence",
        "DiffusionBValue",
        "DiffusionGradientOrientation",
        "DiffusionDirectionality",
        "DiffusionBMatrixSequence",
        "FrameReferenceTime",
        "SUVType",
        "ContrastBolusAgent",
    }
)

# (private creator, group) -> element numbers within the creator's block that a viewer needs.
PRIVATE_KEPT: dict[tuple[str, int], frozenset[int]] = {
    ("GEMS_PETD_01", 0x0009): frozenset({0x0D, 0x3B, 0x3C}),  # scan, administration and measurement time
    ("Philips PET Private Group", 0x7053): frozenset({0x00, 0x09}),  # SUV and activity scale factors
    ("SIEMENS MR HEADER", 0x0019): frozenset({0x0C, 0x0E, 0x27}),  # b value, direction, b matrix
    ("GEMS_PARM_01", 0x0043): frozenset({0x39}),  # b value
}

_LONGEST = 63  # characters of an LO value (PS3.5 6.2), with room for the blank that pads it to even bytes


def taken_over(source: Dataset, keywords: Collection[str] | None = None) -> tuple[Dataset, list[str]]:
    """A copy of what a result may hold of its source, in UTF-8, and the keywords left out for a fault.

    With `keywords` only those attributes; else those of the source's own IOD. Attributes with a value
    that their VR does not allow are repaired where that changes nothing, else left out and named.
    """
    iod = iod_of(str(source.SOPClassUID))
    wanted = (iod.keywords | EXTENDED_KEPT if iod else EXTENDED_KEPT) if keywords is None else keywords
    target = Dataset()
    faulty: list[str] = []
    with config.disable_value_validation():
        for tag in list(source.keys()):
            if tag.is_private or tag.group < 0x0008 or tag.group & 0xFF00 in (0x5000, 0x6000):
                continue
            keyword = keyword_for_tag(tag)
            if keyword in wanted and keyword not in NEVER_COPIED:
                target[tag] = copy.deepcopy(source[tag])
        if keywords is None:
            for element in _private_kept(source):
                target[element.tag] = copy.deepcopy(element)
        _decode(target, source.get("SpecificCharacterSet", "ISO_IR 6") or "ISO_IR 6")
        little = source.original_encoding[1] is not False
        correct_ambiguous_vr(target, little)
        repair(target, faulty)
        settle_conditions(target, faulty)
    target.SpecificCharacterSet = "ISO_IR 192"
    return target, sorted(set(faulty))


def _private_kept(source: Dataset) -> Iterator[DataElement]:
    """The allowed private elements with the creator elements that reserve their blocks (PS3.5 7.8)."""
    for (creator, group), elements in PRIVATE_KEPT.items():
        try:
            block = source.private_block(group, creator)
        except KeyError:
            continue
        found = [number for number in sorted(elements) if number in block]
        if found:
            yield source[group, block.block_start >> 8]
        for number in found:
            yield block[number]


def _decode(ds: Dataset, character_set: str | list[str]) -> None:
    """Turn every text into decoded str, items with a character set of their own by that one."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                _decode(item, item.get("SpecificCharacterSet", character_set) or character_set)
                item.pop("SpecificCharacterSet", None)
        else:
            decode_element(element, character_set)


def fill_type_2(ds: Dataset) -> None:
    """Add, empty, the attributes that the IOD's mandatory modules want present (type 2, PS3.5 7.4)."""
    for keyword, kind in required_of(ds).items():
        if kind == "2" and keyword not in ds:
            setattr(ds, keyword, Sequence() if keyword.endswith("Sequence") else None)


def local_time(source: Dataset, now: datetime) -> datetime:
    """`now` on the source's clock: its TimezoneOffsetFromUTC, else this machine's (PS3.3 C.12.1)."""
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", str(source.get("TimezoneOffsetFromUTC") or "").strip())
    if offset is None:
        return now.astimezone()
    minutes = int(offset[2]) * 60 + int(offset[3])
    if minutes > _FARTHEST_ZONE:
        return now.astimezone()
    return now.astimezone(timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)))


def put_dates(ds: Dataset, local_now: datetime, *, series: bool) -> None:
    """Creation and content time, and the series' own unless its time is the source's (PET)."""
    date, time = local_now.strftime("%Y%m%d"), local_now.strftime("%H%M%S.%f")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.ContentDate, ds.ContentTime = date, time
    if series:
        ds.SeriesDate, ds.SeriesTime = date, time


def series_number(source: Dataset, n: int) -> int:
    """Source × 100 + n, within the range of an IS value; 9900 + n where the source has none."""
    try:
        number = int(source.SeriesNumber)
    except (AttributeError, TypeError, ValueError):
        return 9900 + n
    if not -(2**31) // 100 < number < 2**31 // 100 - 1:
        number %= 10**7
    return number * 100 + n


def series_description(source: Dataset, label: str) -> str:
    """`<source> [label]`, at most 63 characters; the source's part gives way."""
    tail = f"[{label[: _LONGEST - 2]}]"
    original = re.sub(r"[\x00-\x1f\\]", " ", str(source.get("SeriesDescription") or "")).strip()
    original = original[: max(0, _LONGEST - len(tail) - 1)].rstrip()
    return f"{original} {tail}".strip()

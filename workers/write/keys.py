"""The findings' key slices as a Key Object Selection (PS3.3 A.35.4)."""

from datetime import datetime
from pathlib import Path

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext

from node.entities import CONTRIBUTING_MANUFACTURER
from node.job import ProducedArtifact
from workers.write import coding
from workers.write.dressing import dress
from workers.write.evidence import evidence_of
from workers.write.findings import Marked
from workers.write.part10 import save
from workers.write.provenance import NOT_FOR_DIAGNOSIS, result_uid


def write_keys(found: Marked, folder: Path, now: datetime) -> list[ProducedArtifact]:
    """Write one object to `folder`/keys; none where nothing was found."""
    if not found.findings:
        return []
    volume, provenance = found.volume, found.provenance
    keys = sorted({finding.key for finding in found.findings})
    evidence = evidence_of(volume, keys)
    device = DeviceObserverIdentifyingAttributes(
        uid=result_uid("device", provenance, "", "", ""),
        name=CONTRIBUTING_MANUFACTURER,
        manufacturer_name=CONTRIBUTING_MANUFACTURER,
        model_name=provenance.algorithm,
    )
    content = KeyObjectSelection(
        coding.OF_INTEREST,
        evidence,
        observer_device_context=ObserverContext(coding.DEVICE, device),
        description=(
            f"AI, {NOT_FOR_DIAGNOSIS}. Key slices of {len(found.findings)} regions at or above "
            f"{found.scores.threshold:.2f} SD. {provenance.algorithm}."
        ),
    )
    ds = KeyObjectSelectionDocument(
        evidence,
        content,
        series_instance_uid=found.uid("keys", "series"),
        series_number=1,
        sop_instance_uid=found.uid("keys", "object"),
        instance_number=1,
        manufacturer=CONTRIBUTING_MANUFACTURER,
    )
    for item in ds.ContentSequence:
        if item.ValueType == "IMAGE":
            item.pop("ConceptNameCodeSequence", None)  # TID 2010 gives image references no name
            if volume.frames is not None:
                numbers = [int(volume.frames[key]) for key in keys]
                item.ReferencedSOPSequence[0].ReferencedFrameNumber = numbers
    dress(ds, "keys", volume.headers[keys[0]], provenance, now, "key images")
    return [save(ds, folder, Path("keys/0001.dcm"), "keys")]

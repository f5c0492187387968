"""The regions of an anomaly map as a BINARY Segmentation (PS3.3 A.51): one segment a finding."""

from datetime import datetime
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription

from node.job import ProducedArtifact
from workers.write.coding import ABNORMAL_STRUCTURE, ARTIFICIAL_INTELLIGENCE
from workers.write.dressing import dress
from workers.write.evidence import evidence_of, in_frame_order, put_frame_numbers
from workers.write.findings import Marked
from workers.write.part10 import save
from workers.write.provenance import NOT_FOR_DIAGNOSIS

# Evenly spread hues of one lightness (CIELab, chroma 70), so that neighbours in number differ.
_LIGHTNESS, _CHROMA, _GOLDEN = 70.0, 70.0, 137.5


def write_segmentation(found: Marked, folder: Path, now: datetime) -> list[ProducedArtifact]:
    """Write one object to `folder`/segmentation; none where nothing was found."""
    if not found.findings:
        return []
    volume = found.volume
    slices = [int(index) for index in np.flatnonzero(found.labels.any(axis=(1, 2)))]
    evidence = evidence_of(volume, slices)
    ds = Segmentation(
        evidence,
        in_frame_order(volume, found.labels if volume.whole is not None else found.labels[slices]),
        "BINARY",
        _segments(found),
        series_instance_uid=found.uid("segmentation", "series"),
        series_number=1,
        sop_instance_uid=found.uid("segmentation", "object"),
        instance_number=1,
        manufacturer="",
        manufacturer_model_name="",
        software_versions="",
        device_serial_number=found.provenance.weights_sha256[:16],
        content_description=f"AI, {NOT_FOR_DIAGNOSIS}"[:64],
        content_label="AI_ANOMALY",
    )
    put_frame_numbers(ds, volume)
    dress(ds, "segmentation", volume.headers[slices[0]], found.provenance, now, "regions")
    return [save(ds, folder, Path("segmentation/0001.dcm"), "segmentation")]


def _segments(found: Marked) -> list[SegmentDescription]:
    algorithm = AlgorithmIdentificationSequence(
        name=found.provenance.model,
        family=ARTIFICIAL_INTELLIGENCE,
        version=found.provenance.version,
        source=found.provenance.program,
        parameters={"threshold": f"{found.scores.threshold:.3f} SD", "weights": found.provenance.weights},
    )
    words = [
        (f.number, f"Region {f.number}, score {f.peak:.1f}", f.tracking_uid, f.tracking_id)
        for f in found.findings
    ]
    if found.further:
        number = len(words) + 1
        words.append((number, f"{found.further} further regions", found.uid("finding", "further"), "further"))
    return [
        SegmentDescription(
            number,
            label,
            ABNORMAL_STRUCTURE,
            ABNORMAL_STRUCTURE,
            "AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=uid,
            tracking_id=name,
            display_color=_colour(number),
        )
        for number, label, uid, name in words
    ]


def _colour(number: int) -> CIELabColor:
    hue = np.radians(40 + _GOLDEN * (number - 1))
    return CIELabColor(_LIGHTNESS, _CHROMA * float(np.cos(hue)), _CHROMA * float(np.sin(hue)))

"""The findings as a Comprehensive 3D SR: TID 1500 with one planar TID 1410 group a finding.

IHE AI Results wants this root, SCOORD image regions, tracking identifiers and the algorithm's
identification. Each group lies on the finding's key slice and has the TrackingUID of its segment.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from highdicom import sr
from numpy.typing import NDArray

from node.entities import CONTRIBUTING_MANUFACTURER
from node.job import ProducedArtifact
from workers.write import coding
from workers.write.dressing import dress
from workers.write.evidence import evidence_of
from workers.write.findings import Finding, Marked
from workers.write.part10 import save
from workers.write.provenance import result_uid

MOST_POINTS = 200  # of an outline; a viewer redraws them at every mouse move


def write_report(found: Marked, folder: Path, now: datetime) -> list[ProducedArtifact]:
    """Write one object to `folder`/report; none where nothing was found."""
    if not found.findings:
        return []
    volume, provenance = found.volume, found.provenance
    keys = sorted({finding.key for finding in found.findings})
    evidence = evidence_of(volume, keys)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=result_uid("device", provenance, "", "", ""),
        name=CONTRIBUTING_MANUFACTURER,
        manufacturer_name=CONTRIBUTING_MANUFACTURER,
        model_name=provenance.algorithm,
        serial_number=provenance.weights_sha256[:16],
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(coding.DEVICE, device)
        ),
        procedure_reported=coding.PROCEDURES.get(volume.modality, coding.IMAGING_PROCEDURE),
        imaging_measurements=[_group(found, finding) for finding in found.findings],
        title=coding.MEASUREMENT_REPORT,
    )
    ds = sr.Comprehensive3DSR(
        evidence,
        content[0],
        series_instance_uid=found.uid("report", "series"),
        series_number=1,
        sop_instance_uid=found.uid("report", "object"),
        instance_number=1,
        manufacturer=CONTRIBUTING_MANUFACTURER,
        is_complete=True,
    )
    source = volume.headers[keys[0]]
    dress(ds, "report", source, provenance, now, "findings")
    ds.ReferencedPerformedProcedureStepSequence = []
    return [save(ds, folder, Path("report/0001.dcm"), "report")]


def _group(found: Marked, finding: Finding) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    provenance = found.provenance
    source = found.volume.headers[finding.key]
    measurements = [
        sr.Measurement(coding.Z_SCORE, round(finding.peak, 3), coding.NO_UNITS, derivation=coding.MAXIMUM),
        sr.Measurement(coding.AREA, round(finding.area_mm2, 2), coding.MM2),
    ]
    if finding.volume_mm3 is not None:
        measurements.append(sr.Measurement(coding.VOLUME, round(finding.volume_mm3, 1), coding.MM3))
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(finding.tracking_uid, finding.tracking_id),
        referenced_region=sr.ImageRegion(
            "POLYLINE",
            thinned(finding.outline),
            sr.SourceImageForRegion(
                source.SOPClassUID, source.SOPInstanceUID, found.volume.frame_numbers(finding.key)
            ),
        ),
        finding_type=coding.ABNORMAL_STRUCTURE,
        algorithm_id=sr.AlgorithmIdentification(
            provenance.model,
            provenance.version,
            parameters=[f"threshold {found.scores.threshold:.3f} SD", provenance.weights],
            family=coding.ARTIFICIAL_INTELLIGENCE,
        ),
        measurements=measurements,
    )


def thinned(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed line (N, 2) of at most MOST_POINTS + 1 points, evenly chosen, first and last the same."""
    if len(outline) <= MOST_POINTS + 1:
        return outline
    chosen = np.linspace(0, len(outline) - 1, MOST_POINTS + 1).round().astype(int)
    return np.asarray(outline[chosen])

"""The findings' outlines on their key slices as a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from datetime import datetime
from pathlib import Path

from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)

from node.job import ProducedArtifact
from workers.write.dressing import dress
from workers.write.evidence import evidence_of
from workers.write.findings import Finding, Marked
from workers.write.header import local_time
from workers.write.part10 import save
from workers.write.provenance import NOT_FOR_DIAGNOSIS
from workers.write.report import thinned

_AMBER = CIELabColor(80.0, 12.0, 70.0)


def write_presentation(found: Marked, folder: Path, now: datetime) -> list[ProducedArtifact]:
    """Write one object to `folder`/presentation; none where nothing was found."""
    if not found.findings:
        return []
    volume, provenance = found.volume, found.provenance
    layer = GraphicLayer("AI", 1, description=f"AI regions, {NOT_FOR_DIAGNOSIS}", display_color=_AMBER)
    keys = sorted({finding.key for finding in found.findings})
    evidence = evidence_of(volume, keys)
    local_now = local_time(volume.headers[keys[0]], now)
    annotations = []
    for place, key in enumerate(keys):
        findings = [finding for finding in found.findings if finding.key == key]
        numbers = volume.frame_numbers(key)
        annotations.append(
            GraphicAnnotation(
                [evidence[0 if volume.whole is not None else place]],
                layer,
                referenced_frame_number=numbers,
                graphic_objects=[_line(finding) for finding in findings],
                text_objects=[_words(finding) for finding in findings],
            )
        )
    ds = GrayscaleSoftcopyPresentationState(
        evidence,
        series_instance_uid=found.uid("presentation", "series"),
        series_number=1,
        sop_instance_uid=found.uid("presentation", "object"),
        instance_number=1,
        manufacturer="",
        manufacturer_model_name="",
        software_versions="",
        device_serial_number=provenance.weights_sha256[:16],
        content_label="AI_ANOMALY",
        content_description=f"AI, {NOT_FOR_DIAGNOSIS}"[:64],
        graphic_annotations=annotations,
        graphic_layers=[layer],
    )
    dress(ds, "presentation", volume.headers[keys[0]], provenance, now, "outlines")
    ds.PresentationCreationDate = local_now.strftime("%Y%m%d")
    ds.PresentationCreationTime = local_now.strftime("%H%M%S.%f")
    return [save(ds, folder, Path("presentation/0001.dcm"), "presentation")]


def _line(finding: Finding) -> GraphicObject:
    return GraphicObject(
        "POLYLINE",
        thinned(finding.outline),
        "PIXEL",
        tracking_id=finding.tracking_id,
        tracking_uid=finding.tracking_uid,
    )


def _words(finding: Finding) -> TextObject:
    """The number and score at the right-hand end of the outline."""
    x, y = finding.outline[finding.outline[:, 0].argmax()]
    return TextObject(
        f"AI {finding.number}: score {finding.peak:.1f}",
        "PIXEL",
        anchor_point=(float(x), float(y)),
        anchor_point_visible=True,
    )

"""The score of every evaluated pixel as a float32 Parametric Map (PS3.3 A.75).

highdicom writes frames in descending order along the normal; viewers that take frame order for slice
order (OHIF 3.13) then paint them on the wrong slices. They are put into ascending order here.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.sequence import Sequence

from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from workers.write import coding
from workers.write.dressing import dress
from workers.write.evidence import evidence_of, in_frame_order, put_frame_numbers
from workers.write.findings import Marked
from workers.write.header import local_time
from workers.write.iod import anatomic_region
from workers.write.part10 import save
from workers.write.provenance import NOT_FOR_DIAGNOSIS, code


def write_parametric(found: Marked, folder: Path, now: datetime) -> list[ProducedArtifact]:
    """Write the map of all slices to `folder`/parametric."""
    volume = found.volume
    evidence = evidence_of(volume, range(len(volume.headers)))
    score = in_frame_order(volume, found.scores.score.astype(np.float32))
    low, high = float(score.min()), float(score.max())
    mapping = RealWorldValueMapping(
        lut_label="SD",
        lut_explanation="Standard deviations of normal people",
        unit=coding.NO_UNITS,
        value_range=(low, max(high, low + 1)),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coding.SALIENCY,
    )
    ds = ParametricMap(
        evidence,
        score,
        series_instance_uid=found.uid("parametric", "series"),
        series_number=1,
        sop_instance_uid=found.uid("parametric", "object"),
        instance_number=1,
        manufacturer="",
        manufacturer_model_name="",
        software_versions="",
        device_serial_number=found.provenance.weights_sha256[:16],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=found.scores.threshold * 1.5, window_width=found.scores.threshold * 3
            )
        ],
        content_description=f"AI, {NOT_FOR_DIAGNOSIS}"[:64],
        content_label="AI_SCORE",
    )
    put_frame_numbers(ds, volume)
    in_ascending_order(ds)
    source = volume.headers[len(volume.headers) // 2]
    dress(ds, "parametric", source, found.provenance, now, "score")
    put_anatomy(ds, str(source.get("BodyPartExamined") or ""))
    ds.TimezoneOffsetFromUTC = local_time(source, now).strftime("%z")
    return [save(ds, folder, Path("parametric/0001.dcm"), "parametric")]


def put_anatomy(ds: Dataset, body_part: str) -> None:
    """FrameAnatomySequence of an unpaired body part; dcmqi cannot read a map without it."""
    if (region := anatomic_region(body_part, unpaired=True)) is None:
        return
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = [code(*region)]
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]


def in_ascending_order(ds: Dataset) -> None:
    """Sort the frames along the normal of the stack, and number their dimension by it."""
    groups = list(ds.PerFrameFunctionalGroupsSequence)
    heights = [_height(ds, group) for group in groups]
    order = np.argsort(heights, kind="stable")
    shape = (len(groups), int(ds.Rows), int(ds.Columns))
    pixels = np.frombuffer(ds.FloatPixelData, "<f4")
    if pixels.size != np.prod(shape):
        raise ArtifactRefused([f"a parametric map of {pixels.size} values has {shape} pixels"])
    ds.FloatPixelData = np.ascontiguousarray(pixels.reshape(shape)[order]).tobytes()
    ds.PerFrameFunctionalGroupsSequence = Sequence([groups[index] for index in order])
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = [number]


def _height(ds: Dataset, group: Dataset) -> float:
    shared = ds.SharedFunctionalGroupsSequence[0]
    place = group if "PlaneOrientationSequence" in group else shared
    cosines = np.asarray(place.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
    position = np.asarray(group.PlanePositionSequence[0].ImagePositionPatient, np.float64)
    return float(np.cross(cosines[:3], cosines[3:]) @ position)

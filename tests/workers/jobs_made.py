"""Jobs as the router makes them, with their files in a data folder."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydicom.dataset import FileDataset

from node.job import JobSpec, Output, PipelineSpec, SourceInstance
from tests import series as made


def job(
    data: Path,
    images: Sequence[FileDataset],
    model: Path | str,
    *,
    outputs: tuple[Output, ...] = ("derived",),
    strength: float = 0.5,
    name: str = "job",
    time_limit: int = 120,
) -> JobSpec:
    """A job on these images, written below `data`."""
    paths = made.write(data / "spool" / name, images)
    return JobSpec(
        job_id=sha256(name.encode()).hexdigest()[:32],
        series_instance_uid=images[0].SeriesInstanceUID,
        study_instance_uid=images[0].StudyInstanceUID,
        revision=1,
        pipeline=PipelineSpec(
            name="pipeline", model=str(model), outputs=outputs, strength=strength, limit_sigma=3.0
        ),
        instances=tuple(
            SourceInstance(sop_instance_uid=ds.SOPInstanceUID, path=path.relative_to(data).as_posix())
            for ds, path in zip(images, paths, strict=True)
        ),
        created_at=datetime.now(UTC),
        time_limit_seconds=time_limit,
    )

"""Records for tests of the index and the router: instances, associations, settings, a spool."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from pydicom.dataset import FileDataset
from pynetdicom.dsutils import encode

from node.config import IndexSettings, Node, Settings
from node.config_file import SettingsFile, load
from node.entities import Artifact, Instance, Job, SeriesRevision
from node.index import Index, NewJob
from node.job import JobSpec, PipelineSpec
from node.spool import Origin, Spool
from node.states import SeriesState

START = datetime(2026, 1, 2, 10, 0, tzinfo=UTC)
STUDY, SERIES = "1.2.3", "1.2.3.4"


def after(seconds: float) -> datetime:
    """So many seconds after the start of the test's day."""
    return START + timedelta(seconds=seconds)


def index_in(data: Path, url: str = "sqlite") -> Index:
    """An index of a data folder, on SQLite or where `url` says."""
    return Index.open(Settings(node=Node(data=data), index=IndexSettings(url=url)))


def instance(number: int, *, series: str = SERIES, content: str = "", **values: object) -> Instance:
    """Instance `number` of a series; another `content` is another sha256."""
    uid = f"{series}.{number}"
    fields: dict[str, object] = {
        "sop_instance_uid": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "series_instance_uid": series,
        "study_instance_uid": STUDY,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": PurePosixPath(f"spool/{uid}{content}.dcm"),
        "size": 1000,
        "sha256": hashlib.sha256(f"{uid}{content}".encode()).hexdigest(),
        "calling_ae": "CT1",
        "called_ae": "AENODE",
        "association": "a1",
        "received_at": after(number / 100),
    }
    return Instance(**(fields | values))  # type: ignore[arg-type]  # the fields are Instance's own


def frozen(index: Index, series: str = SERIES, count: int = 3, at: float = 10) -> SeriesRevision:
    """A COMPLETE revision of so many instances."""
    index.add_instances([instance(n, series=series) for n in range(count)])
    revision = next(r for r in index.series_in(SeriesState.RECEIVING) if r.series_instance_uid == series)
    index.move(revision, SeriesState.COMPLETE, after(at), "quiet")
    return index.series_revision(revision.id)


def new_job(revision: SeriesRevision, number: int = 1, send_to: tuple[str, ...] = ("archive",)) -> NewJob:
    """A job of a revision, with an id made of `number`."""
    spec = JobSpec(
        job_id=f"{revision.id:016x}{number:016x}",
        series_instance_uid=revision.series_instance_uid,
        study_instance_uid=revision.study_instance_uid,
        revision=revision.revision,
        pipeline=PipelineSpec(
            name="ct-denoise", model="ct-denoise", outputs=("derived",), strength=0.5, limit_sigma=3
        ),
        instances=(),
        created_at=START,
        time_limit_seconds=60,
    )
    return NewJob(spec=spec, rule="CT", send_to=send_to)


def queued_job(index: Index, series: str = SERIES, send_to: tuple[str, ...] = ("archive",)) -> Job:
    """A QUEUED job on a new frozen revision."""
    revision = frozen(index, series)
    new = new_job(revision, send_to=send_to)
    index.create_jobs(revision, [new], after(11), "rule CT", accession_number="ACC-1")
    job = index.job(new.spec.job_id)
    assert job is not None
    return job


def artifact(job: Job, number: int) -> Artifact:
    """Artifact `number` of a job."""
    return Artifact(
        sop_instance_uid=f"2.25.{int(job.id, 16)}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        series_instance_uid=f"2.25.{int(job.id, 16)}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        role="derived",
        path=PurePosixPath(f"results/{job.id}/{number}.dcm"),
        job_id=job.id,
    )


def spooled(
    data: Path, images: Sequence[FileDataset], *, calling_ae: str = "CT1", association: str = "a1"
) -> list[Instance]:
    """Images as the receiver keeps them: in the spool of a data folder, received at START."""
    spool = Spool(data)
    found = []
    for ds in images:
        encoded = encode(ds, is_implicit_vr=False, is_little_endian=True)
        assert encoded is not None
        origin = Origin(
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            calling_ae=calling_ae,
            called_ae="AENODE",
            association=association,
        )
        found.append(spool.store(encoded, origin, START))
    return found


CONFIG = """
[node]
data = "data"
[completion]
quiet_seconds = 5
quiet_seconds_open = 30
[workers]
attempts = 2
[[peers]]
name = "archive"
ae_title = "ARCHIVE"
address = "127.0.0.1:4242"
[[peers]]
name = "ct-1"
ae_title = "CT1"
address = "127.0.0.1:4243"
[[pipelines]]
name = "ct-denoise"
model = "ct-denoise"
outputs = ["derived"]
[[pipelines]]
name = "ct-anomaly"
model = "ct-anomaly"
outputs = ["capture"]
[[rules]]
name = "thin CT"
when = { Modality = "CT", SliceThickness = "<= 2.5", ImageType = "!~ LOCALIZER" }
pipelines = ["ct-denoise", "ct-anomaly"]
send_to = ["archive"]
"""


def settings_file(folder: Path, text: str = CONFIG) -> SettingsFile:
    """A settings file in a folder, with the data folder beside it."""
    path = folder / "config.toml"
    path.write_text(text)
    load(path).node.data.mkdir(exist_ok=True)
    return SettingsFile.open(path)

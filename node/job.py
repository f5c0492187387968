"""What crosses the broker and the result folder: the JobSpec out, the Manifest back.

Both are versioned JSON. Paths are POSIX and relative to the data folder, so that a worker on
another machine may mount it elsewhere.
"""

from datetime import datetime
from enum import IntEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

TASK = "aenode.run"
QUEUE = "aenode"
STAT_QUEUE = "aenode-stat"  # workers take from it first
MANIFEST = "manifest.json"
HEARTBEAT = "heartbeat"  # in the .partial folder of a job; touched every few seconds while it runs
HARD_LIMIT_GRACE_SECONDS = 30  # from the soft time limit, answered with a reason, to the kill

Output = Literal["derived", "capture", "segmentation", "report", "parametric", "presentation", "keys"]
Role = Literal[Output, "notice"]  # a notice says why there is no result; no pipeline asks for it
# What a pipeline puts out unless it says otherwise; a model gives those of them that its kind can give.
DEFAULT_OUTPUTS: tuple[Output, ...] = ("derived", "capture", "segmentation", "report")


class Priority(IntEnum):
    """In which order jobs and their deliveries take their turns."""

    STAT = 0
    ROUTINE = 1

    @property
    def queue(self) -> str:
        """The broker's queue of it."""
        return STAT_QUEUE if self is Priority.STAT else QUEUE


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """This record as JSON text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A record from JSON text. Raises pydantic.ValidationError on another version or shape."""
        return cls.model_validate_json(text)


class SourceInstance(_Record):
    """One instance of the frozen revision."""

    sop_instance_uid: str
    path: str


class PipelineSpec(_Record):
    """A pipeline as it was configured when the job was made."""

    name: str
    model: str
    outputs: tuple[Output, ...]
    strength: float | None  # None: the model's own
    limit_sigma: float


class JobSpec(_Record):
    """One pipeline on one frozen revision: all that a worker needs to know."""

    version: Literal[1] = 1
    job_id: str = Field(pattern=r"^[0-9a-f]{32}$")  # becomes a folder name, so nothing else is allowed
    series_instance_uid: str
    study_instance_uid: str
    revision: int
    pipeline: PipelineSpec
    instances: tuple[SourceInstance, ...]
    created_at: datetime
    time_limit_seconds: int
    priority: Priority = Priority.ROUTINE
    supersedes: tuple[str, ...] = ()  # SeriesInstanceUIDs of results of earlier revisions
    notice: bool = False  # write a small capture that says why, where there is no result


class ProducedArtifact(_Record):
    """One file of a result folder; `path` is relative to that folder."""

    path: str
    role: Role
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str


class Manifest(_Record):
    """What a worker says of a job when it is over; the last file written to its folder."""

    version: Literal[1] = 1
    job_id: str
    outcome: Literal["done", "failed"]
    reason: str = ""  # for a person; why there is no result
    retryable: bool = False  # a failure that another attempt may cure
    notes: tuple[str, ...] = ()  # what was left out or noticed, for the timeline
    artifacts: tuple[ProducedArtifact, ...] = ()  # of a failed job at most its notice
    model: str = ""  # name and version
    weights_sha256: str = ""
    seconds: dict[str, float] = {}  # wall time by step: read, model, write, gate

"""The nouns of the node, as frozen records. Times are UTC and aware."""

from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import PurePosixPath

from node.states import DeliveryState, JobState, SeriesState

# The Manufacturer in the ContributingEquipmentSequence item of every result: the receiver knows its
# own results by it (loop guard), the workers write it.
CONTRIBUTING_MANUFACTURER = "aenode"

# What we are called in associations and in the file meta information of what we write (PS3.7 D.3.3.2).
IMPLEMENTATION_CLASS_UID = "2.25.39576378789237663128395073813679699595"
IMPLEMENTATION_VERSION_NAME = f"AENODE_{version('aenode')}"[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One received SOP instance, as the spool holds it and the index lists it."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: PurePosixPath  # relative to the data folder
    size: int  # bytes of the Part-10 file
    sha256: str  # of the data set's bytes as received, hexadecimal
    calling_ae: str
    called_ae: str
    association: str  # id of the association that carried it
    received_at: datetime
    own_result: bool = False  # carries our ContributingEquipment: loop guard
    defect: str = ""  # why it is kept but set apart; empty when it is sound


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRevision:
    """A series as it stood when it was frozen; `revision` counts from 1."""

    id: int
    series_instance_uid: str
    study_instance_uid: str
    revision: int
    state: SeriesState
    calling_ae: str  # of the association that opened it
    called_ae: str
    opened_at: datetime
    last_instance_at: datetime
    instances: int
    own_result: bool = False  # holds our own results only: never routed
    accession_number: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One pipeline on one frozen revision of a series."""

    id: str  # deterministic: the same revision, pipeline and settings give the same id
    series_id: int
    pipeline: str
    rule: str
    send_to: tuple[str, ...]
    state: JobState
    attempts: int
    lease_until: datetime | None
    created_at: datetime
    reason: str = ""
    priority: int = 1  # node.job.Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One SOP instance that a job produced."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    role: str  # "derived", "capture", …: an entry of the pipeline's outputs
    path: PurePosixPath  # relative to the data folder
    job_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One artifact on its way to one peer."""

    id: int
    artifact: Artifact
    peer: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    status: int | None = None  # the peer's last C-STORE status
    reason: str = ""
    proofs: int = 0  # how often its proof was asked for since it was SENT
    losses: int = 0  # how often the peer turned out not to hold what it had accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a timeline: what changed, when and why."""

    at: datetime
    entity: str  # "series", "job", "delivery", "instance"
    key: str
    state: str
    reason: str = ""
    details: dict[str, str | int | float] = field(default_factory=dict)

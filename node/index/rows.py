"""From database rows to entities."""

from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Select, select

from node.entities import Artifact, Delivery, Event, Instance, Job, SeriesRevision
from node.index import tables
from node.states import DeliveryState, JobState, SeriesState


def instance(row: Any) -> Instance:
    """A row of `instances`."""
    return Instance(
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=PurePosixPath(row.path),
        size=row.size,
        sha256=row.sha256,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        association=row.association,
        received_at=row.received_at,
        own_result=row.own_result,
        defect=row.defect,
    )


def series_revision(row: Any) -> SeriesRevision:
    """A row of `series`."""
    return SeriesRevision(
        id=row.id,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        state=SeriesState(row.state),
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        opened_at=row.opened_at,
        last_instance_at=row.last_instance_at,
        instances=row.instances,
        own_result=row.own_result,
        accession_number=row.accession_number,
        reason=row.reason,
    )


def job(row: Any) -> Job:
    """A row of `jobs`."""
    return Job(
        id=row.id,
        series_id=row.series_id,
        pipeline=row.pipeline,
        rule=row.rule,
        send_to=tuple(row.send_to),
        state=JobState(row.state),
        attempts=row.attempts,
        lease_until=row.lease_until,
        created_at=row.created_at,
        reason=row.reason,
        priority=row.priority,
    )


def artifact(row: Any) -> Artifact:
    """A row of `artifacts`, or of `deliveries_with_artifacts`."""
    return Artifact(
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        series_instance_uid=row.series_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        role=row.role,
        path=PurePosixPath(row.path),
        job_id=row.job_id,
    )


def deliveries_with_artifacts() -> Select[Any]:
    """A query of `deliveries` with what `delivery` needs of `artifacts`."""
    artifacts = tables.artifacts.c
    return select(
        tables.deliveries,
        artifacts.sop_instance_uid,
        artifacts.sop_class_uid,
        artifacts.series_instance_uid,
        artifacts.transfer_syntax_uid,
        artifacts.role,
        artifacts.path,
    ).join(tables.artifacts)


def delivery(row: Any) -> Delivery:
    """A row of `deliveries_with_artifacts`."""
    return Delivery(
        id=row.id,
        artifact=artifact(row),
        peer=row.peer,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        status=row.status,
        reason=row.reason,
        proofs=row.proofs,
        losses=row.losses,
    )


def event(row: Any) -> Event:
    """A row of `timeline`."""
    return Event(
        at=row.at,
        entity=row.entity,
        key=row.key,
        state=row.state,
        reason=row.reason,
        details=dict(row.details),
    )

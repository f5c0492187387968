"""From a frozen series and the rules that it meets to its jobs. Pure."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

from node.config import Pipeline, Settings
from node.entities import Instance, SeriesRevision
from node.index import NewJob
from node.job import JobSpec, PipelineSpec, SourceInstance
from node.route.rules import Decision


def job_id(series_uid: str, instances: Sequence[Instance], pipeline: PipelineSpec) -> str:
    """32 hexadecimal digits: the same for the same instances and settings, whenever it is asked."""
    listed = sorted((i.sop_instance_uid, i.sha256) for i in instances)
    text = json.dumps([series_uid, listed, pipeline.model_dump(mode="json")])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plan(
    revision: SeriesRevision,
    instances: Sequence[Instance],
    decisions: Sequence[Decision],
    settings: Settings,
    now: datetime,
) -> list[NewJob]:
    """One job for each pipeline that a matching rule names.

    Where several rules name one pipeline, it runs once and its results go to the peers of all.
    """
    jobs: dict[str, NewJob] = {}
    for rule in (decision.rule for decision in decisions if decision.matched):
        for name in rule.pipelines:
            pipeline = settings.pipeline(name)
            assert pipeline is not None, f"the settings were checked, yet have no pipeline {name!r}"
            spec = _spec(revision, instances, pipeline, settings, now)
            earlier = jobs.get(spec.job_id)
            rules = [earlier.rule, rule.name] if earlier else [rule.name]
            if rule.notice or (earlier and earlier.spec.notice):
                spec = spec.model_copy(update={"notice": True})
            send_to = (*earlier.send_to, *rule.send_to) if earlier else rule.send_to
            jobs[spec.job_id] = NewJob(
                spec=spec, rule=", ".join(rules), send_to=tuple(dict.fromkeys(send_to))
            )
    return list(jobs.values())


def reason_of(decisions: Sequence[Decision]) -> str:
    """Why a series was routed or not, for its timeline: rules and attributes, no values."""
    matched = [decision.rule.name for decision in decisions if decision.matched]
    if matched:
        return "rule " + ", ".join(matched)
    if not decisions:
        return "no rule is set up"
    failed = [f"{d.rule.name} ({', '.join(f.attribute for f in d.failures)})" for d in decisions]
    return "no rule matched: " + "; ".join(failed)


def _spec(
    revision: SeriesRevision,
    instances: Sequence[Instance],
    pipeline: Pipeline,
    settings: Settings,
    now: datetime,
) -> JobSpec:
    chosen = PipelineSpec(
        name=pipeline.name,
        model=pipeline.model,
        outputs=pipeline.outputs,
        strength=pipeline.strength,
        limit_sigma=pipeline.limit_sigma,
    )
    return JobSpec(
        job_id=job_id(revision.series_instance_uid, instances, chosen),
        series_instance_uid=revision.series_instance_uid,
        study_instance_uid=revision.study_instance_uid,
        revision=revision.revision,
        pipeline=chosen,
        instances=tuple(
            SourceInstance(sop_instance_uid=i.sop_instance_uid, path=i.path.as_posix()) for i in instances
        ),
        created_at=now,
        time_limit_seconds=settings.workers.time_limit_seconds,
    )

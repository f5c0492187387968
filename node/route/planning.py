"""From a frozen series and the rules that it meets to its jobs. Pure."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

from node.config import Pipeline, Rule, Settings
from node.entities import Instance, SeriesRevision
from node.index import EarlierJob, NewJob
from node.job import JobSpec, PipelineSpec, Priority, SourceInstance
from node.route.rules import Decision


def job_id(series_uid: str, instances: Sequence[Instance], pipeline: PipelineSpec) -> str:
    """32 hexadecimal digits: the same for the same instances and settings, whenever it is asked."""
    listed = sorted((i.sop_instance_uid, i.sha256) for i in instances)
    text = json.dumps([series_uid, listed, pipeline.model_dump(mode="json")])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plan(
    revision: SeriesRevision,
    instances: Sequence[Instance],
    rules: Sequence[Rule],
    settings: Settings,
    now: datetime,
    *,
    urgent: bool = False,
    earlier: Sequence[EarlierJob] = (),
) -> list[NewJob]:
    """One job for each pipeline that a matching rule names.

    Where several rules name one pipeline, it runs once and its results go to the peers of all.
    `urgent` is what the sender or the images ask for; a rule's own word goes before it. A job names
    the results of the same pipeline on `earlier` revisions as superseded.
    """
    jobs: dict[str, NewJob] = {}
    for rule in rules:
        stat = rule.priority == "stat" or (rule.priority is None and urgent)
        for name in rule.pipelines:
            pipeline = settings.pipeline(name)
            assert pipeline is not None, f"the settings were checked, yet have no pipeline {name!r}"
            spec = _spec(revision, instances, pipeline, settings, now)
            older = [one for one in earlier if one.job.pipeline == name and one.job.id != spec.job_id]
            made = jobs.get(spec.job_id)
            stat = stat or (made is not None and made.spec.priority is Priority.STAT)
            names = [made.rule, rule.name] if made else [rule.name]
            notice = rule.notice or (made is not None and made.spec.notice)
            send_to = (*made.send_to, *rule.send_to) if made else rule.send_to
            retires = tuple(one.job.id for one in older if one.result_series)
            jobs[spec.job_id] = NewJob(
                spec=spec.model_copy(
                    update={
                        "priority": Priority.STAT if stat else Priority.ROUTINE,
                        "notice": notice,
                        "supersedes": tuple(uid for one in older for uid in one.result_series),
                    }
                ),
                rule=", ".join(names),
                send_to=tuple(dict.fromkeys(send_to)),
                retires=retires if rule.retire_superseded else made.retires if made else (),
            )
    return list(jobs.values())


def late_rules(
    matched: Sequence[Rule], earlier: Sequence[EarlierJob]
) -> tuple[list[Rule], list[Rule], list[Rule]]:
    """Matching rules by what they want of a revision: to run, to be ignored, to be told of.

    Late is a revision only for the rules that an earlier revision already met.
    """
    met = {name for one in earlier for name in one.job.rule.split(", ")}
    wanted: dict[str, list[Rule]] = {"reprocess": [], "ignore": [], "alert": []}
    for rule in matched:
        wanted[rule.late if rule.name in met else "reprocess"].append(rule)
    return wanted["reprocess"], wanted["ignore"], wanted["alert"]


def late_reason(ignored: Sequence[Rule], told: Sequence[Rule]) -> str:
    """What the timeline says of late instances that no rule wants processed."""
    parts = []
    if ignored:
        parts.append(f"late instances are ignored by rule {', '.join(rule.name for rule in ignored)}")
    if told:
        parts.append(f"ALERT: late instances, not processed, by rule {', '.join(rule.name for rule in told)}")
    return "; ".join(parts)


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

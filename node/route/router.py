"""The router's step: completion, rules, submission, and what became of the jobs.

Every step starts from the index, so a router that died goes on where it was. What it does before
it writes to the index may be done twice: reading headers, handing over a job, collecting.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from node.audit import Audit
from node.config import Settings
from node.config_file import SettingsFile
from node.entities import SeriesRevision
from node.errors import BrokerUnavailable, IllegalTransition, SeriesRefused
from node.index import Index, Submission
from node.job import JobSpec, Priority
from node.log import escape
from node.route import rules
from node.route.completion import Evidence, Step, judge
from node.route.following import Following
from node.route.headers import read_headers
from node.route.planning import late_reason, late_rules, plan, reason_of
from node.route.source import CountInstances, Source
from node.sop_classes import companions_only
from node.states import JobState, SeriesState

log = logging.getLogger("aenode.route")

OWN_RESULT = "own result (loop guard)"
_LOST_AT_MOST = timedelta(hours=6)  # the wait doubles up to this while there is no worker at all
_BROKER_BACKOFF = 60.0  # seconds at most between two attempts to reach a broker that is down
_LONGEST_SH = 16  # characters, PS3.5 6.2

Item = TypeVar("Item")


class Router:
    """One step after the other moves every series and job on as far as it can go now.

    `submit` hands a job to the broker or raises BrokerUnavailable; `ask_source` is
    `node.dimse.scu.count_instances`; `clock` gives the time after work that takes a while.
    """

    def __init__(
        self,
        file: SettingsFile,
        index: Index,
        submit: Callable[[JobSpec], None],
        ask_source: CountInstances,
        clock: Callable[[], datetime],
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._file = file
        self._index = index
        self._submit = submit
        self._clock = clock
        self._source = Source(ask_source)
        self._following = Following(index)
        self._offer_after: datetime | None = None
        self._refusals = 0

    def close(self) -> None:
        """Stop asking sources."""
        self._source.close()

    def step(self, now: datetime) -> None:
        """Do all that can be done at `now`.

        What goes wrong with one series or job leaves the others untouched; raises an ExceptionGroup
        of it at the end.
        """
        settings = self._file.settings
        failures: list[Exception] = []

        def each(items: Iterable[Item], act: Callable[[Item, Settings, datetime], None]) -> None:
            for item in items:
                try:
                    act(item, settings, now)
                except IllegalTransition as error:
                    log.info("left as it is: %s", error)  # another process was faster
                except Exception as error:  # noqa: BLE001 - raised below, after the others had their turn
                    failures.append(error)

        receiving = self._index.series_in(SeriesState.RECEIVING)
        self._source.forget_all_but(receiving)
        each(receiving, self._complete)
        each(self._index.series_in(SeriesState.COMPLETE), self._decide)
        each(self._index.unfinished_jobs(), self._following.follow)
        each(self._due(now), self._offer)
        if failures:
            raise ExceptionGroup("routing", failures)

    def _complete(self, revision: SeriesRevision, settings: Settings, now: datetime) -> None:
        """Freeze a revision where the evidence says that it is complete."""
        arrival = self._index.arrival_of(revision)
        peer = next((p for p in settings.peers if p.title == revision.calling_ae), None)
        verdict = judge(
            Evidence(
                arrived=arrival.arrived,
                last_instance_at=revision.last_instance_at,
                last_release_at=arrival.last_release_at,
                open_associations=arrival.open_associations,
                # Nobody but us knows how many results of ours there are.
                can_ask=not revision.own_result and self._source.may_ask(peer, now),
                asked_at=self._source.asked_at(revision),
                asking=self._source.is_asking(revision),
                listed=self._source.listed(revision, now),
            ),
            settings.completion,
            now,
        )
        if verdict.step is Step.ASK and peer is not None:
            self._source.ask(revision, peer, settings.node.ae_title, now)
        elif verdict.step is Step.FREEZE:
            reason = verdict.reason + (f"; {arrival.defects} set apart" if arrival.defects else "")
            self._index.move(revision, SeriesState.COMPLETE, now, reason)

    def _decide(self, revision: SeriesRevision, settings: Settings, now: datetime) -> None:
        """Ask the rules about a frozen revision, and make its jobs."""
        if revision.own_result:
            self._index.move(revision, SeriesState.IGNORED, now, OWN_RESULT)
            return
        instances = self._index.instances_of(revision.id)
        if kinds := companions_only(instance.sop_class_uid for instance in instances):
            self._index.move(revision, SeriesState.IGNORED, now, f"no images: {kinds}")
            return
        wanted = {"AccessionNumber", "PatientID", rules.PRIORITY} | rules.keywords(settings.rules)
        try:
            headers = read_headers(settings.node.data, instances, wanted)
        except SeriesRefused as error:
            purged = self._index.purged_of(revision.series_instance_uid)
            why = f"; {purged} were removed after their retention: send the series again" if purged else ""
            self._index.move(revision, SeriesState.QUARANTINED, self._clock(), f"{error}{why}")
            log.warning("series %s is quarantined: %s", revision.series_instance_uid, error)
            return
        decisions = rules.decide(
            settings.rules, headers, calling_ae=revision.calling_ae, called_ae=revision.called_ae
        )
        with rules.unjudged():
            numbers = (value for ds in headers for value in rules.values_of(ds, "AccessionNumber").values)
            accession = escape(next(numbers, "")[:_LONGEST_SH])
            identified = (v for ds in headers for v in rules.values_of(ds, "PatientID").values)
            patient_id = escape(next(identified, "")[:64])
            urgent = any(rules.is_urgent(ds) for ds in headers)
        sender = next((p for p in settings.peers if p.title == revision.calling_ae), None)
        at, reason = self._clock(), reason_of(decisions)
        earlier = self._index.earlier_jobs(revision) if revision.revision > 1 else []
        matched = [decision.rule for decision in decisions if decision.matched]
        to_run, ignored, told = late_rules(matched, earlier)
        if ignored or told:
            reason = f"{reason}; {late_reason(ignored, told)}"
        if told:
            log.error(
                "ALERT: late instances of series %s, revision %d, are not processed",
                revision.series_instance_uid,
                revision.revision,
            )
        urgent = urgent or (sender is not None and sender.priority == "stat")
        jobs = plan(revision, instances, to_run, settings, at, urgent=urgent, earlier=earlier)
        if jobs:
            self._index.create_jobs(revision, jobs, at, reason, accession_number=accession)
        else:
            self._index.move(revision, SeriesState.IGNORED, at, reason, accession_number=accession)
        if self._audit is not None:
            study_uid, series_uid = revision.study_instance_uid, revision.series_instance_uid
            self._audit.decided(at, study_uid, series_uid, reason, patient_id)
        log.info("series %s, revision %d: %s", revision.series_instance_uid, revision.revision, reason)

    def _due(self, now: datetime) -> list[Submission]:
        """The jobs to hand to the broker: those it never took, and those that it seems to have lost."""
        if self._offer_after is not None and now < self._offer_after:
            return []
        lost_after = timedelta(seconds=self._file.settings.workers.lost_seconds)
        unfinished = self._index.unfinished_jobs()
        queued = [s for s in unfinished if s.job.state is JobState.QUEUED]
        due = [s for s in queued if s.submitted_at is None and (s.not_before is None or s.not_before <= now)]
        stale = [s for s in queued if s.submitted_at is not None and now - s.submitted_at >= lost_after]
        if not stale:
            return due
        last = {priority: self._index.last_begun(priority) for priority in Priority}
        begun = max((at for at, _ in last.values() if at is not None), default=None)
        idle = len(queued) == len(unfinished) and (begun is None or now - begun >= lost_after)
        for submission in stale:
            assert submission.submitted_at is not None
            # A queue is first in, first out: a later job of it that began means that this one is not in it.
            _, overtaken_at = last[Priority(submission.job.priority)]
            overtaken = overtaken_at is not None and overtaken_at > submission.submitted_at
            patience = min(lost_after * 2 ** min(submission.submissions - 1, 16), _LOST_AT_MOST)
            if overtaken or (idle and now - submission.submitted_at >= patience):
                due.append(submission)
        return due

    def _offer(self, submission: Submission, _settings: Settings, now: datetime) -> None:
        """Hand a job to the broker. While that is down, jobs wait and one is tried now and then."""
        if self._offer_after is not None and now < self._offer_after:
            return
        turn = self._index.take_turn(f"offer {submission.job.id}")
        if turn is None:
            return  # another router is at it
        try:
            if self._index.is_as_seen(submission):
                self._hand_over(submission, now)
        finally:
            turn.release()

    def _hand_over(self, submission: Submission, now: datetime) -> None:
        try:
            self._submit(self._index.spec_of(submission.job.id))
        except BrokerUnavailable as error:
            self._refusals += 1
            wait = min(2.0 ** min(self._refusals - 1, 16), _BROKER_BACKOFF)
            self._offer_after = now + timedelta(seconds=wait)
            if self._refusals == 1:
                log.warning("%s; jobs wait in the index until it does", error)
            return
        if self._refusals:
            log.info("the broker takes jobs again")
        self._offer_after, self._refusals = None, 0
        self._index.record_submission(submission.job, self._clock())

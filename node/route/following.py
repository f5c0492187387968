"""What became of a job: its worker's heartbeat, its lease, its result folder."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from node.backoff import delay
from node.config import Settings
from node.entities import Artifact, Job
from node.index import Index, Submission
from node.job import Manifest
from node.route.results import ManifestRefused, artifacts_of, aside, heartbeat, read_manifest, set_aside
from node.states import JobState

log = logging.getLogger("aenode.route")


class Following:
    """Moves one job on, by what lies in the results folder."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def follow(self, submission: Submission, settings: Settings, now: datetime) -> None:
        """Collect a job's result, renew its lease, or give up on its worker."""
        job, data = submission.job, settings.node.data
        lease = timedelta(seconds=settings.workers.lease_seconds)
        try:
            manifest = read_manifest(data, job.id)
            if manifest is not None:
                self._collect(job, manifest, settings, now)
                return
        except ManifestRefused as error:
            self._fail(job, str(error), settings, now)
            return
        beat = heartbeat(data, job.id)
        # Not the age of the heartbeat but its change counts, so that another machine's clock does not.
        if beat not in (0, submission.heartbeat):
            if job.state is JobState.RUNNING:
                self._index.renew_lease(job.id, heartbeat=beat, until=now + lease)
            else:
                attempt = job.attempts + 1
                self._index.move(
                    job,
                    JobState.RUNNING,
                    now,
                    f"attempt {attempt}",
                    attempts=attempt,
                    heartbeat=beat,
                    lease_until=now + lease,
                    begun_at=now,
                )
        elif job.state is JobState.RUNNING and (job.lease_until is None or job.lease_until <= now):
            self._lose(job, settings, now)

    def _lose(self, job: Job, settings: Settings, now: datetime) -> None:
        silence = f"its worker gave no sign of life for {settings.workers.lease_seconds:g} s"
        if job.attempts >= settings.workers.attempts:
            self._fail(job, f"{silence} (tried {job.attempts} times)", settings, now)
        else:
            self._index.retry_job(job, now, silence, not_before=_again_at(job, job.attempts, settings, now))

    def _collect(self, job: Job, manifest: Manifest, settings: Settings, now: datetime) -> None:
        details: dict[str, str | int | float] = {
            "model": manifest.model,
            "weights_sha256": manifest.weights_sha256,
            **{f"seconds_{name}": round(value, 3) for name, value in manifest.seconds.items()},
        }
        if manifest.notes:
            details["notes"] = "; ".join(manifest.notes)
        if manifest.outcome == "done":
            produced = artifacts_of(settings.node.data, manifest)
            reason = f"{len(produced)} instances"
            self._index.finish_job(
                job, JobState.DONE, now, reason, produced=produced, peers=job.send_to, details=details
            )
            log.info("job %s done: %s", job.id, reason)
            return
        # A job that ran unseen has not been counted yet.
        attempts = job.attempts + (job.state is JobState.QUEUED)
        if manifest.retryable and attempts < settings.workers.attempts:
            set_aside(settings.node.data, job.id)
            again = _again_at(job, attempts, settings, now)
            self._index.retry_job(job, now, manifest.reason, not_before=again)
            return
        tried = f" (tried {attempts} times)" if manifest.retryable else ""
        notices = artifacts_of(settings.node.data, manifest)
        self._fail(job, manifest.reason + tried, settings, now, details, notices)

    def _fail(
        self,
        job: Job,
        reason: str,
        settings: Settings,
        now: datetime,
        details: dict[str, str | int | float] | None = None,
        notices: Sequence[Artifact] = (),
    ) -> None:
        # Set aside first: were it the other way round, a crash between the two would have a
        # requeued job fail again by its old folder.
        set_aside(settings.node.data, job.id)
        produced = [replace(notice, path=aside(notice.path)) for notice in notices]
        self._index.finish_job(
            job, JobState.FAILED, now, reason, produced=produced, peers=job.send_to, details=details
        )
        log.warning("job %s failed: %s", job.id, reason)


def _again_at(job: Job, attempts: int, settings: Settings, now: datetime) -> datetime:
    workers = settings.workers
    wait = delay(attempts, first=workers.retry_seconds, limit=workers.retry_max_seconds, seed=job.id)
    return now + timedelta(seconds=wait)

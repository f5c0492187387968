"""The Celery application: takes jobs by name from Redis, and does each once in a child process.

A message is acknowledged when its job is over, so a killed child or machine costs a repetition and
no job; a repetition of a finished job returns at once. Two time limits stand over a job: the soft
one ends it with a reason, the hard one kills a child that does not listen, and says so for it.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom.config
from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready
from celery.worker.request import Request
from pydantic import ValidationError

from node.config import Workers
from node.errors import ModelRefused
from node.job import HARD_LIMIT_GRACE_SECONDS, QUEUE, STAT_QUEUE, TASK, JobSpec, Manifest
from workers import device, pipeline
from workers.results import AlreadyRunning, abandon

log = logging.getLogger("aenode.work")


def make_app(broker_url: str, workers: Workers, data: Path) -> Celery:
    """The application of a worker that reads and writes below `data`.

    `broker_url` is redis://, rediss:// or redis+socket://. The task takes the JSON text of a JobSpec.
    """
    app = Celery("aenode", broker=broker_url, set_as_current=False)
    hard = workers.time_limit_seconds + HARD_LIMIT_GRACE_SECONDS
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_soft_time_limit=workers.time_limit_seconds,
        task_time_limit=hard,
        # Redis hands a message out again after this long without an acknowledgement. The router's
        # lease notices a lost job much sooner; this must only never strike a job that is running.
        # "priority": queues in the order that `serve` names them, so STAT before routine.
        broker_transport_options={
            "visibility_timeout": max(3600, 4 * hard),
            "queue_order_strategy": "priority",
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )

    def run(spec: str) -> None:
        _run(spec, workers, data)

    app.task(name=TASK, Request=_request_class(data))(run)

    def prepare(**_: Any) -> None:
        # pydicom would warn of unlawful values and quote them: patients' values, in a log.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        device.use_threads(workers.threads, workers.processes)

    def announce(**_: Any) -> None:
        log.info("takes jobs in %d processes on device %s", workers.processes, workers.device)

    def leave_logging(**_: Any) -> None:
        """Connected, it keeps Celery from putting its own level and handlers over node.log's."""

    setup_logging.connect(leave_logging, weak=False, dispatch_uid="aenode.logging")
    worker_ready.connect(announce, weak=False, dispatch_uid="aenode.ready")
    worker_process_init.connect(prepare, weak=False, dispatch_uid="aenode.threads")
    return app


def serve(app: Celery, workers: Workers) -> None:
    """Run a worker in this process until SIGTERM: running jobs finish, waiting ones stay in Redis."""
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={workers.processes}",
            f"--queues={STAT_QUEUE},{QUEUE}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def _run(text: str, workers: Workers, data: Path) -> None:
    spec = _spec_in(text)
    if spec is None:
        log.error("a message is no job of this version")
        return
    try:
        chosen = device.choose(workers.device, openvino=True)
        manifest = pipeline.run(
            spec,
            data,
            chosen,
            datetime.now(UTC),
            attempts=workers.attempts,
            precision=workers.precision,
        )
    except AlreadyRunning as error:
        log.info("%s", error)
        return
    except ModelRefused as error:
        abandon(data, Manifest(job_id=spec.job_id, outcome="failed", reason=str(error)))
        return
    log.info("job %s %s %s", spec.job_id, manifest.outcome, manifest.reason)


def _spec_in(message: Any) -> JobSpec | None:
    """The job in a task's argument, or in a message's payload (args, …); None if there is none."""
    try:
        return JobSpec.from_json(message if isinstance(message, str) else message[0][0])
    except (ValidationError, LookupError, TypeError):
        return None


def _request_class(data: Path) -> type[Any]:
    class JobRequest(Request):  # type: ignore[misc]  # Celery has no types
        """A message that carries a JobSpec: its own time limits, and a reason for the hard one."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if (spec := _spec_in(self._payload)) is not None:
                limit = spec.time_limit_seconds
                self.time_limits = (limit + HARD_LIMIT_GRACE_SECONDS, limit)

        def on_timeout(self, soft: bool, timeout: float) -> None:
            spec = None if soft else _spec_in(self._payload)
            if spec is not None:
                reason = f"did not stop {HARD_LIMIT_GRACE_SECONDS} s after its time limit, and was killed"
                abandon(data, Manifest(job_id=spec.job_id, outcome="failed", reason=reason))
            super().on_timeout(soft, timeout)

    return JobRequest

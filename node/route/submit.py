"""Hands jobs to Celery by name; knows nothing of the workers' code."""

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from node.errors import BrokerUnavailable
from node.job import TASK, JobSpec

_TIMEOUT_SECONDS = 3.0  # for connecting, and for each answer of the broker


class Submitter:
    """Called with a JobSpec, it hands the job to the broker."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("aenode", broker=broker_url, set_as_current=False)
        self._app.conf.update(
            task_serializer="json",
            task_ignore_result=True,
            broker_connection_timeout=_TIMEOUT_SECONDS,
            broker_transport_options={
                "socket_timeout": _TIMEOUT_SECONDS,
                "socket_connect_timeout": _TIMEOUT_SECONDS,
                "max_retries": 1,
            },
        )

    def __call__(self, spec: JobSpec) -> None:
        """Hand over one job. Raises BrokerUnavailable where the broker does not take it within seconds."""
        try:
            # A connection of its own: one that outlived a restart of Redis would publish to a queue
            # that the new one does not know.
            with self._app.connection_for_write() as connection:
                self._app.send_task(
                    TASK,
                    args=[spec.to_json()],
                    queue=spec.priority.queue,
                    connection=connection,
                    ignore_result=True,
                    retry=True,
                    retry_policy={
                        "max_retries": 1,
                        "interval_start": 0.1,
                        "interval_step": 0,
                        "interval_max": 0.1,
                    },
                )
        except (OperationalError, KombuError, RedisError, OSError) as error:
            raise BrokerUnavailable(f"the broker does not take jobs: {type(error).__name__}") from error

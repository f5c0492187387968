"""Handing jobs to Celery's broker."""

import base64
import json
import socket
import time
from pathlib import Path

import pytest
import redis

from node.errors import BrokerUnavailable
from node.job import QUEUE, TASK, JobSpec
from node.route.submit import Submitter
from tests.node.records import frozen, index_in, new_job
from tests.peers import LOOPBACK, RedisServer, free_port


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    index = index_in(tmp_path / "data")
    made = new_job(frozen(index)).spec
    index.close()
    return made


def messages(url: str) -> list[tuple[str, JobSpec]]:
    """Task name and JobSpec of what waits in the queue, oldest first."""
    with redis.Redis.from_url(url) as client:
        waiting = [json.loads(text) for text in reversed(client.lrange(QUEUE, 0, -1))]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in waiting]
    return [
        (message["headers"]["task"], JobSpec.from_json(body[0][0]))
        for message, body in zip(waiting, bodies, strict=True)
    ]


def test_a_job_waits_in_redis_by_name(redis_server: RedisServer, spec: JobSpec) -> None:
    """A submitted job is a message of our task in our queue that holds the JobSpec."""
    submit = Submitter(redis_server.url)
    submit(spec)
    submit(spec)
    assert messages(redis_server.url) == [(TASK, spec)] * 2


def test_jobs_are_taken_again_after_redis_lost_everything(redis_server: RedisServer, spec: JobSpec) -> None:
    """A Redis that forgot its queues and bindings takes the next job all the same."""
    submit = Submitter(redis_server.url)
    submit(spec)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    submit(spec)
    assert messages(redis_server.url) == [(TASK, spec)]


def test_a_redis_that_comes_back_is_used(tmp_path: Path, spec: JobSpec) -> None:
    """While Redis is down a submission is refused; once it is back on its port, it is taken."""
    port = free_port()
    submit = Submitter(f"redis://{LOOPBACK}:{port}/0")
    with pytest.raises(BrokerUnavailable, match="does not take jobs"):
        submit(spec)
    with RedisServer(tmp_path / "redis", port=port) as server:
        submit(spec)
        assert messages(server.url) == [(TASK, spec)]
    with pytest.raises(BrokerUnavailable):
        submit(spec)


def test_a_broker_that_never_answers_holds_nobody_up(spec: JobSpec) -> None:
    """A broker that takes the connection and says nothing is given up within seconds."""
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen(16)
        submit = Submitter(f"redis://{LOOPBACK}:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            submit(spec)
        assert time.monotonic() - began < 15

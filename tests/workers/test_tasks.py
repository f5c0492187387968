"""A real Celery worker on a real redis-server: jobs survive killed children, and end at their limits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from node.job import HEARTBEAT, MANIFEST, QUEUE, JobSpec, Manifest
from node.route.submit import Submitter
from tests import series as made
from tests.conftest import ROOT
from tests.peers import RedisServer, wait_for
from tests.workers.jobs_made import job
from tests.workers.models_made import denoiser_folder

_CONFIG = """\
[node]
data = "{data}"
[broker]
url = "{url}"
[workers]
device = "cpu"
threads = 1
time_limit_seconds = 120
"""
# The command's own code, with seconds in place of the half minute between the two time limits.
_SHORT_GRACE = """\
import sys
from node.cli import main
from workers import tasks
tasks.HARD_LIMIT_GRACE_SECONDS = 1
sys.argv = ["aenode", "work", "--config", sys.argv[1]]
main()
"""


class SocketRedis(RedisServer):
    """A redis-server that is asked through its Unix socket."""

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    def command(self) -> list[str]:
        return [*super().command(), "--unixsocket", str(self.socket)]

    @property
    def url(self) -> str:
        return f"redis+socket://{self.socket}"


class Worker:
    """`aenode work`, with the folder it works in."""

    def __init__(self, data: Path, broker: SocketRedis, *command: str) -> None:
        self.data = data
        self.server = broker
        self.submit = Submitter(broker.url)
        self.broker = redis.Redis(unix_socket_path=str(broker.socket))
        config = data / "config.toml"
        config.write_text(_CONFIG.format(data=data, url=broker.url))
        self.log = data / "log.txt"
        with self.log.open("wb") as output:
            arguments = [*(command or ("-m", "node", "work", "--config")), str(config)]
            self.process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=output)

    def child(self) -> int:
        """The process that does the jobs."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return int(children[-1])

    def attempt(self, spec: JobSpec) -> int:
        """Which attempt at the job runs just now; 0 for none."""
        try:
            return int((self._partial(spec) / "attempts").read_text() or 0)
        except FileNotFoundError:
            return 0

    def running(self, spec: JobSpec, attempt: int = 1) -> bool:
        """Whether this attempt has come as far as the model."""
        return self.attempt(spec) == attempt and (self._partial(spec) / HEARTBEAT).exists()

    def _partial(self, spec: JobSpec) -> Path:
        return self.data / "results" / f"{spec.job_id}.partial"

    def manifest(self, spec: JobSpec) -> Manifest:
        """What became of a job, once it is over."""
        file = self.data / "results" / spec.job_id / MANIFEST
        wait_for(lambda: file.exists() or self.process.poll() is not None, seconds=90, what="a result")
        assert file.exists(), f"the worker ended: {self.log.read_text()[-2000:]}"
        return Manifest.from_json(file.read_bytes())

    def messages(self) -> int:
        """Messages in the queue, and those handed out and not acknowledged."""
        return int(self.broker.llen(QUEUE)) + int(self.broker.hlen("unacked"))  # type: ignore[arg-type]  # not asyncio


@contextmanager
def working(tmp_path: Path, *command: str) -> Iterator[Worker]:
    """A worker and its Redis, both stopped at the end."""
    with SocketRedis(tmp_path / "redis") as broker:
        worker = Worker(tmp_path, broker, *command)
        try:
            yield worker
        finally:
            worker.process.terminate()
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return denoiser_folder(tmp_path_factory.mktemp("models") / "0.0.1")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that needs a good part of a second for a slice of 256² pixels."""
    return denoiser_folder(tmp_path_factory.mktemp("slow") / "0.0.1", widths=(64, 96, 96), blocks=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path


def test_jobs_are_done_refused_and_survive_a_killed_child(data: Path, quick: Path, slow: Path) -> None:
    """Jobs are done, also after Redis was lost; one whose child is killed is done again; SIGTERM ends."""
    with working(data) as worker:
        first = job(data, made.series(2), quick, name="first")
        worker.submit(first)
        assert worker.manifest(first).outcome == "done"

        worker.server.stop()  # and all it knew is gone
        worker.server.start()
        again = job(data, made.series(2), quick, name="again")
        worker.submit(again)
        assert worker.manifest(again).outcome == "done"

        worker.submit._app.send_task("aenode.run", args=["{}"], queue=QUEUE, ignore_result=True)
        long = job(data, made.series(6, 256), slow, name="long")
        worker.submit(long)
        wait_for(lambda: worker.running(long), seconds=60, what="the job to run")
        child = worker.child()
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: worker.running(long, attempt=2), seconds=60, what="the job to run again")
        assert worker.child() != child
        worker.submit(long)  # as the router does when it thinks a job lost
        manifest = worker.manifest(long)
        assert (manifest.outcome, manifest.reason) == ("done", "")
        assert len(manifest.artifacts) == 6
        stamp = (data / "results" / long.job_id / MANIFEST).stat()
        wait_for(lambda: worker.messages() == 0, seconds=30, what="every message to be acknowledged")
        assert (data / "results" / long.job_id / MANIFEST).stat() == stamp
        assert sorted(p.name for p in (data / "results").iterdir()) == sorted(
            spec.job_id for spec in (first, again, long)
        )

        worker.process.terminate()
        assert worker.process.wait(30) == 0
        assert "a message is no job of this version" in worker.log.read_text()


def test_a_job_over_its_limits_fails_with_a_reason(data: Path, quick: Path, slow: Path) -> None:
    """The soft limit names the step; a child that does not listen is killed; the worker goes on."""
    with working(data, "-c", _SHORT_GRACE) as worker:
        long = job(data, made.series(60, 256), slow, name="soft", time_limit=1)
        worker.submit(long)
        manifest = worker.manifest(long)
        assert (manifest.outcome, manifest.retryable) == ("failed", False)
        assert manifest.reason == "took longer than 1 s; stopped in step 'model'"

        deaf = job(data, made.series(60, 256), slow, name="hard", time_limit=1)
        worker.submit(deaf)
        wait_for(lambda: worker.running(deaf), seconds=60, what="the job to run")
        os.kill(worker.child(), signal.SIGSTOP)
        manifest = worker.manifest(deaf)
        assert manifest.outcome == "failed"
        assert "was killed" in manifest.reason

        after = job(data, made.series(2), quick, name="after")
        worker.submit(after)
        assert worker.manifest(after).outcome == "done"
        wait_for(lambda: worker.messages() == 0, seconds=30, what="every message to be acknowledged")

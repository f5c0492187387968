"""The commands that run until they are stopped: up, receive, route."""

import fcntl
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import click

from node import log as logs
from node import reach
from node.audit import Audit
from node.commands.options import config_option, now, stop_on_signals
from node.config import Deliver, Peer
from node.config_file import SettingsFile, load
from node.deliver.breaker import CircuitBreaker, State
from node.deliver.outbox import Outbox
from node.deliver.proof import CommitmentProof, FindProof
from node.deliver.rejection import Rejections
from node.deliver.retention import Retention
from node.errors import AenodeError
from node.index import Index, LeaseLost
from node.receive import serve
from node.route.lease import ActiveRouter
from node.route.router import Router
from node.route.submit import Submitter
from node.route.sweeping import sweep_results
from node.supervise import children_of, supervise

log = logging.getLogger("aenode.up")

_STEP_SECONDS = 0.25  # how often the router and the outbox look
_TIDY_SECONDS = 10.0
_RETAIN_SECONDS = 300.0


@click.command()
@config_option
@click.option(
    "--without", multiple=True, type=click.Choice(["receive", "route", "work"]), help="Leave one out."
)
def up(config: Path, without: tuple[str, ...]) -> None:
    """Run everything on this machine, supervised: Redis where it is embedded, receive, route, work.

    SIGTERM or Ctrl-C stops it cleanly: no new associations, running ones finish, nothing is lost.

    \b
    Examples:
      aenode up
      aenode up --config /etc/aenode/config.toml --without work
    """
    settings = load(config)
    logs.start(settings.log)
    settings.node.data.mkdir(parents=True, exist_ok=True, mode=0o750)
    with (settings.node.data / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AenodeError(f"another `aenode up` runs on {settings.node.data}") from None
        processes = [name for name in ("receive", "route", "work") if name not in without]
        sys.exit(supervise(children_of(settings, config.resolve(), processes), stop_on_signals()))


@click.command()
@config_option
def receive(config: Path) -> None:
    """Run the provider of C-STORE and C-ECHO on node.bind, and of STOW-RS on dicomweb.bind.

    \b
    Example:
      aenode receive --config /etc/aenode/config.toml
    """
    file = SettingsFile.open(config)
    logs.start(file.settings.log)
    stop = stop_on_signals()
    index = Index.open(file.settings)
    try:
        serve(file, index, stop)
    finally:
        index.close()


@click.command()
@config_option
def route(config: Path) -> None:
    """Run completion, rules, submission, collection and delivery.

    \b
    Example:
      aenode route --config /etc/aenode/config.toml
    """
    file = SettingsFile.open(config)
    logs.start(file.settings.log)
    stop = stop_on_signals()
    index = Index.open(file.settings)
    running = Routing(file, index)
    try:
        running.run(stop)
    finally:
        running.close()
        index.close()


class Routing:
    """All that `aenode route` does, while this process is an active router."""

    def __init__(self, file: SettingsFile, index: Index) -> None:
        self._file = file
        self._index = index
        settings = file.settings
        self._several = settings.index.routers == "several"
        self._lease = ActiveRouter(index, settings.index.lease_seconds)
        self._audit = Audit(settings.audit, settings.node.data, settings.node.ae_title)
        submit = Submitter(settings.broker_url)
        self._router = Router(file, index, submit, reach.count_instances, now, self._audit)
        self._outbox = outbox(file, index, self._audit)
        self._retention = Retention(file, index)
        self._rejections = Rejections(file, index, now)
        self._tidied_at = self._retained_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set."""
        steps = [
            threading.Thread(target=self._repeat, args=(step, stop, what), name=what)
            for what, step in {
                "routing": self._router.step,
                "delivery": self._outbox.step,
                "tidying": lambda at: self._tidy(at, stop),
            }.items()
        ]
        self._look()
        for thread in steps:
            thread.start()
        while not stop.wait(1):
            self._look()
            if self._file.refresh():
                _say_reloaded(self._file)
        for thread in steps:
            thread.join()

    def close(self) -> None:
        """End the deliveries under way, and let another router take over."""
        self._router.close()
        self._outbox.close()
        self._lease.release()
        self._audit.close()

    def _look(self) -> None:
        if self._several:
            return
        try:
            self._lease.look()
        except Exception:
            log.exception("the index did not answer about the lease; it is asked again")

    def _repeat(self, step: Callable[[datetime], object], stop: threading.Event, what: str) -> None:
        while not stop.wait(_STEP_SECONDS):
            if not (self._several or self._lease.active):
                continue
            try:
                step(now())
            except LeaseLost as error:
                log.warning("%s stops: %s", what, error)
            except Exception:
                # One series' trouble must not stop the others; the step begins again from the index.
                log.exception("a step of %s failed; it is tried again", what)
                stop.wait(5)

    def _tidy(self, at: datetime, stop: threading.Event) -> None:
        """Mend times after the clock was set back, retire what is superseded, remove what may go."""
        if time.monotonic() - self._tidied_at < _TIDY_SECONDS:
            return
        self._tidied_at = time.monotonic()
        self._rejections.step()
        settings = self._file.settings
        longest = max(
            settings.deliver.retry_max_seconds,
            settings.deliver.proof_max_seconds,
            settings.workers.retry_max_seconds,
            60,
        )
        mended = self._index.mend_future(at, at + timedelta(seconds=longest))
        if mended:
            log.warning("the clock was set back: %d times lay ahead of it and are mended", mended)
        if self._retained_at and time.monotonic() - self._retained_at < _RETAIN_SECONDS:
            return
        self._retained_at = time.monotonic()
        sweep_results(settings.node.data, self._index)
        turn = self._index.take_turn("retention")
        if turn is not None:
            try:
                self._retention.step(at, stop.is_set)
            finally:
                turn.release()


def outbox(file: SettingsFile, index: Index, audit: Audit) -> Outbox:
    """The outbox with its breaker and its proofs."""

    def echo(peer: Peer) -> None:
        settings = file.settings
        reach.echo(peer, settings.node.ae_title, timeout=settings.deliver.timeout_seconds)

    def note(peer: str, state: State, at: datetime, reason: str, probe_at: datetime | None) -> None:
        index.record_breaker(peer, state, at, probe_at=probe_at, reason=reason)

    def deliver() -> Deliver:
        return file.settings.deliver

    find = FindProof(index, deliver, now)
    return Outbox(
        file,
        index,
        now,
        breaker=CircuitBreaker(deliver, echo, note),
        proofs={"find": find, "commitment": CommitmentProof(index, deliver, now, find)},
        audit=audit,
    )


def _say_reloaded(file: SettingsFile) -> None:
    if file.error is None:
        log.info("%s has changed and is in force", file.path)
    else:
        log.error("%s has changed and is refused; the old settings stay in force:\n%s", file.path, file.error)

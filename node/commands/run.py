"""The commands that run until they are stopped: up, receive, route."""

import fcntl
import logging
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import click

from node import log as logs
from node.commands.options import config_option, now, stop_on_signals
from node.config_file import SettingsFile, load
from node.deliver.outbox import Outbox
from node.dimse import scu
from node.errors import AenodeError
from node.index import Index
from node.receive import serve
from node.route.router import Router
from node.route.submit import Submitter
from node.supervise import children_of, supervise

log = logging.getLogger("aenode.up")

_STEP_SECONDS = 0.25  # how often the router and the outbox look


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
    """Run the C-STORE and C-ECHO provider on node.bind.

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
    router = Router(file, index, Submitter(file.settings.broker_url), scu.count_instances, now)
    outbox = Outbox(file, index, now)
    try:
        steps = [
            threading.Thread(target=_repeat, args=(router.step, stop, "routing"), name="router"),
            threading.Thread(target=_repeat, args=(outbox.step, stop, "delivery"), name="outbox"),
        ]
        for thread in steps:
            thread.start()
        while not stop.wait(1):
            if file.refresh():
                _say_reloaded(file)
        for thread in steps:
            thread.join()
    finally:
        router.close()
        outbox.close()
        index.close()


def _repeat(step: Callable[[datetime], object], stop: threading.Event, what: str) -> None:
    while not stop.wait(_STEP_SECONDS):
        try:
            step(now())
        except Exception:
            # One series' trouble must not stop the others; the step begins again from the index.
            log.exception("a step of %s failed; it is tried again", what)
            stop.wait(5)


def _say_reloaded(file: SettingsFile) -> None:
    if file.error is None:
        log.info("%s has changed and is in force", file.path)
    else:
        log.error("%s has changed and is refused; the old settings stay in force:\n%s", file.path, file.error)

"""What several commands share: the settings file, JSON output, the clock and stopping on a signal."""

import dataclasses
import json
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Add `--config FILE`; the command gets it as `config: Path`."""
    return click.option(
        "--config",
        "-c",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("config.toml"),
        envvar="AENODE_CONFIG",
        show_default=True,
        help="The settings file ($AENODE_CONFIG).",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`; the command gets it as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def print_json(value: object) -> None:
    """Print records, times and paths as JSON."""
    click.echo(json.dumps(value, default=_plain, indent=2))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def now() -> datetime:
    """The time, where it enters the node."""
    return datetime.now(UTC)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop

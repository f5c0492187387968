"""What the commands of the workers share: `--json`, where results may go, and errors in one line."""

import functools
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from models import weights
from models.preparation import OutsideDomain
from models.train import TrainingError
from node.errors import AenodeError, ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def one_line_errors(command: Command) -> Command:
    """Errors that are raised on purpose, and those of the file system, become one line and exit code 1."""

    @functools.wraps(command)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return command(*arguments, **named)
        except (ConfigError, BrokenPipeError):  # click ends quietly where nobody reads on
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise click.ClickException(
                reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
            ) from error
        except (AenodeError, weights.WeightsError, TrainingError, OutsideDomain, ValueError) as error:
            raise click.ClickException(str(error)) from error

    return called  # type: ignore[return-value]  # the same arguments and result


def json_option(command: Command) -> Command:
    """Add `--json`; the command gets it as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def require_writable(path: Path) -> None:
    """Raise a ClickException where a file or folder cannot be made there, so that long work is not in vain.

    Folders above it that are not there yet may be made later; nothing is made now.
    """
    place = path if path.exists() else next(folder for folder in path.absolute().parents if folder.exists())
    if place != path and not place.is_dir():
        raise click.ClickException(f"{path} cannot be written: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise click.ClickException(f"{path} cannot be written: no right to write to {place}")


def write_text(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def command_line(command: str, model: str, options: Mapping[str, object]) -> str:
    """The command for a card: a flag where a value is True, nothing where it is None, False or "".

    Of a path it has the last part only, since a card travels.
    """
    words = ["aenode", command, Path(model).name if Path(model).is_dir() else model]
    for option, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            if one is True:
                words.append(option)
            elif one is not None and one is not False and one != "":
                words += [option, one.resolve().name if isinstance(one, Path) else f"{one}"]
    return shlex.join(words)

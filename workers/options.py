"""What the commands of the workers share: `--json`, and errors in one line."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from models import weights
from models.preparation import OutsideDomain
from models.train import TrainingError
from node.errors import AenodeError, ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def one_line_errors(command: Command) -> Command:
    """Errors that are raised on purpose become one line and exit code 1."""

    @functools.wraps(command)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return command(*arguments, **named)
        except ConfigError:
            raise
        except (AenodeError, weights.WeightsError, TrainingError, OutsideDomain, ValueError) as error:
            raise click.ClickException(str(error)) from error

    return called  # type: ignore[return-value]  # the same arguments and result


def json_option(command: Command) -> Command:
    """Add `--json`; the command gets it as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)

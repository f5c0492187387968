"""The `aenode` command: the root that wires the houses together.

Commands are loaded when they are called, so that a machine that only receives needs no torch.
Exit codes: 0 done, 1 failed, 2 wrong use or wrong settings.
"""

import sys
from importlib import import_module

import click

from node import __version__
from node.errors import AenodeError, ConfigError

_NODE = {
    "up": ("run", "Run everything on this machine, supervised."),
    "receive": ("run", "Run the provider of C-STORE, C-ECHO and STOW-RS."),
    "route": ("run", "Run completion, rules, collection and delivery."),
    "check": ("ask", "Check the settings file, and with --peers the peers."),
    "explain": ("ask", "Say which rules files would match, and why not."),
    "status": ("ask", "Show what is where: series, jobs, deliveries."),
    "find": ("ask", "Show the timeline of a study, series, instance or job."),
    "requeue": ("mend", "Try failed jobs and dead deliveries again."),
    "rebuild": ("mend", "Make the index anew from the spool."),
    "send": ("send", "Send DICOM files to a peer with C-STORE."),
    "probe": ("probe", "Ask a peer what it takes, before going live."),
    "conformance": ("conformance", "Print the DICOM conformance statement."),
    "demo": ("demo", "Show the main job on a phantom or on your own series."),
}
_WORKERS = {
    "work": "Run a worker.",
    "train": "Train a model on your own data.",
    "evaluate": "Measure a model on data it never saw.",
    "models": "List, show and verify models.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_NODE, *_WORKERS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command: click.Command
        if cmd_name in _NODE:
            command = getattr(import_module(f"node.commands.{_NODE[cmd_name][0]}"), cmd_name)
            return command
        if cmd_name in _WORKERS:
            try:
                from workers import cli as workers_cli  # noqa: PLC0415 - the one way into the workers
            except ModuleNotFoundError as missing:
                raise click.ClickException(
                    f"`aenode {cmd_name}` needs the worker's packages ({missing.name} is missing): "
                    'pip install "aenode[worker]"'
                ) from missing
            command = getattr(workers_cli, cmd_name)
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _NODE.items()] + list(_WORKERS.items()))


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="aenode")
def aenode() -> None:
    """A DICOM node that denoises series and marks anomalies with autoencoders.

    \b
    Examples:
      aenode demo                     see the main job done on a phantom
      aenode check                    is config.toml right?
      aenode up                       run the node
      aenode find ACC12345            where is my study?
    """


def main() -> None:
    """Run the command line; errors that are raised on purpose become one line and an exit code."""
    try:
        aenode(prog_name="aenode")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except AenodeError as error:
        click.echo(f"aenode: {error}", err=True)
        sys.exit(1)

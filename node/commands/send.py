"""Send files by C-STORE, as a modality would."""

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from node import reach
from node.commands.options import config_option, json_option, print_json
from node.config import Peer
from node.config_file import load
from node.errors import AenodeError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "name", help="A peer of the settings file.")
@click.option("--address", help="Instead: host:port of any Application Entity.")
@click.option("--called-ae", default="ANY-SCP", show_default=True, help="Its AE title, with --address.")
@click.option("--calling-ae", help="Our AE title.  [default: node.ae_title]")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds for each answer.")
@config_option
@json_option
def send(
    files: tuple[Path, ...],
    name: str | None,
    address: str | None,
    called_ae: str,
    calling_ae: str | None,
    timeout: float,
    config: Path,
    as_json: bool,
) -> None:
    """Send DICOM FILES (files or folders) to a peer with C-STORE, over one association.

    Exit code 1 where one was not taken.

    \b
    Examples:
      aenode send ./series --to archive
      aenode send slice.dcm --address 10.0.0.5:104 --called-ae PACS --calling-ae CT1
    """
    if (name is None) == (address is None):
        raise click.UsageError("name the receiver: --to PEER or --address HOST:PORT")
    if address is not None:
        peer = Peer(name=address.replace(":", " "), ae_title=called_ae, address=address)
        own_ae = calling_ae or "AENODE"
    else:
        settings = load(config)
        found = settings.peer(name or "")
        if found is None or not found.reachable:
            known = ", ".join(p.name for p in settings.peers if p.reachable) or "none is set up"
            raise click.BadParameter(
                f"no peer with an address is called {name!r}; {known}", param_hint="--to"
            )
        peer, own_ae = found, calling_ae or settings.node.ae_title
    paths = [
        p for file in files for p in (sorted(file.rglob("*")) if file.is_dir() else [file]) if p.is_file()
    ]
    if not paths:
        raise AenodeError("there is no file in what was named")
    results = list(
        track(
            reach.store_each(peer, own_ae, paths, timeout=timeout),
            "sending",
            total=len(paths),
            console=Console(stderr=True),
            transient=True,
            disable=as_json,
        )
    )
    missed = [result for result in results if not result.outcome.kept]
    if as_json:
        print_json(results)
    else:
        for result in missed:
            click.echo(f"{result.path}: {result.reason}", err=True)
        click.echo(f"{len(results) - len(missed)} of {len(results)} sent to {peer.title}")
    sys.exit(1 if missed else 0)

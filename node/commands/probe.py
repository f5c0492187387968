"""`aenode probe`: what a peer takes, before anything depends on it."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table

from node.commands.options import config_option, json_option, print_json
from node.config import Peer, Settings, host_port, is_loopback
from node.config_file import load
from node.dicomweb.probing import UNKNOWN
from node.dicomweb.probing import probe as ask_web
from node.dimse.outputs import (
    COMPRESSED_SYNTAXES,
    IMAGE_OUTPUTS,
    NATIVE_SYNTAXES,
    OUTPUT_CLASSES,
    SYNTAX_NAMES,
    WANTED,
)
from node.dimse.probing import Findings
from node.dimse.probing import probe as ask
from node.job import Output
from node.log import escape
from node.transcoding import can_encode


@click.command()
@click.argument("name", metavar="PEER")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds for each answer.")
@config_option
@json_option
def probe(name: str, timeout: float, config: Path, as_json: bool) -> None:
    """Ask PEER what it takes: C-ECHO, each kind of output, storage commitment, C-FIND. Nothing is stored.

    A peer with `dicomweb` is asked by STOW-RS, without an instance, and by QIDO-RS.

    Warns of what would go wrong with the settings as they are. Exit code 1 where there is a warning
    or no answer.

    \b
    Examples:
      aenode probe archive
      aenode probe archive --json
    """
    settings = load(config)
    peer = settings.peer(name)
    if peer is None or not peer.reachable:
        known = ", ".join(p.name for p in settings.peers if p.reachable) or "none is set up"
        raise click.BadParameter(f"no peer with an address is called {name!r}; {known}", param_hint="PEER")
    if peer.dicomweb is None:
        found = ask(peer, settings.node.ae_title, timeout=timeout)
    else:
        found = ask_web(peer, settings.node.ae_title, timeout=timeout)
    warnings = warnings_of(found, peer, settings)
    if as_json:
        print_json({"findings": found, "warnings": warnings})
    else:
        _print(found, peer)
        for warning in warnings:
            click.echo(f"warning: {warning}")
    sys.exit(1 if warnings else 0)


def warnings_of(found: Findings, peer: Peer, settings: Settings) -> list[str]:
    """What would go wrong, or not be proven, with these settings; one sentence each."""
    if found.error:
        return [found.error]
    said = _without_storage(found, settings)
    said += _otherwise_encoded(found, peer, settings)
    web, query = peer.dicomweb is not None, "QIDO-RS" if peer.dicomweb is not None else "C-FIND"
    if web and not found.store:
        said.append(f"results would not arrive: {found.store_error}")
    if found.echo_seconds is None:
        asked = "QIDO-RS" if web else "C-ECHO"
        said.append(f"{peer.name} provides no {asked}, which asks after an outage whether it is back")
    if peer.prove == "commitment" and not found.commitment:
        instead = f"{query} is asked instead" if found.find else f"and no {query}: nothing will be proven"
        said.append(f'prove = "commitment", but {peer.name} has no storage commitment; {instead}')
    elif peer.prove == "find" and not found.find:
        said.append(f'prove = "find", but {query} is not answered: {found.find_error}')
    elif peer.prove == "none":
        better = [kind for kind, has in (("commitment", found.commitment), ("find", found.find)) if has]
        if better:
            said.append(f'prove = "none", but {peer.name} could prove what it keeps: "{better[0]}"')
    if _in_the_clear(peer):
        said.append("results go there in the clear")
    return said


def _without_storage(found: Findings, settings: Settings) -> list[str]:
    """Outputs that rules send to this peer and that it does not take, or only in part."""
    said = []
    for output, users in _wanted(found.peer, settings).items():
        classes = [accepted for accepted in found.accepted if accepted.output == output]
        lacking = [accepted.sop_class.name for accepted in classes if not accepted.storable]
        if classes and len(lacking) == len(classes):
            made_by = ", ".join(users)
            said.append(f"{output} (of {made_by}) would be left out: no {', '.join(lacking)} is accepted")
        elif lacking:
            said.append(f"{output} would be left out for some sources: no {', '.join(lacking)} is accepted")
    return said


def _otherwise_encoded(found: Findings, peer: Peer, settings: Settings) -> list[str]:
    """Where results would go in another transfer syntax than the peer's settings name."""
    if peer.transfer_syntax == "explicit-little":
        return []
    wanted = WANTED[peer.transfer_syntax]
    if not any(map(can_encode, wanted)):
        return [f'transfer_syntax = "{peer.transfer_syntax}", but no encoder for it is installed here']
    outputs = _wanted(found.peer, settings)
    missing = [
        accepted.sop_class.name
        for accepted in found.accepted
        if accepted.output in outputs and accepted.output in IMAGE_OUTPUTS and accepted.storable
        if not set(wanted).intersection(accepted.syntaxes)
    ]
    if not missing:
        return []
    return [f'transfer_syntax = "{peer.transfer_syntax}" is not accepted for {", ".join(missing)}']


def _wanted(peer: str, settings: Settings) -> dict[Output, list[str]]:
    """The kinds of output that rules send to a peer, and the pipelines that make them."""
    wanted: dict[Output, list[str]] = {}
    for rule in settings.rules:
        for name in rule.pipelines if peer in rule.send_to else ():
            pipeline = settings.pipeline(name)
            for output in pipeline.outputs if pipeline else ():
                users = wanted.setdefault(output, [])
                if name not in users:
                    users.append(name)
    return {output: wanted[output] for output in OUTPUT_CLASSES if output in wanted}


def _in_the_clear(peer: Peer) -> bool:
    """Whether results leave this machine without TLS."""
    if peer.dicomweb is not None:
        url = urlsplit(peer.dicomweb)
        return url.scheme == "http" and not is_loopback(url.hostname or "")
    return peer.tls is None and not is_loopback(host_port(peer.address or ":0")[0])


def _print_web(found: Findings, peer: Peer) -> None:
    took = f"answered in {found.echo_seconds * 1000:.0f} ms" if found.echo_seconds is not None else ""
    click.echo(f"QIDO-RS: {took or f'not answered ({escape(found.find_error)})'}")
    click.echo(f"STOW-RS: {'taken' if found.store else f'not taken ({escape(found.store_error)})'}")
    if found.store:
        click.echo(f"  asked without an instance; {UNKNOWN}")
    if peer.address is not None:
        click.echo(f"storage commitment: {'accepted' if found.commitment else 'not accepted'}")


def _print(found: Findings, peer: Peer) -> None:
    where = peer.dicomweb or f"{peer.ae_title} at {peer.address}"
    click.secho(f"{peer.name}: {where}", bold=True)
    if peer.dicomweb is not None:
        if not found.error:
            _print_web(found, peer)
        return
    if found.echo_seconds is not None:
        click.echo(f"answers C-ECHO in {found.echo_seconds * 1000:.0f} ms; {escape(found.implementation)}")
    if not found.accepted:
        return
    table = Table("output", "SOP class", *(name.partition(" VR ")[0] for name in SYNTAX_NAMES.values()))
    for accepted in found.accepted:
        asked = NATIVE_SYNTAXES + (COMPRESSED_SYNTAXES if accepted.output in IMAGE_OUTPUTS else ())
        marks = ["" if s not in asked else "yes" if s in accepted.syntaxes else "no" for s in SYNTAX_NAMES]
        table.add_row(accepted.output, accepted.sop_class.name, *marks)
    Console(width=max(110, Console().width)).print(table)
    click.echo(f"storage commitment: {'accepted' if found.commitment else 'not accepted'}")
    click.echo(f"C-FIND: {'answered' if found.find else f'not answered ({escape(found.find_error)})'}")
    click.echo(f"longest PDU: {found.max_pdu or 'no maximum'}")

"""`aenode models`: what the zoo holds, what each model is worth, and whether it is sound."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models import weights
from workers.export_command import export
from workers.gate_command import gate
from workers.options import json_option, one_line_errors
from workers.vae_commands import encode, sample


@click.group()
def models() -> None:
    """List, show and verify models, and use their codes.

    \b
    Examples:
      aenode models list
      aenode models show ct-anomaly
      aenode models verify
    """


models.add_command(encode)
models.add_command(export)
models.add_command(gate)
models.add_command(sample)


@models.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models of the zoo.

    \b
    Example:
      aenode models list --json
    """
    rows = []
    for folder in weights.list_models():
        row: dict[str, Any] = {"model": f"{folder.parent.name}/{folder.name}"}
        try:
            card = weights.read_card(folder)
            row |= {"kind": card["kind"], "modality": card["input"]["modality"], "usable": True}
            row["weights_sha256"] = card["files"][weights.WEIGHTS]
        except weights.WeightsError as error:
            row |= {"usable": False, "reason": str(error)}
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("model", "kind", "modality", "weights sha256", box=None)
    for row in rows:
        what = [row.get("kind", ""), row.get("modality", ""), row.get("weights_sha256", "")[:16]]
        table.add_row(row["model"], *(what if row["usable"] else [escape(row["reason"]), "", ""]))
    Console().print(table)


@models.command("show")
@click.argument("model")
@json_option
@one_line_errors
def show_command(model: str, as_json: bool) -> None:
    """Show the card of a model: what it takes, what it was taught on, its figures.

    \b
    Example:
      aenode models show ct-anomaly
    """
    folder = weights.resolve(model)
    card = weights.read_card(folder)
    if as_json:
        click.echo(json.dumps(card, indent=2))
    else:
        click.echo((folder / weights.CARD_TEXT).read_text(encoding="utf-8"))


@models.command("verify")
@click.argument("model", nargs=-1)
@json_option
@one_line_errors
def verify_command(model: tuple[str, ...], as_json: bool) -> None:
    """Check every byte of models and run their golden inputs; all of the zoo where none is named.

    Exit codes: 0 all can be used, 1 at least one cannot.

    \b
    Example:
      aenode models verify ct-anomaly
    """
    folders = [weights.resolve(name) for name in model] if model else weights.list_models()
    faults = {f"{folder.parent.name}/{folder.name}": weights.verify(folder) for folder in folders}
    if as_json:
        click.echo(json.dumps(faults, indent=2))
    else:
        for name, found in faults.items():
            click.echo(f"{name}: {'; '.join(found) or 'sound'}")
    sys.exit(1 if any(faults.values()) else 0)

"""`aenode conformance`: the conformance statement."""

import click

from node.conformance import statement


@click.command()
def conformance() -> None:
    """Print the DICOM conformance statement (PS3.2) of this version, as Markdown.

    \b
    Example:
      aenode conformance > deploy/conformance.md
    """
    click.echo(statement(), nl=False)

"""`aenode models export`: a model as ONNX, with a MONAI bundle's metadata."""

from pathlib import Path

import click

from models import weights
from models.export import export as export_model
from workers.options import one_line_errors


@click.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new folder.")
@one_line_errors
def export(model: str, out: Path) -> None:
    """Write the network as ONNX (opset 17) with metadata.json, and compare it with the original.

    Only the network is exported: not the noise estimate, the safety layer or the calibration. Needs
    onnx and onnxruntime.

    \b
    Example:
      aenode models export ct-denoise --out exported/ct-denoise
    """
    for path in export_model(weights.load(model), out):
        click.echo(path)

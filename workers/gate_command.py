"""`aenode models gate`: give a packed model the statistics of its domain gate, as a new version."""

from dataclasses import replace
from pathlib import Path

import click

from models import weights
from models.domain_of import anomaly_domain, denoiser_domain
from models.preparation import Contract
from node.errors import ModelRefused
from workers import recipes
from workers.options import one_line_errors
from workers.terminal import watch

_SOURCE = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--data", multiple=True, required=True, type=_SOURCE, help="What the model was trained on.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Of the new.")
@click.option("--version", "version", required=True, help="Of the new model, like 1.2.3.")
@click.option("--pixel-mm", type=click.FloatRange(min=0.01), help="Pixel size of npz files without one.")
@click.option("--volume", metavar="NAME", help="Of folders with several NIfTI, the one to read.")
@one_line_errors
def gate(
    model: str, data: tuple[Path, ...], out: Path, version: str, pixel_mm: float | None, volume: str | None
) -> None:
    """Fit the domain gate on the training images and write the model with it; weights stay as they are.

    \b
    Example:
      aenode models gate ct-denoise --data /data/ct --version 0.1.1 --out models/zoo/ct-denoise/0.1.1
    """
    loaded = weights.load(model)
    with watch() as watching:
        cases = recipes.read(data, recipes.recipe_of(loaded), pixel_mm, volume, watching).cases
    if loaded.kind == "denoiser":
        modality = str(loaded.card.get("input", {}).get("modality", "CT"))
        domain = denoiser_domain(loaded.network, cases, modality)
    else:
        domain = anomaly_domain(loaded.network, cases, Contract.of(loaded.card))
    if domain is None:
        raise ModelRefused("too few slices or people to fit a gate: 24 slices of 5 people at least")
    changed = replace(loaded, calibration={**loaded.calibration, **domain.to_arrays()})
    weights.repack(weights.resolve(model), out, changed, version)
    click.echo(f"{out}: {loaded.name} {version}")

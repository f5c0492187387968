"""`aenode models encode` and `sample`: codes of series, and what a variational autoencoder draws."""

from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from models import weights
from models.cases import Case
from models.pack_vae import NOVELTY, rarer_than
from models.preparation import Contract, OutsideDomain, prepare
from models.train_vae import on_canvas
from models.vae import VAE, decode_codes, encode_slices, interpolated, novelty
from node.errors import ModelRefused
from workers import device as devices
from workers import recipes
from workers.options import one_line_errors
from workers.terminal import watch
from workers.write.synthetic import picture_of, write_synthetic

_SOURCE = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--data", multiple=True, required=True, type=_SOURCE, help="DICOM, NIfTI, npz or pictures.")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help=".npz or .parquet."
)
@click.option("--pixel-mm", type=click.FloatRange(min=0.01), help="Pixel size of npz files without one.")
@click.option("--volume", metavar="NAME", help="Of folders with several NIfTI, the one to read.")
@click.option("--device", default="cpu", show_default=True, help='Where to compute: "cpu", "cuda", "auto".')
@one_line_errors
def encode(
    model: str, data: tuple[Path, ...], out: Path, pixel_mm: float | None, volume: str | None, device: str
) -> None:
    """Write the codes and the novelty of every slice, for search, clustering and drift.

    A row a slice: person (a hash), series, slice, code (128 numbers), novelty of the slice and of its
    series, and the share of normal series that are less novel, where the model knows a hundred.
    Parquet needs pyarrow.

    \b
    Examples:
      aenode models encode chest-xray-vae --data /data/films --out codes.npz
      aenode models encode runs/ours/model --data /data/films --out codes.parquet
    """
    if out.suffix not in (".npz", ".parquet"):
        raise click.UsageError(f"--out {out.name}: allowed are .npz and .parquet")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ModelRefused("writing Parquet needs pyarrow: pip install pyarrow")
    loaded = _loaded(model, device)
    with watch() as watching:
        cases = recipes.read(data, recipes.recipe_of(loaded), pixel_mm, volume, watching).cases
        columns = _columns(loaded, cases, watching)
    if out.suffix == ".npz":
        np.savez_compressed(out, allow_pickle=False, **columns)
    else:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
        table = {name: list(column) if column.ndim > 1 else column for name, column in columns.items()}
        parquet.write_table(arrow.table(table), out)
    click.echo(f"{out}: {len(columns['slice'])} slices of {len(set(columns['person'].tolist()))} people")


@click.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A folder.")
@click.option("--count", default=8, show_default=True, type=click.IntRange(1, 1000))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
@click.option("--interpolate", is_flag=True, help="Go from one drawn code to another instead.")
@click.option("--dicom", is_flag=True, help="Write DICOM, marked as synthetic, instead of PNG.")
@click.option("--device", default="cpu", show_default=True, help='Where to compute: "cpu", "cuda", "auto".')
@one_line_errors
def sample(model: str, out: Path, count: int, seed: int, interpolate: bool, dicom: bool, device: str) -> None:
    """Draw images that show no patient: PNG, or DICOM whose header and pixels say that they are synthetic.

    \b
    Examples:
      aenode models sample chest-xray-vae --out drawn --count 16
      aenode models sample chest-xray-vae --out drawn --interpolate --dicom
    """
    loaded = _loaded(model, device)
    network = cast(VAE, loaded.network)
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((2 if interpolate else count, network.decode.in_features)).astype(np.float32)
    if interpolate:
        codes = interpolated(codes[0], codes[1], count)
    images = decode_codes(network, codes, loaded.device)
    if dicom:
        name = f"{loaded.name} {loaded.version}"
        now = datetime.now(UTC).astimezone()
        paths = write_synthetic(
            images, out, model=name, weights_sha256=loaded.weights_sha256, seed=seed, now=now
        )
    else:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"{number:04}.png" for number in range(1, count + 1)]
        for path, plane in zip(paths, images, strict=True):
            picture_of(plane).save(path)
    click.echo(f"{out}: {len(paths)} synthetic images")


def _loaded(model: str, device: str) -> weights.LoadedModel:
    loaded = weights.load(model, devices.choose(device))
    if loaded.kind != "vae":
        raise ModelRefused(f"model {loaded.name} is a {loaded.kind} and has no codes; a vae has")
    return loaded


def _columns(loaded: weights.LoadedModel, cases: list[Case], watching: recipes.Watch) -> dict[str, Any]:
    contract, network = Contract.of(loaded.card), cast(VAE, loaded.network)
    known = np.asarray(loaded.calibration[NOVELTY], np.float32)
    rows: dict[str, list[Any]] = {name: [] for name in ("person", "series", "slice", "code")}
    rows |= {"novelty": [], "series_novelty": [], "rarer_than": []}
    for number, case in enumerate(cases):
        try:
            ready = prepare(case.volume, case.padding, case.spacing, contract)
            images, masks = on_canvas([ready], network.canvas)
        except (OutsideDomain, ValueError) as error:
            watching.note(f"a case of {len(case.volume)} slices is left out: {error}")
            continue
        kept = [k for k, inside in enumerate(ready.foreground) if inside.mean() > 0.02]
        new = novelty(network, images, masks, loaded.device)
        whole = float(np.median(new))
        rank = rarer_than(known, whole)
        rows["person"] += [case.person] * len(kept)
        rows["series"] += [number] * len(kept)
        rows["slice"] += kept
        rows["code"] += list(encode_slices(network, images, loaded.device))
        rows["novelty"] += new.tolist()
        rows["series_novelty"] += [whole] * len(kept)
        rows["rarer_than"] += [np.nan if rank is None else rank] * len(kept)
        watching.measured(number + 1, len(cases))
    if not rows["slice"]:
        raise OutsideDomain("no series could be encoded")
    return {name: np.asarray(values) for name, values in rows.items()}

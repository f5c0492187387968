"""The commands that need torch: train, evaluate, models and work. node/cli.py loads them when called."""

import json
import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from pydantic import ValidationError

from models import weights
from models.card_again import card_again, require_told
from models.losses import LOSSES
from node import log
from node.config_file import load
from workers import asked, recipes
from workers import device as devices
from workers.album import Album
from workers.options import Command, command_line, json_option, one_line_errors, require_writable, write_text
from workers.request import MINUTES, MODEL_FOLDER
from workers.terminal import show_figures, watch, what_was_measured
from workers.zoo_commands import models

__all__ = ["evaluate", "models", "train", "work"]

_SOURCE = click.Path(exists=True, path_type=Path)


def _data_options(command: Command) -> Command:
    for option in (
        click.option(
            "--volume", metavar="NAME", help="Of folders with several NIfTI, the one to read: T1.nii.gz."
        ),
        click.option(
            "--pixel-mm", type=click.FloatRange(min=0.01), help="Pixel size of npz files without one."
        ),
        click.option(
            "--device", default="auto", show_default=True, help='Where to compute: "cpu", "cuda", "auto".'
        ),
    ):
        command = option(command)
    return command


def _version(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not weights.is_version(value):
        raise click.BadParameter(f"{value!r} is not like 1.2.3")
    return value


@click.command()
@click.argument("name", type=click.Choice(recipes.NAMES))
@click.option("--data", multiple=True, type=_SOURCE, help="DICOM folder, NIfTI or npz; may be repeated.")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run folder."
)
@click.option("--test", multiple=True, type=_SOURCE, help="Other people, for the card's figures.")
@click.option("--minutes", default=MINUTES, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--steps", type=click.IntRange(min=4), help="Instead of --minutes, to do a training again.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
@click.option("--resume", is_flag=True, help="Go on with the stopped run in the run folder, as it began.")
@click.option(
    "--version", default="0.1.0", show_default=True, callback=_version, help="Of the model, like 1.2.3."
)
@click.option("--about", type=_SOURCE, help="TOML with description, training_data, warning, licence.")
@click.option("--from", "start", metavar="MODEL", help="Fine-tune this model instead of a new network.")
@click.option(
    "--loss", type=click.Choice(LOSSES), help="Instead of the recipe's own, mse; a denoiser takes no bce."
)
@click.option("--noisy", is_flag=True, help="A denoiser from noisy series alone; --test must be clean.")
@click.option(
    "--compiled/--no-compiled",
    default=None,
    help="Compile the network first: a minute, then mostly faster steps; needs g++.  [default: on a GPU]",
)
@_data_options
@json_option
@click.pass_context
@one_line_errors
def train(
    context: click.Context, /, name: str, out: Path, resume: bool, as_json: bool, **options: Any
) -> None:
    """Train a model on your own data, measure it, and write RUN/model with its card.

    People, not slices, are divided into training, calibration and test. Ctrl-C stops a run after the
    step it is in; --resume goes on with it, and takes every option that is not given from RUN/request.json.
    One that differs is refused, and so are data that changed. Use the result by its path:
    model = "RUN/model" in config.toml. A denoiser's pictures of patients are in RUN/pictures.

    Exit codes: 0 done, 1 stopped, or the data or the run cannot be used, 2 wrong use.

    \b
    Examples:
      aenode train ct-anomaly --data /data/normal-ct --out runs/ours --minutes 60
      aenode train ct-anomaly --out runs/ours --resume
      aenode train brain-mr-anomaly --data /data/t1.npz --pixel-mm 0.87 --out runs/brain
      aenode train ct-denoise --from ct-denoise --noisy --data /data/thin --test /data/clean --out runs/n2n
    """
    given = {
        option: value
        for option, value in options.items()
        if context.get_parameter_source(option) is not ParameterSource.DEFAULT
    }
    if not resume and "data" not in given:
        data = next(parameter for parameter in context.command.params if parameter.name == "data")
        raise click.MissingParameter(ctx=context, param=data)
    if "about" in given:
        given |= {"lineage": _about(given["about"]), "about": given["about"].name}
    try:
        request = asked.request_of(name, out, given, resume=resume)
        with watch() as watching:
            card = recipes.train(request, watching)
    except KeyboardInterrupt as stop:
        raise click.ClickException(asked.stopped(name, out, stop)) from stop
    if as_json:
        click.echo(json.dumps(card, indent=2))
    else:
        click.echo(f"{out / MODEL_FOLDER}: {card['name']} {card['version']}")
        show_figures(card.get("metrics", {}))


@click.command()
@click.argument("model")
@click.option("--data", multiple=True, required=True, type=_SOURCE, help="People the model never saw.")
@click.option("--tune", multiple=True, type=_SOURCE, help="Others, to tune a denoiser's classical rivals on.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where the figures go, as JSON.")
@click.option(
    "--card", type=click.Path(dir_okay=False, path_type=Path), help="Where a CARD.md with them goes."
)
@click.option("--pictures", type=click.Path(file_okay=False, path_type=Path), help="Folder for PNGs.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of all that is drawn: added noise, phantoms, inserted lesions, the people of a bootstrap or probe.",
)
@_data_options
@json_option
@one_line_errors
def evaluate(
    model: str,
    data: tuple[Path, ...],
    tune: tuple[Path, ...],
    out: Path | None,
    card: Path | None,
    pictures: Path | None,
    seed: int,
    device: str,
    pixel_mm: float | None,
    volume: str | None,
    as_json: bool,
) -> None:
    """Measure a model on data it never saw, beside its baselines; print and write the figures.

    MODEL is a name of the zoo (ct-anomaly, ct-anomaly/0.1.0) or a model folder. The figures go to
    NAME-VERSION-figures.json, or to --out; --card writes them as a CARD.md like the model's own, which
    stays as it is. Pictures of the best, the median and the worst case show patients' pixels: they stay
    where you put them. What was left out is said on standard error.

    Exit codes: 0 done, 1 the model or the data cannot be used, 2 wrong use.

    \b
    Examples:
      aenode evaluate ct-anomaly --data /data/other-ct
      aenode evaluate runs/ours/model --data /data/other-ct --json
      aenode evaluate ct-anomaly --data /data/other-ct --card ct-anomaly-on-ours.md
      aenode evaluate mr-denoise --data t1.npz --tune others.npz --pixel-mm 0.87 --pictures seen
    """
    loaded = weights.load(model, devices.choose(device))
    if pictures is not None and loaded.kind == "vae":
        raise click.UsageError(
            f"--pictures: {loaded.name} is a variational autoencoder, which has none to show"
        )
    target = out or Path(f"{loaded.name}-{loaded.version}-figures.json")
    for path in filter(None, (target, card, pictures)):
        require_writable(path)
        if (path.absolute().parent / weights.CARD).is_file():
            raise click.UsageError(f"{path} is in a model's folder, which would no longer hold to its hashes")
    if card is not None:
        require_told(loaded)
    with watch() as watching:
        recipe = recipes.recipe_of(loaded)
        cases = recipes.read(data, recipe, pixel_mm, volume, watching).cases
        others = recipes.read(tune, recipe, pixel_mm, volume, watching).cases if tune else []
        album = Album()
        figures = recipes.evaluate(loaded, cases, seed, watching, tuning=others, shown=album.add)
        people, slices = len({case.person for case in cases}), sum(len(case.volume) for case in cases)
        for sentence in what_was_measured(figures, people, slices):
            watching.note(sentence)
    text = json.dumps(figures, indent=2)
    if as_json:
        click.echo(text)
    else:
        show_figures(figures)
    write_text(target, text + "\n")
    written = [target]
    if card is not None:
        options = {"--data": data, "--tune": tune, "--pixel-mm": pixel_mm, "--volume": volume, "--seed": seed}
        command = command_line("evaluate", model, options)
        write_text(card, card_again(loaded, figures, command=command, people=people, slices=slices))
        written.append(card)
    if pictures is not None:
        drawn = album.write(pictures)
        written += drawn
        if not drawn:
            click.echo(f"note: nothing to show, so that {pictures} has no new picture", err=True)
    if not as_json:
        click.echo(f"written to {', '.join(str(path) for path in written)}")


@click.command()
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("config.toml"),
    envvar="AENODE_CONFIG",
    show_default=True,
    help="The settings file ($AENODE_CONFIG).",
)
@click.option("--concurrency", type=click.IntRange(1, 64), help="Instead of workers.processes.")
@click.option("--device", help="Instead of workers.device.")
def work(config: Path, concurrency: int | None, device: str | None) -> None:
    """Run a worker: it takes jobs from Redis, and does each in a child process.

    SIGTERM lets running jobs finish; waiting ones stay in Redis.

    \b
    Examples:
      aenode work
      aenode work --config /etc/aenode/config.toml --concurrency 2 --device cuda:1
    """
    from workers import tasks  # noqa: PLC0415 - Celery is only needed here

    settings = load(config)
    changes = {"processes": concurrency, "device": device}
    asked = {key: value for key, value in changes.items() if value is not None}
    try:
        chosen = type(settings.workers).model_validate(settings.workers.model_dump() | asked)
    except ValidationError as error:
        raise click.UsageError(
            f'--device {device!r}: allowed are "auto", "cpu", "cuda", "cuda:1" and "openvino"'
        ) from error
    log.start(settings.log)
    tasks.serve(tasks.make_app(settings.broker_url, chosen, settings.node.data), chosen)


def _about(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    allowed = {"description", "training_data", "warning", "licence"}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error
    if wrong := sorted(set(table) - allowed):
        raise click.UsageError(
            f"{path}: no such entry: {', '.join(wrong)}; allowed: {', '.join(sorted(allowed))}"
        )
    return {key: str(value) for key, value in table.items()}

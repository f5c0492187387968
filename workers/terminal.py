"""What train and evaluate show a person: progress on standard error, figures on standard output."""

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.evaluate_anomaly import EXPERT, METHODS
from models.train import Progress as Step
from workers.recipes import Watch


@contextmanager
def watch() -> Iterator[Watch]:
    """Progress on standard error, so that standard output is only the result."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int, detail: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, detail=detail)
            bars.update(tasks[what], completed=done, total=total, detail=detail)

        def stepped(step: Step) -> None:
            measures = " ".join(
                f"{name} {value:.4g}" for name, value in step.measures.items() if name != "loss"
            )
            left = f"{step.eta_seconds / 60:.0f} min left"
            advance("training", step.step, step.steps, f"loss {step.loss:.4g} {measures} {left}")

        yield Watch(
            read=functools.partial(advance, "reading"),
            prepared=functools.partial(advance, "simulating noise"),
            step=stepped,
            measured=functools.partial(advance, "measuring"),
            note=lambda sentence: console.print(f"note: {escape(sentence)}"),
        )


def what_was_measured(figures: Mapping[str, Any], people: int, slices: int) -> list[str]:
    """Sentences for a person: how much was read and how much measured, and what was left out and why."""
    said = [f"read: {people} people, {slices} slices", *figures.get("notes", [])]
    if "phantom" in figures:
        judged = figures["people"]
        said.insert(1, f"measured: {judged['people']} people, {judged['slices']} slices")
        if judged["slices"] < slices:
            said.append(
                f"the other {slices - judged['slices']} slices are no truth for a denoiser (too noisy, too "
                "little of a person), tune the classical filters, or were thinned out evenly"
            )
    elif "compression" in figures:
        said.insert(1, f"measured: {figures['people']} people, {figures['slices']} slices")
    else:
        normals, images = figures["normals"], figures.get("images")
        parts = [f"{normals['people']} normal people, {normals['slices']} slices"]
        masked = [row for row in figures["lesions"] if row["kind"].startswith(EXPERT)]
        if masked:
            count = sum(row["slices"] for row in masked)
            parts.append(f"{len(masked)} cases with an expert's mask, {count} slices")
        if images is not None:
            parts.append(f"{images['images']} whole images of {images['people']} people")
        said.insert(1, f"measured: {'; '.join(parts)}")
    return said


def show_figures(figures: dict[str, Any]) -> None:
    """The figures of an anomaly model as a table; any others as JSON."""
    if "lesions" not in figures:
        click.echo(json.dumps(figures, indent=2))
        return
    normals = figures["normals"]
    if normals["slices"]:
        click.echo(
            f"normal people: {normals['people']}, slices: {normals['slices']}, "
            f"pixels above the threshold: {100 * normals['false_positive_rate']:.2f} %"
        )
    for row in figures.get("images", {}).get("rows", []):
        click.echo(f"whole images, {row['method']}: AUROC {row['auroc']:.3f}, AP {row['ap']:.3f}")
    table = Table("lesions", "prevalence", "method", "AP", "AUROC", "Dice, fixed", "Dice, best", box=None)
    for row in figures["lesions"]:
        for method in (name for name in METHODS if name in row):
            one = row[method]
            values = [one["ap"], one["auroc"], one["dice_fixed"], one["dice_oracle"]]
            shown = ["–" if value is None else f"{value:.3f}" for value in values]
            table.add_row(escape(row["kind"]), f"{row['prevalence']:.4f}", method, *shown)
    Console().print(table)

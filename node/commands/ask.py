"""The commands that only look: check, explain, status, find."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path

import click
import pydicom
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from node import reach
from node.commands.options import config_option, json_option, now, print_json
from node.config import Peer, Settings
from node.config_file import load
from node.dimse.tls import TLSFilesError, acceptor_context, requestor_context
from node.entities import Event
from node.errors import AenodeError, ConfigError, PeerError
from node.index import Index, SeriesReport, Status
from node.log import escape
from node.receive.credentials import TokenError, expected_token
from node.route import rules
from node.sop_classes import companions_only

_PROGRESS_FROM = 100  # files; fewer are read in a blink


@click.command()
@config_option
@click.option("--peers", is_flag=True, help="Also ask every peer that we can reach whether it answers.")
@click.option(
    "--models", is_flag=True, help="Also prove every pipeline's model; needs the worker's packages."
)
@json_option
def check(config: Path, peers: bool, models: bool, as_json: bool) -> None:
    """Check the settings file: every mistake with its line and what is allowed.

    Exit code 0: right; 1: a certificate or token cannot be used, a peer does not answer or a model is not
    whole; 2: mistakes in the file.

    \b
    Examples:
      aenode check
      aenode check --peers --models --config /etc/aenode/config.toml
    """
    try:
        settings = load(config)
    except ConfigError as error:
        if as_json:
            print_json({"file": error.file, "problems": error.problems, "peers": []})
        else:
            click.echo(str(error), err=True)
        sys.exit(2)
    faults = _access_faults(settings)
    answers = [_echo(settings, peer) for peer in settings.peers if peer.reachable] if peers else []
    verdicts = _verify(dict.fromkeys(p.model for p in settings.pipelines)) if models else []
    if as_json:
        found = {"file": str(config), "problems": [], "tls": faults, "peers": answers, "models": verdicts}
        print_json(found)
    else:
        click.echo(
            f"{config} is right: {len(settings.peers)} peers, {len(settings.pipelines)} pipelines, "
            f"{len(settings.rules)} rules"
        )
        for fault in faults:
            click.echo(f"{fault['setting']}: {fault['error']}")
        for answer in answers:
            click.echo(f"{answer['peer']}: {answer['error'] or 'answers'}")
        for verdict in verdicts:
            click.echo(f"{verdict['model']}: {verdict['error'] or 'whole'}")
    sys.exit(1 if any(said["error"] for said in [*faults, *answers, *verdicts]) else 0)


def _access_faults(settings: Settings) -> list[dict[str, str]]:
    """Certificates, keys and tokens that cannot be used. Only the machines that need them may have them."""
    faults = []
    uses: list[tuple[str, Callable[[], object]]] = []
    if (own := settings.node.tls) is not None:
        uses.append(("node.tls", partial(acceptor_context, own)))
    if (web := settings.dicomweb.acceptor) is not None:
        uses.append(("dicomweb.tls", partial(acceptor_context, web)))
    uses += [(f"peer {p.name}", partial(requestor_context, p.tls)) for p in settings.peers if p.tls]
    if settings.dicomweb.bind is not None:
        with_token = [p for p in settings.peers if p.receive_token_file or p.receive_token_env]
        uses += [(f"peer {p.name}", partial(expected_token, p)) for p in with_token]
    for setting, use in uses:
        try:
            use()
        except (TLSFilesError, TokenError) as error:
            faults.append({"setting": setting, "error": str(error)})
    return faults


def _echo(settings: Settings, peer: Peer) -> dict[str, str]:
    try:
        reach.echo(peer, settings.node.ae_title, timeout=5)
    except PeerError as error:
        return {"peer": peer.name, "error": str(error)}
    return {"peer": peer.name, "error": ""}


def _verify(names: Iterable[str]) -> list[dict[str, str]]:
    """Asks the worker's command, so that the node itself needs no torch."""
    verdicts = []
    for name in names:
        command = [sys.executable, "-m", "node", "models", "verify", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        verdicts.append({"model": name, "error": " ".join(said) if done.returncode else ""})
    return verdicts


@click.command()
@config_option
@json_option
def status(config: Path, as_json: bool) -> None:
    """Show what is where: series, jobs and deliveries by state, and the age of each queue.

    \b
    Examples:
      aenode status
      aenode status --json
    """
    with closing(Index.open(load(config))) as index:
        found = index.status()
    if as_json:
        print_json(found)
        return
    console = Console()
    table = Table("", "by state", "oldest waiting")
    for name, counts, oldest in (
        ("series", found.series, found.oldest_receiving_at),
        ("jobs", found.jobs, found.oldest_queued_at),
        ("deliveries", found.deliveries, found.oldest_pending_at),
    ):
        age = f"{(now() - oldest).total_seconds():.0f} s" if oldest else ""
        table.add_row(name, _counted(counts), age)
    for peer in found.peers:
        oldest = peer.oldest_pending_at
        age = f"{(now() - oldest).total_seconds():.0f} s" if oldest else ""
        cut_off = f"; left alone: {escape(peer.breaker_reason)}" if peer.breaker != "CLOSED" else ""
        table.add_row(f"  to {peer.peer}", _counted(peer.deliveries) + cut_off, age)
    console.print(table)
    console.print(_kept(found))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _kept(found: Status) -> str:
    return (
        f"{found.instances} instances kept, {found.defects} of them set apart; "
        f"{found.open_associations} associations open"
    )


@click.command()
@click.argument("text")
@config_option
@json_option
def find(text: str, config: Path, as_json: bool) -> None:
    """Show the timeline of TEXT: an accession number, a UID (study, series, instance, result) or a job id.

    Exit code 1 where nothing is known of it.

    \b
    Examples:
      aenode find ACC12345
      aenode find 1.2.840.113619.2.5.1762583153 --json
    """
    with closing(Index.open(load(config))) as index:
        reports = index.find(text)
    if as_json:
        print_json([_with_seconds(report) for report in reports])
    elif not reports:
        click.echo(f"nothing is known of {escape(text)}", err=True)
    else:
        for report in reports:
            _print_report(report)
    sys.exit(0 if reports else 1)


def _with_seconds(report: SeriesReport) -> dict[str, object]:
    fields = {name: getattr(report, name) for name in report.__dataclass_fields__}
    return fields | {"seconds_to_result": report.seconds_to_result}


def _print_report(report: SeriesReport) -> None:
    click.secho(f"series {report.series_instance_uid}", bold=True)
    click.echo(f"study  {report.study_instance_uid}")
    if report.accession_number:
        click.echo(f"accession number {escape(report.accession_number)}")
    for (entity, key, state, reason), group in groupby(report.events, _line_of):
        events = list(group)
        about = entity if len(events) == 1 else f"{len(events)} × {entity}"
        at = f"{events[-1].at:%Y-%m-%d %H:%M:%S.%f}"[:-3]
        click.echo(f"  {at}  {f'{about} {key}':22} {state:12} {escape(reason)}".rstrip())
    for held in report.defects:
        click.echo(f"  set apart: {held.sop_instance_uid}: {escape(held.defect)}")
    if report.seconds_to_result is not None:
        seconds = report.seconds_to_result
        click.echo(f"  {seconds:.2f} s from the association's release to the last result sent")


def _line_of(event: Event) -> tuple[str, str, str, str]:
    """What makes neighbouring events one line: a series' deliveries would else take hundreds."""
    key = event.key[:12] if event.entity == "job" else ""
    return event.entity, key, event.state, event.reason


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@config_option
@click.option("--calling-ae", default="", help="The AE title that would send them.")
@json_option
def explain(files: tuple[Path, ...], config: Path, calling_ae: str, as_json: bool) -> None:
    """Say for each series in FILES (files or folders) which rules match, and which attribute failed.

    Exit code 1 where no rule matches any of them.

    \b
    Examples:
      aenode explain slice.dcm
      aenode explain ./series --calling-ae CT1
    """
    settings = load(config)
    paths = [
        p for file in files for p in (sorted(file.rglob("*")) if file.is_dir() else [file]) if p.is_file()
    ]
    series = _headers_by_series(paths, settings)
    matched = False
    printed = []
    for uid, headers in series.items():
        about = {"calling_ae": calling_ae, "called_ae": settings.node.ae_title}
        kinds = companions_only(str(ds.get("SOPClassUID", "")) for ds in headers)
        asked = () if kinds else settings.rules
        decisions = rules.decide(asked, headers, **about)
        matched = matched or any(decision.matched for decision in decisions)
        if as_json:
            verdicts = [
                {"rule": d.rule.name, "matched": d.matched, "failures": d.failures} for d in decisions
            ]
            told = {"no_images": kinds} if kinds else {}
            printed.append({"series": uid, "instances": len(headers), "rules": verdicts, **told})
        else:
            click.echo(f"series {escape(uid)}: {len(headers)} instances")
            if kinds:
                click.echo(f"  no images, so no rule is asked: {kinds}")
            for line in rules.explain(asked, headers, **about):
                click.echo(f"  {line}")
    if as_json:
        print_json(printed)
    sys.exit(0 if matched else 1)


def _headers_by_series(paths: list[Path], settings: Settings) -> dict[str, list[pydicom.Dataset]]:
    """What the rules ask of each DICOM file; files that are none are named on standard error."""
    wanted = sorted({"SeriesInstanceUID", "SOPClassUID", *rules.keywords(settings.rules)})
    series: dict[str, list[pydicom.Dataset]] = {}
    shown = track(
        paths, "reading", console=Console(stderr=True), disable=len(paths) < _PROGRESS_FROM, transient=True
    )
    for path in shown:
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(wanted))
        except (InvalidDicomError, *rules.UNDECODABLE) as error:
            click.echo(f"{path}: not read as DICOM: {escape(str(error))}", err=True)
        else:
            series.setdefault(str(ds.get("SeriesInstanceUID", "")), []).append(ds)
    if not series:
        raise AenodeError("there is no DICOM file in what was named")
    return series

"""The main job, shown: a series goes in by C-STORE and comes back to an archive.

The models' houses are asked by command (`python -m workers…`), so that this module needs no torch.
"""

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import click
import pydicom
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.table import Table

from node.commands import archive as archives
from node.commands.options import json_option, now, print_json
from node.config import Peer, Settings
from node.config_file import load
from node.dimse import scu
from node.entities import Delivery
from node.errors import AenodeError, PeerError
from node.index import Index, SeriesReport
from node.states import AT_PEER, DeliveryState, JobState, SeriesState

_MARK = ".aenode-demo"
_SETTLED = (SeriesState.ROUTED, SeriesState.IGNORED, SeriesState.QUARANTINED)

_CONFIG = """\
# Written by `aenode demo`.
[node]
bind = "127.0.0.1:{port}"
data = "data"
[receive]
min_free = "100 MiB"
[completion]
quiet_seconds = 1
ask_source = false
[workers]
time_limit_seconds = {limit}
[[peers]]
name = "scanner"
ae_title = "SCANNER"
[[peers]]
name = "archive"
ae_title = "{archive.ae_title}"
address = "{archive.address}"
[[pipelines]]
name = "ct-denoise"
model = "ct-denoise"
outputs = ["derived"]
[[pipelines]]
name = "ct-anomaly"
model = "ct-anomaly"
outputs = ["capture", "segmentation", "report"]
[[pipelines]]
name = "brain-mr-anomaly"
model = "brain-mr-anomaly"
outputs = ["capture", "segmentation", "report"]
[[rules]]
name = "CT"
when = {{ Modality = "CT" }}
pipelines = ["ct-denoise", "ct-anomaly"]
send_to = ["archive"]
[[rules]]
name = "MR"
when = {{ Modality = "MR" }}
pipelines = ["brain-mr-anomaly"]
send_to = ["archive"]
"""


@dataclass(frozen=True, slots=True)
class _Result:
    role: str
    instances: int
    series_description: str
    series_number: int
    folder: Path


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", default=Path("aenode-demo"), type=click.Path(path_type=Path), show_default=True)
@click.option("--slices", default=16, show_default=True, help="Slices of the phantom.")
@click.option("--seed", default=1, show_default=True, help="Another seed is another phantom.")
@click.option("--timeout", default=300, show_default=True, help="Seconds until it gives up.")
@json_option
def demo(folder: Path | None, out: Path, slices: int, seed: int, timeout: int, as_json: bool) -> None:
    """Show the main job: send a CT series to a node, and print what comes back to the archive.

    Without FOLDER the series is a simulated phantom; with it, the DICOM files below it. The
    node, its Redis and an archive run for the length of the demo, on loopback only. Exit code 1
    where nothing came back.

    \b
    Examples:
      aenode demo
      aenode demo ./my-series --out /tmp/demo
    """
    console = Console(stderr=True)
    out = _cleared(out)
    with ExitStack() as stack:
        source = folder or _phantom(out / "input", slices, seed, console)
        console.print("starting an archive and the node")
        archive = archives.start(out / "archive")
        stack.callback(archive.stop)
        config = out / "config.toml"
        port = archives.free_port()
        config.write_text(_CONFIG.format(port=port, archive=archive.peer, limit=timeout))
        settings = load(config)
        stack.callback(_stop, _up(config, out / "node.log"))
        node = Peer(name="node", ae_title=settings.node.ae_title, address=settings.node.bind)
        _wait_for_echo(node, out / "node.log")
        begun = time.monotonic()
        sent = _send(node, source, console)
        reports = _wait_for_results(settings, sent, timeout, console)
        seconds = time.monotonic() - begun
        results = _fetch(reports, archive, out / "results")
        picture = _picture(out, source, console)
    _say(reports, results, archive.name, picture, seconds, as_json)
    if not results:
        raise AenodeError("nothing came back; the reasons are above")


def _cleared(out: Path) -> Path:
    """An empty folder; one that an earlier demo wrote is emptied, any other is left alone."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).exists():
            raise AenodeError(
                f"{out} is not empty and is not from an earlier demo; choose another with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()
    return out.resolve()


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-m", module, *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise AenodeError(f"{module} failed: {done.stderr.strip().splitlines()[-1:]}")


def _phantom(folder: Path, slices: int, seed: int, console: Console) -> Path:
    with console.status(f"simulating a CT of a phantom, {slices} slices"):
        _run("workers.write.phantom", str(folder), "--slices", str(slices), "--seed", str(seed))
    return folder


def _up(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        command = [sys.executable, "-m", "node", "up", "--config", str(config)]
        return subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - ourselves


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _wait_for_echo(node: Peer, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            scu.echo(node, "SCANNER", timeout=5)
        except PeerError as error:
            if time.monotonic() > deadline:
                raise AenodeError(f"the node did not start; its log is {log}") from error
            time.sleep(0.1)
        else:
            return


def _send(node: Peer, source: Path, console: Console) -> set[str]:
    """Send every DICOM file below `source`; the Series Instance UIDs sent."""
    files, series = [], set()
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        try:
            ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except InvalidDicomError:
            continue
        if "SeriesInstanceUID" in ds:
            files.append(file)
            series.add(str(ds.SeriesInstanceUID))
    if not files:
        raise AenodeError(f"there is no DICOM file below {source}")
    begun = time.monotonic()
    results = scu.store_batch(node, "SCANNER", files)
    for result in results:
        if not result.outcome.kept:
            console.print(f"{result.path}: {result.reason}", markup=False)
    kept = sum(result.outcome.kept for result in results)
    console.print(f"sent {kept} of {len(files)} instances in {time.monotonic() - begun:.1f} s")
    if not kept:
        raise AenodeError("the node took none of the files")
    return series


def _wait_for_results(
    settings: Settings, sent: set[str], timeout: float, console: Console
) -> list[SeriesReport]:
    deadline = time.monotonic() + timeout
    with closing(Index.open(settings)) as index, console.status("waiting for the results"):
        while True:
            reports = [report for uid in sorted(sent) for report in index.find(uid)]
            if len(reports) == len(sent) and all(_over(report) for report in reports):
                return reports
            if time.monotonic() > deadline:
                raise AenodeError(
                    f"no result within {timeout:.0f} s; look at `aenode status` and the node's log"
                )
            time.sleep(0.1)


def _over(report: SeriesReport) -> bool:
    last = report.revisions[-1] if report.revisions else None
    if last is None or last.state not in _SETTLED:
        return last is None and bool(report.defects)
    jobs_over = all(job.job.state in (JobState.DONE, JobState.FAILED) for job in report.jobs)
    return jobs_over and not any(d.state is DeliveryState.PENDING for j in report.jobs for d in j.deliveries)


def _fetch(reports: list[SeriesReport], archive: archives.Archive, folder: Path) -> list[_Result]:
    """Read the results back from the archive, one folder a series."""
    by_series: dict[str, list[Delivery]] = {}
    for report in reports:
        for job in report.jobs:
            for delivery in job.deliveries:
                if delivery.state in AT_PEER:
                    by_series.setdefault(delivery.artifact.series_instance_uid, []).append(delivery)
    results = []
    for number, deliveries in enumerate(by_series.values(), start=1):
        role = deliveries[0].artifact.role
        place = folder / f"{number}-{role}"
        place.mkdir(parents=True)
        for count, delivery in enumerate(deliveries, start=1):
            file = place / f"{count:04}.dcm"
            file.write_bytes(archive.fetch(delivery.artifact.sop_instance_uid))
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        results.append(_Result(role, len(deliveries), str(ds.SeriesDescription), int(ds.SeriesNumber), place))
    return results


def _picture(out: Path, source: Path, console: Console) -> Path | None:
    if not (out / "results").exists():
        return None
    picture = out / "side-by-side.png"
    with console.status("drawing"):
        _run("workers.picture", str(picture), "--source", str(source), "--results", str(out / "results"))
    return picture


def _say(
    reports: list[SeriesReport],
    results: list[_Result],
    archive: str,
    picture: Path | None,
    seconds: float,
    as_json: bool,
) -> None:
    reasons = [
        *(r.revisions[-1].reason for r in reports if r.revisions and r.revisions[-1].reason),
        *(
            f"{j.job.pipeline}: {j.job.reason}"
            for r in reports
            for j in r.jobs
            if j.job.state is JobState.FAILED
        ),
        *(
            f"{d.artifact.role}: {d.reason}"
            for r in reports
            for j in r.jobs
            for d in j.deliveries
            if d.state not in AT_PEER
        ),
        *(f"{held.sop_instance_uid}: {held.defect}" for r in reports for held in r.defects),
    ]
    if as_json:
        print_json(
            {"at": now(), "archive": archive, "results": results, "picture": picture, "seconds": seconds}
            | {"reasons": reasons, "seconds_to_result": [r.seconds_to_result for r in reports]}
        )
        return
    table = Table("series", "number", "instances", "files", title=f"What came back to {archive}")
    for result in results:
        table.add_row(
            f"{result.series_description} ({result.role})",
            str(result.series_number),
            str(result.instances),
            str(result.folder),
        )
    console = Console(soft_wrap=True)
    console.print(table)
    for reason in reasons:
        console.print(reason, markup=False)
    console.print(f"{seconds:.1f} s from the first instance sent to the last result in the archive")
    if picture:
        console.print(f"side by side: {picture}", markup=False)

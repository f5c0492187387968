"""From the association's release to the last result in the archive, and how much of it is overhead.

    python -m tests.benchmarks.end_to_end [FOLDER of a CT series] [--runs 3] [--model ct-denoise …]

Starts Orthanc and `aenode up`, sends the series by DCMTK's storescu (each time under new UIDs), and
reads the times that the node itself has: `aenode find` for the span, the jobs' manifests for the
steps. Transfer time is that of sending the same result files once more, to an empty Orthanc, over one
association. Then

    overhead = (span − quiet period) ÷ (model time + transfer time)

The first run loads the models, the later ones find them loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import generate_uid

from node.config import Peer
from node.dimse.scu import store_batch
from node.job import MANIFEST, Manifest
from tests.conftest import ROOT
from tests.peers import LOOPBACK, Orthanc, Server, dcmtk, wait_for

QUIET_SECONDS = 1.0
_GIVE_UP_SECONDS = 900.0
_CONFIG = """\
[node]
bind = "{host}:{port}"
data = "data"
[receive]
min_free = "100 MiB"
[completion]
quiet_seconds = {quiet}
ask_source = false
[[peers]]
name = "scanner"
ae_title = "SCANNER"
[[peers]]
name = "archive"
ae_title = "ORTHANC"
address = "{archive}"
{pipelines}
[[rules]]
name = "CT"
when = {{ Modality = "CT" }}
pipelines = {names}
send_to = ["archive"]
"""
_OUTPUTS = {"ct-denoise": "derived", "ct-anomaly": "capture"}


class Node(Server):
    """`aenode up` on a settings file of its own."""

    def __init__(self, folder: Path, archive: str, models: dict[str, str]) -> None:
        super().__init__(folder)
        self.config = folder / "config.toml"
        sections = [
            f'[[pipelines]]\nname = "{name}"\nmodel = "{model}"\noutputs = ["{_OUTPUTS[name]}"]'
            for name, model in models.items()
        ]
        self.config.write_text(
            _CONFIG.format(
                host=LOOPBACK,
                port=self.port,
                quiet=QUIET_SECONDS,
                archive=archive,
                pipelines="\n".join(sections),
                names=json.dumps(list(models)),
            )
        )

    def command(self) -> list[str]:
        return [sys.executable, "-m", "node", "up", "--config", str(self.config)]

    def find(self, uid: str) -> dict[str, Any] | None:
        """What `aenode find --json` says of a series; None while nothing is known."""
        command = [sys.executable, "-m", "node", "find", uid, "--config", str(self.config), "--json"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert said.stdout, said.stderr
        reports: list[dict[str, Any]] = json.loads(said.stdout)
        return reports[0] if reports else None

    def manifest(self, job_id: str) -> Manifest:
        return Manifest.from_json((self.folder / "data" / "results" / job_id / MANIFEST).read_bytes())


@dataclass(frozen=True, slots=True)
class Run:
    """One series: seconds, and how many results."""

    span: float
    read: float
    model: float
    write: float
    transfer: float
    results: int

    @property
    def overhead(self) -> float:
        return (self.span - QUIET_SECONDS) / (self.model + self.transfer)


def renamed(source: Path, folder: Path) -> tuple[str, list[Path]]:
    """A copy of a series under new UIDs; its SeriesInstanceUID and its files."""
    folder.mkdir(parents=True)
    series, study = generate_uid(), generate_uid()
    written = []
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        try:
            ds = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress(generate_instance_uid=False)
        ds.SeriesInstanceUID, ds.StudyInstanceUID = series, study
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        written.append(folder / f"{number:04}.dcm")
        ds.save_as(written[-1])
    return str(series), written


def send(node: Node, folder: Path) -> None:
    """As a modality would: one association, then its release. DCMTK stalls without TCP_NODELAY."""
    options = ["-aet", "SCANNER", "-aec", "AENODE", "--required", "--max-send-pdu", "131072", "+sd"]
    subprocess.run(
        [dcmtk("storescu"), *options, LOOPBACK, str(node.port), str(folder)],
        check=True,
        env=os.environ | {"TCP_NODELAY": "1"},
    )


def transfer(files: Sequence[Path], folder: Path) -> float:
    """Seconds to send these files over one association to an empty Orthanc."""
    with Orthanc(folder) as orthanc:
        peer = Peer(name="empty", ae_title=orthanc.ae_title, address=orthanc.address)
        begun = time.monotonic()
        results = store_batch(peer, "AENODE", files)
        seconds = time.monotonic() - begun
    assert all(result.outcome.kept for result in results), results
    return seconds


def measure(node: Node, source: Path, folder: Path) -> Run:
    """Send the series once more and wait for its results."""
    uid, _ = renamed(source, folder / "input")
    send(node, folder / "input")

    def finished() -> dict[str, Any] | None:
        report = node.find(uid)
        states = [entry["job"]["state"] for entry in report["jobs"]] if report else []
        assert "FAILED" not in states, json.dumps(report, indent=1)
        return report if report and report["seconds_to_result"] is not None else None

    report = wait_for(finished, seconds=_GIVE_UP_SECONDS, every=0.5, what="results")
    assert report is not None
    manifests = [node.manifest(entry["job"]["id"]) for entry in report["jobs"]]
    files = [
        node.folder / "data" / "results" / m.job_id / artifact.path
        for m in manifests
        for artifact in m.artifacts
    ]
    # Jobs run one after the other where there is one worker process, so their times add up.
    steps = {
        name: sum(m.seconds.get(name, 0) for m in manifests) for name in ("read", "model", "write", "gate")
    }
    return Run(
        span=report["seconds_to_result"],
        read=steps["read"],
        model=steps["model"],
        write=steps["write"] + steps["gate"],
        transfer=transfer(files, folder / "empty"),
        results=len(files),
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("AENODE_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument(
        "series", nargs="?", type=Path, default=data / "ct-denoise" / "train" / "LIDC-IDRI-0001"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--model", action="append", metavar="PIPELINE[=MODEL]", help="default: both, as shipped"
    )
    options = parser.parse_args()
    chosen = [word.partition("=") for word in options.model or sorted(_OUTPUTS)]
    models = {pipeline: model or pipeline for pipeline, _, model in chosen}
    runs = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Orthanc(folder / "archive") as orthanc, Node(folder / "node", orthanc.address, models) as node:
            for number in range(options.runs):
                runs.append(measure(node, options.series, folder / f"run{number}"))
                print(runs[-1], file=sys.stderr, flush=True)
    print("| run | results | span, s | read | model | write, gate | transfer | overhead |")
    print("|---|---|---|---|---|---|---|---|")
    for number, run in enumerate(runs, start=1):
        seconds = f"{run.span:.2f} | {run.read:.2f} | {run.model:.2f} | {run.write:.2f} | {run.transfer:.2f}"
        print(f"| {number} | {run.results} | {seconds} | {run.overhead:.2f} |")
    if warm := runs[1:]:
        print(f"\nmedian overhead with the models loaded: {statistics.median(r.overhead for r in warm):.2f}")


if __name__ == "__main__":
    main()

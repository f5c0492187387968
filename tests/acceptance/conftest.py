"""A whole node, run by `aenode up`, between DCMTK's storescu and Orthanc."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.peers import LOOPBACK, Orthanc, dcmtk, free_port, listens, wait_for

CONFIG = """\
[node]
bind = "127.0.0.1:{port}"
data = "data"
[receive]
min_free = "10 MiB"
[completion]
quiet_seconds = 1
quiet_seconds_open = 5
[workers]
device = "cpu"
time_limit_seconds = 120
[deliver]
retry_seconds = 0.5
retry_max_seconds = 2
[[peers]]
name = "scanner"
ae_title = "SCANNER"
[[peers]]
name = "archive"
ae_title = "{orthanc.ae_title}"
address = "{orthanc.address}"
[[pipelines]]
name = "ct-denoise"
model = "ct-denoise"
outputs = ["derived"]
[[pipelines]]
name = "ct-anomaly"
model = "ct-anomaly"
outputs = ["capture", "segmentation", "report"]
[[rules]]
name = "CT"
when = {{ Modality = "CT" }}
pipelines = ["ct-denoise", "ct-anomaly"]
send_to = ["archive"]
"""


class RunningNode:
    """`aenode up` on a free port, with Orthanc as its archive."""

    def __init__(self, folder: Path, orthanc: Orthanc) -> None:
        self.folder = folder
        self.orthanc = orthanc
        self.port = free_port()
        self.config = folder / "config.toml"
        self.log = folder / "node.log"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(CONFIG.format(port=self.port, orthanc=orthanc))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "node", "up", "--config", str(self.config)]
            self._child = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers, seconds=60, what="aenode up to listen")

    def _answers(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, self.log.read_text()
        return listens(self.port)

    def stop(self) -> int:
        """SIGTERM, as systemd sends it; the exit code."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        return self._child.wait(90)

    def run(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """An `aenode` command with this node's settings."""
        command = [sys.executable, "-m", "node", words[0], "--config", str(self.config), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert expect is None or done.returncode == expect, done.stdout + done.stderr
        return done

    def find(self, text: str) -> list[dict[str, Any]]:
        """What `aenode find` knows of it."""
        reports: list[dict[str, Any]] = json.loads(self.run("find", text, "--json", expect=None).stdout)
        return reports

    def storescu(
        self, files: Sequence[Path], *options: str, calling: str = "SCANNER", called: str = "AENODE"
    ) -> subprocess.CompletedProcess[str]:
        """Send with DCMTK; `-R` proposes only what the files need."""
        command = [dcmtk("storescu"), "-R", *options, "-aet", calling, "-aec", called]
        return subprocess.run(
            [*command, LOOPBACK, str(self.port), *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        )

    def report(self, series_uid: str, *, revision: int = 1, seconds: float = 120) -> dict[str, Any]:
        """The report of a series once that revision, its jobs and its deliveries are settled."""

        def settled() -> dict[str, Any] | None:
            found = self.find(series_uid)
            if not found or len(found[0]["revisions"]) < revision:
                return None
            report = found[0]
            if report["revisions"][-1]["state"] in ("RECEIVING", "COMPLETE"):
                return None
            open_jobs = [j for j in report["jobs"] if j["job"]["state"] in ("QUEUED", "RUNNING")]
            pending = [d for j in report["jobs"] for d in j["deliveries"] if d["state"] == "PENDING"]
            return None if open_jobs or pending else report

        found = wait_for(settled, seconds=seconds, every=0.3, what=f"series {series_uid} to be settled")
        assert found is not None
        return found


def fetched(orthanc: Orthanc, study_uid: str) -> dict[str, list[pydicom.FileDataset]]:
    """Every instance of a study that Orthanc holds, by SeriesInstanceUID."""
    found: dict[str, list[pydicom.FileDataset]] = {}
    for instance in orthanc.instances():
        ds = pydicom.dcmread(BytesIO(orthanc.file(instance["ID"])))
        if ds.StudyInstanceUID == study_uid:
            found.setdefault(str(ds.SeriesInstanceUID), []).append(ds)
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for the tests of a module."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, archive: Orthanc) -> Iterator[RunningNode]:
    """One node for the tests of a module; it must stop cleanly at the end."""
    running = RunningNode(tmp_path_factory.mktemp("node"), archive)
    running.start()
    try:
        yield running
    finally:
        code = running.stop()
    assert code == 0, running.log.read_text()

"""A node in parts, each a process of its own that can be killed and is started again at once."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import requests

from tests.node.receiver import ENVIRONMENT
from tests.node.stowing import TOKEN, TYPE, multipart, referenced, said
from tests.peers import LOOPBACK, dcmtk, free_port

CONFIG = """\
[node]
bind = "127.0.0.1:{port}"
data = "data"
[receive]
min_free = "10 MiB"
[dicomweb]
bind = "127.0.0.1:{web}"
[completion]
quiet_seconds = 0.5
quiet_seconds_open = 1.5
[broker]
url = "redis://127.0.0.1:{redis}/0"
[index]
url = "{index}"
lease_seconds = 6
[workers]
device = "cpu"
threads = 1
attempts = 100
retry_seconds = 0.2
retry_max_seconds = 1
lease_seconds = 5
lost_seconds = 4
[deliver]
retry_seconds = 0.2
retry_max_seconds = 1
breaker_seconds = 0.5
breaker_max_seconds = 1
proof_seconds = 0.5
proof_max_seconds = 2
[[peers]]
name = "scanner"
ae_title = "SENDER"
receive_token_file = "scanner.token"
[[peers]]
name = "archive"
ae_title = "ORTHANC"
address = "{archive}"
prove = "find"
[[pipelines]]
name = "denoise"
model = "{model}"
outputs = ["derived"]
[[rules]]
name = "CT"
when = {{ Modality = "CT" }}
pipelines = ["denoise"]
send_to = ["archive"]
"""


class Parts:
    """receive, route, work and redis below a folder."""

    def __init__(self, folder: Path, archive: str, model: Path, *, index: str = "sqlite") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.web, self.redis = free_port(), free_port(), free_port()
        (folder / "scanner.token").write_text(TOKEN)
        self.config = folder / "config.toml"
        self.config.write_text(
            CONFIG.format(
                port=self.port, web=self.web, redis=self.redis, archive=archive, model=model, index=index
            )
        )
        node = [sys.executable, "-m", "node"]
        self.commands = {
            "redis": ["/usr/bin/redis-server", "--bind", LOOPBACK, "--port", str(self.redis), "--save", ""],
            **{name: [*node, name, "--config", str(self.config)] for name in ("receive", "route", "work")},
        }
        self.log = folder / "log.txt"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, name: str, *, kind: str = "") -> None:
        """Start a part; `kind` names a second one of the same command."""
        with self.log.open("ab") as log:
            self._children[kind or name] = subprocess.Popen(
                self.commands[name], stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """Kill -9 of a part and its children, at whatever instruction they are."""
        child = self._children.pop(name)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def stop(self) -> None:
        """End what runs."""
        for name in list(self._children):
            self.kill(name)


def store(port: int, files: Sequence[Path]) -> int:
    """Send with DCMTK's storescu; how many files, from the first, were answered with 0x0000."""
    command = [dcmtk("storescu"), "-v", "-R", "-aet", "SENDER", "-aec", "AENODE", LOOPBACK, str(port)]
    done = subprocess.run(
        [*command, *map(str, files)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return len(re.findall(r"Received Store Response \(Success\)", done.stdout + done.stderr))


def stow(port: int, files: Sequence[Path]) -> int:
    """Send in one STOW-RS request; how many files, from the first, the answer names as stored."""
    try:
        answer = requests.post(
            f"http://{LOOPBACK}:{port}/studies",
            data=multipart(path.read_bytes() for path in files),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": TYPE},
            timeout=60,
        )
    except requests.RequestException:
        return 0
    return len(referenced(said(answer))) if answer.status_code == 200 else 0

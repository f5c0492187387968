"""How fast instances are received: ours beside DCMTK's storescp, Orthanc and bare pynetdicom, in one run.

    python -m tests.benchmarks.receive [--images 300] [--rounds 3] [--folder DIR]

DCMTK's storescu sends CT slices of 512 × 512 × 16 bit, made here, over loopback from one and from four
processes at once. Each round starts every receiver anew, every other round in reverse order. The
receiver's CPU time is that of its whole process tree. Before each measurement the page cache is
written out, so that no receiver pays for another's unsynchronised files.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from rich.console import Console
from rich.table import Table

from tests import series
from tests.peers import LOOPBACK, Orthanc, Server, StoreSCP, dcmtk, wait_for

PDU = "131072"
# Debian's DCMTK waits 45 ms for each instance otherwise, and every comparison is worthless.
# Orthanc and storescp, which are built on it, wait likewise.
ENVIRONMENT = {"TCP_NODELAY": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
YARDSTICK = "pynetdicom, fsync"
TICKS = os.sysconf("SC_CLK_TCK")


class Pynetdicom(Server):
    """This program as a pynetdicom storage SCP that writes raw bytes, see `serve_pynetdicom`."""

    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        (self.folder / "received").mkdir(exist_ok=True)
        module = [sys.executable, "-m", "tests.benchmarks.receive"]
        return [*module, "--serve", str(self.port), str(self.folder / "received"), *self.options]


class PynetdicomFsync(Pynetdicom):
    """The same, durable before it answers."""

    options = ("--fsync",)


class Aenode(Server):
    """`aenode receive`, with fsync and index."""

    processes = 1

    def command(self) -> list[str]:
        config = self.folder / "config.toml"
        config.write_text(
            f'[node]\nbind = "{LOOPBACK}:{self.port}"\ndata = "received"\n'
            f"[receive]\naccept_unknown_peers = true\nprocesses = {self.processes}\n"
        )
        return [sys.executable, "-m", "node", "receive", "--config", str(config)]

    def start(self) -> None:
        super().start()
        locks = self.folder / "received" / "spool" / "incoming"
        wait_for(lambda: len(list(locks.glob("*/lock"))) == self.processes, seconds=60)


class AenodeTwo(Aenode):
    """Two receiving processes on the port."""

    processes = 2


def storescp(folder: Path) -> Server:
    """DCMTK's storescp, one process an association."""
    return StoreSCP(folder, "--fork", "--max-pdu", PDU)


def orthanc(folder: Path) -> Server:
    """Orthanc as it comes: synchronised files and its SQLite index."""
    return Orthanc(folder, MaximumPduLength=int(PDU), ConcurrentJobs=1)


RECEIVERS: dict[str, Callable[[Path], Server]] = {
    "DCMTK storescp --fork (no fsync, no index)": storescp,
    "Orthanc (fsync, index)": orthanc,
    "pynetdicom, no fsync": Pynetdicom,
    YARDSTICK: PynetdicomFsync,
    "aenode (fsync, index)": Aenode,
    "aenode, 2 processes": AenodeTwo,
}


@dataclass
class Figures:
    """Of one receiver and number of senders, one value a round."""

    per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its living descendants, and those it has waited for."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, words[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def send(port: int, images: Path, senders: int) -> float:
    """Send the images from so many processes at once, each under UIDs of its own; seconds it took."""
    words = ["--max-send-pdu", PDU, "+II", "-R", "-aec", "AENODE", LOOPBACK, str(port), "+sd", str(images)]
    begun = time.perf_counter()
    running = [subprocess.Popen([dcmtk("storescu"), *words]) for _ in range(senders)]
    codes = [process.wait() for process in running]
    seconds = time.perf_counter() - begun
    assert not any(codes), f"storescu ended with {codes}"
    return seconds


def received(server: Server) -> int:
    """How many instances the receiver holds."""
    if isinstance(server, Orthanc):
        return int(server.get("/statistics")["CountInstances"])
    return sum(1 for path in (server.folder / "received").rglob("*") if path.is_file() and _is_image(path))


def holds(server: Server, count: int) -> bool:
    """Whether the receiver holds exactly so many instances."""
    return received(server) == count


def _is_image(path: Path) -> bool:
    return path.stat().st_size > 1 << 19 and not path.name.startswith("index")


def measure(server: Server, images: Path, count: int, figures: dict[int, Figures]) -> None:
    """One sender, then four; what was sent must be there afterwards."""
    with server:
        assert server._child is not None
        send(server.port, images / "warm", 1)
        expected = len(list((images / "warm").iterdir()))
        for senders, found in figures.items():
            os.sync()
            before = cpu_seconds(server._child.pid)
            seconds = send(server.port, images / "sent", senders)
            used = cpu_seconds(server._child.pid) - before
            found.per_second.append(senders * count / seconds)
            found.cpu_ms.append(used / (senders * count) * 1000)
            expected += senders * count
            wait_for(partial(holds, server, expected), what="all instances")


def report(results: dict[str, dict[int, Figures]], console: Console) -> None:
    """Print medians with their range, and the ratio to bare pynetdicom with fsync."""
    table = Table(title="C-STORE, CT 512 × 512 × 16 bit, images a second: median (lowest to highest)")
    table.add_column("receiver")
    for senders in (1, 4):
        table.add_column(f"{senders} sender{'s' * (senders > 1)}", justify="right")
        table.add_column("ratio", justify="right")
        table.add_column("CPU, ms an image", justify="right")
    for name, by_senders in results.items():
        row = [name]
        for senders, found in by_senders.items():
            rate = statistics.median(found.per_second)
            ratio = rate / statistics.median(results[YARDSTICK][senders].per_second)
            row += [
                f"{rate:.0f} ({min(found.per_second):.0f} to {max(found.per_second):.0f})",
                f"{ratio:.2f}",
                f"{statistics.median(found.cpu_ms):.2f}",
            ]
        table.add_row(*row)
    console.print(table)


def serve_pynetdicom(port: int, folder: Path, *, fsync: bool) -> None:
    """A storage SCP as pynetdicom's users write it: raw bytes to a file, nothing else."""
    directory = os.open(folder, os.O_RDONLY)

    def store(event: evt.Event) -> int:
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(event.encoded_dataset())
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        part.rename(path)
        if fsync:
            os.fsync(directory)
        return 0x0000

    ae = AE("AENODE")
    ae.maximum_pdu_size = int(PDU)
    ae.maximum_associations = 64
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.start_server((LOOPBACK, port), evt_handlers=[(evt.EVT_C_STORE, store)])


def sender_options(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark that sends images to receivers."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the file system to measure; a temporary folder else")
    return parser


def main() -> None:
    """Measure and print."""
    parser = sender_options(__doc__)
    parser.add_argument("--only", help="receivers whose name has this in it, and the yardstick")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--fsync", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_pynetdicom(int(options.serve[0]), Path(options.serve[1]), fsync=options.fsync)
        return
    os.environ.update(ENVIRONMENT)
    console = Console(width=140)
    folder = Path(tempfile.mkdtemp(prefix="aenode-receive-", dir=options.folder))
    try:
        images = folder / "images"
        slices = series.series(options.images, 512)
        series.write(images / "sent", slices)
        series.write(images / "warm", slices[:10])
        chosen = [n for n in RECEIVERS if options.only is None or options.only in n or n == YARDSTICK]
        results = {name: {senders: Figures() for senders in (1, 4)} for name in chosen}
        for number in range(options.rounds):
            for name in chosen if number % 2 == 0 else reversed(chosen):
                place = folder / "receiver"
                measure(RECEIVERS[name](place), images, options.images, results[name])
                shutil.rmtree(place)
                console.print(f"round {number + 1}: {name}")
        report(results, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

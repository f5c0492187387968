"""How fast STOW-RS requests are received: ours beside Orthanc, and beside C-STORE to the same receiver.

    python -m tests.benchmarks.stow [--images 300] [--rounds 3] [--folder DIR]

CT slices of 512 × 512 × 16 bit over loopback from one sender: DCMTK's storescu, then one that keeps one
HTTP connection and reads its files as it sends them, with 1 and with 100 instances a request. Each
round starts every receiver anew. The receiver's CPU time is that of its whole process tree.
"""

import http.client
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests import series
from tests.benchmarks import receive
from tests.benchmarks.receive import Figures, cpu_seconds, holds
from tests.node.stowing import BOUNDARY, TOKEN, TYPE
from tests.peers import LOOPBACK, Orthanc, Server, free_port, wait_for

HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
TAIL = f"--{BOUNDARY}--\r\n".encode()


class Aenode(receive.Aenode):
    """`aenode receive` with STOW-RS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.http_port = free_port()

    def command(self) -> list[str]:
        command = super().command()
        (self.folder / "token").write_text(TOKEN)
        with (self.folder / "config.toml").open("a") as config:
            config.write(
                f'[dicomweb]\nbind = "{LOOPBACK}:{self.http_port}"\n'
                '[[peers]]\nname = "sender"\nreceive_token_file = "token"\n'
            )
        return command


RECEIVERS: dict[str, tuple[Callable[[Path], Aenode | Orthanc], str]] = {
    "Orthanc (fsync, index)": (lambda folder: Orthanc(folder, MaximumPduLength=131072), "/dicom-web/studies"),
    "aenode (fsync, index)": (Aenode, "/studies"),
}


def body(files: Sequence[Path]) -> Iterator[bytes]:
    """A request, file by file."""
    for file in files:
        yield HEAD
        yield file.read_bytes()
        yield b"\r\n"
    yield TAIL


def stow(port: int, path: str, files: Sequence[Path], together: int) -> float:
    """Send the files, so many in a request; seconds it took."""
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=120)
    for batch in _batches(files, together):
        length = sum(len(HEAD) + file.stat().st_size + 2 for file in batch) + len(TAIL)
        headers = {"Content-Type": TYPE, "Authorization": f"Bearer {TOKEN}", "Content-Length": str(length)}
        connection.request("POST", path, body(batch), {**headers, "Accept": "application/dicom+json"})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
    connection.close()
    return time.perf_counter() - begun


def _batches(files: Sequence[Path], together: int) -> Iterator[Sequence[Path]]:
    return (files[at : at + together] for at in range(0, len(files), together))


def measure(server: Aenode | Orthanc, path: str, images: Path, found: dict[str, Figures]) -> None:
    """Each way of sending under UIDs of its own; what was sent must be there afterwards."""
    ways: dict[str, Callable[[Path], float]] = {
        "C-STORE": lambda folder: receive.send(server.port, folder, 1),
        "1 a request": lambda folder: stow(server.http_port, path, sorted(folder.iterdir()), 1),
        "100 a request": lambda folder: stow(server.http_port, path, sorted(folder.iterdir()), 100),
    }
    with server:
        receive.send(server.port, images / "warm", 1)
        expected = len(list((images / "warm").iterdir()))
        for number, (name, send) in enumerate(ways.items()):
            folder = images / str(number)
            count = len(list(folder.iterdir()))
            os.sync()
            before = _used(server)
            seconds = send(folder)
            expected += count
            found[name].per_second.append(count / seconds)
            found[name].cpu_ms.append((_used(server) - before) / count * 1000)
            wait_for(partial(holds, server, expected), what="all instances")


def _used(server: Server) -> float:
    assert server._child is not None
    return cpu_seconds(server._child.pid)


def report(results: dict[str, dict[str, Figures]], console: Console) -> None:
    """Print medians with their range."""
    table = Table(title="one sender, CT 512 × 512 × 16 bit, images a second: median (lowest to highest)")
    table.add_column("receiver")
    for way in next(iter(results.values())):
        table.add_column(way, justify="right")
        table.add_column("CPU, ms an image", justify="right")
    for name, ways in results.items():
        row = [name]
        for found in ways.values():
            rates = found.per_second
            row += [
                f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})",
                f"{statistics.median(found.cpu_ms):.2f}",
            ]
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """Measure and print."""
    options = receive.sender_options(__doc__).parse_args()
    os.environ.update(receive.ENVIRONMENT)
    console = Console(width=140)
    folder = Path(tempfile.mkdtemp(prefix="aenode-stow-", dir=options.folder))
    try:
        for number in range(3):
            slices = series.series(options.images, 512, series=f"stow {number}")
            series.write(folder / "images" / str(number), slices)
        series.write(folder / "images" / "warm", series.series(10, 512, series="warm"))
        ways = ("C-STORE", "1 a request", "100 a request")
        results = {name: {way: Figures() for way in ways} for name in RECEIVERS}
        for _ in range(options.rounds):
            for name, (make, path) in RECEIVERS.items():
                measure(make(folder / "receiver"), path, folder / "images", results[name])
                shutil.rmtree(folder / "receiver")
        report(results, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""How instances become durable fastest: one fsync an instance, or one syncfs for many (group commit).

    python -m tests.benchmarks.durability [--folder DIR] [--instances 200] [--kib 512]

So many threads write files and wait until theirs is durable. "per instance": fsync of the file, link,
fsync of the folder, as the spool does. "group": written and linked, then one thread calls syncfs for all
that wait. Both in one run, alternating, three rounds; the median is printed.
"""

import argparse
import ctypes
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


class Group:
    """syncfs for all that wait."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY)
        self._condition = threading.Condition()
        self._asked = self._done = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        with self._condition:
            self._asked += 1
            mine = self._asked
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._done >= mine)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._asked > self._done or self._stopping)
                if self._stopping:
                    return
                covered = self._asked
            assert _libc.syncfs(self._descriptor) == 0
            with self._condition:
                self._done = covered
                self._condition.notify_all()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()
        os.close(self._descriptor)


def write(folder: Path, number: int, data: bytes, group: Group | None) -> None:
    """One instance, durable on return."""
    part, path = folder / f"{number}.part", folder / f"{number}.dcm"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, data)
    if group is None:
        os.fsync(descriptor)
    os.close(descriptor)
    os.link(part, path)
    part.unlink()
    if group is not None:
        group.wait()
        return
    parent = os.open(folder, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def rate(root: Path, threads: int, instances: int, data: bytes, *, grouped: bool) -> float:
    """Instances a second."""
    folder = Path(tempfile.mkdtemp(dir=root))
    group = Group(folder) if grouped else None
    places = [folder / str(n) for n in range(threads)]
    for place in places:
        place.mkdir()
    os.sync()

    def work(place: Path) -> None:
        for number in range(instances // threads):
            write(place, number, data, group)

    workers = [threading.Thread(target=work, args=(place,)) for place in places]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if group is not None:
        group.stop()
    shutil.rmtree(folder)
    return instances / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--kib", type=int, default=512)
    options = parser.parse_args()
    data = os.urandom(options.kib << 10)
    print("threads  per instance/s  group/s  group ÷ per instance")
    for threads in (1, 4, 8):
        found: dict[bool, list[float]] = {False: [], True: []}
        for number in range(3):
            for grouped in (False, True) if number % 2 == 0 else (True, False):
                found[grouped].append(rate(options.folder, threads, options.instances, data, grouped=grouped))
        alone, together = (statistics.median(found[grouped]) for grouped in (False, True))
        print(f"{threads:7} {alone:15.0f} {together:8.0f} {together / alone:10.2f}")


if __name__ == "__main__":
    main()

"""`aenode receive`: one receiving process, or several that share the port (SO_REUSEPORT).

Python runs one thread at a time, so parallel senders slow each other in one process. The kernel deals
new connections out; each process counts its own associations.
"""

import logging
import multiprocessing
import signal
import threading
from pathlib import Path

from node import log as logs
from node.config_file import SettingsFile
from node.index import Index
from node.receive.server import Server

log = logging.getLogger("aenode.receive")


def serve(file: SettingsFile, index: Index, stop: threading.Event) -> None:
    """Receive on node.bind until `stop` is set; running associations then finish, in bounded time.

    Raises OSError where the address is taken.
    """
    others = file.settings.receive.processes - 1
    server = Server(file, index, share_port=others > 0)
    siblings = Siblings(file.path, others)
    # They finish beside this process, not after it.
    threading.Thread(target=siblings.stop_after, args=(stop,), daemon=True).start()
    try:
        server.run(stop, siblings.look_after)
    finally:
        siblings.join()


class Siblings:
    """The other receiving processes, started again when they die."""

    def __init__(self, config: Path, count: int) -> None:
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        self._children: list[multiprocessing.process.BaseProcess | None] = [None] * count

    def look_after(self) -> None:
        """Start those that do not run."""
        for number, child in enumerate(self._children):
            if child is not None and child.is_alive():
                continue
            if child is not None:
                log.error("receiving process %d ended with code %s", number + 2, child.exitcode)
            process = self._context.Process(
                target=_receive, args=(self._config,), name=f"receive-{number + 2}"
            )
            process.start()
            self._children[number] = process

    def stop_after(self, stop: threading.Event) -> None:
        """Wait for `stop`, then tell them to stop."""
        stop.wait()
        for child in self._children:
            if child is not None and child.is_alive():
                child.terminate()

    def join(self) -> None:
        """Wait until they have stopped."""
        for child in self._children:
            if child is not None:
                child.join()


def _receive(config: Path) -> None:
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    file = SettingsFile.open(config)
    logs.start(file.settings.log)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None and not parent.is_alive():
            stop.set()

    index = Index.open(file.settings)
    try:
        Server(file, index, share_port=True).run(stop, leave_with_parent)
    finally:
        index.close()

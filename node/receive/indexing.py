"""Index entries in batches, on a thread of their own; and the sweep of what never got one.

The spool is the truth. An entry that is lost with the process, or waits for an index that is down, is
made at the next start. In each batch associations are opened, then instances are listed, then associations
are closed: so an association is closed after its instances, and many short ones list theirs together.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import PurePosixPath

from node.dimse.status import Status
from node.entities import Instance
from node.errors import InstanceRefused
from node.index import Index
from node.receive.storage import Carrier
from node.spool import Inbox, Spool, SpoolError

log = logging.getLogger("aenode.receive")

_BATCH = 500
_GATHER_SECONDS = 0.1  # entries of so long make one transaction
_WAITING_ENTRIES = 20_000  # an instance more is answered with out of resources
_RETRY_SECONDS = 1.0

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Note:
    """That an association was opened, or that it was closed."""

    step: Step
    closes: bool


Entry = Instance | _Note


class Indexing:
    """Writes what associations bring to the index."""

    def __init__(self, index: Index, receiver: str, clock: Callable[[], datetime]) -> None:
        self._index = index
        self._receiver = receiver
        self._clock = clock
        self._entries: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexing")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Write what waits and stop; what the index does not take in `seconds` is left to the next start."""
        self._finishing.set()
        self._entries.put(_Note(lambda: None, closes=True))
        self._hurry.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.error("the index takes no entries; the next start sweeps the spool for them")

    def opened(self, carrier: Carrier) -> None:
        """Note an association, or a STOW-RS request, which counts as one."""
        at = self._clock()
        step = partial(
            self._index.open_association,
            carrier.id,
            calling_ae=carrier.titles.calling_ae,
            called_ae=carrier.titles.called_ae,
            host=carrier.host,
            receiver=self._receiver,
            at=at,
        )
        self._entries.put(_Note(step, closes=False))

    def closed(self, carrier: Carrier, *, hurry: bool = True) -> None:
        """Note its end, after all of its instances; `hurry`: at once, and not with what else comes."""
        at = self._clock()
        self._entries.put(_Note(partial(self._index.close_association, carrier.id, at), closes=True))
        if hurry:
            self._hurry.set()

    def add(self, instance: Instance) -> None:
        """Offer an instance. Raises InstanceRefused where too many wait already."""
        if self._entries.qsize() >= _WAITING_ENTRIES:
            why = "the index takes no entries; the instance is kept, send it again"
            raise InstanceRefused(Status.OUT_OF_RESOURCES, why)
        self._entries.put(instance)

    def _run(self) -> None:
        while not (self._finishing.is_set() and self._entries.empty()):
            first = self._entries.get()
            self._hurry.wait(_GATHER_SECONDS)
            self._hurry.clear()
            batch = [first]
            while len(batch) < _BATCH:
                try:
                    batch.append(self._entries.get_nowait())
                except queue.Empty:
                    break
            for step in self._steps(batch):
                self._do(step)

    def _steps(self, batch: list[Entry]) -> Iterable[Step]:
        notes = [entry for entry in batch if isinstance(entry, _Note)]
        yield from (note.step for note in notes if not note.closes)
        if instances := [entry for entry in batch if isinstance(entry, Instance)]:
            yield partial(self._index.add_instances, instances)
        yield from (note.step for note in notes if note.closes)

    def _do(self, step: Step) -> None:
        """Take one step, again and again until the index takes it: each may be done twice."""
        attempts = 0
        while True:
            try:
                step()
            except Exception as error:
                attempts += 1
                if attempts == 1:
                    log.exception("the index did not take an entry; it is tried again")
                else:
                    log.warning("attempt %d for the index failed: %s", attempts, type(error).__name__)
                if self._finishing.is_set() and attempts > 3:
                    return
                time.sleep(_RETRY_SECONDS)
            else:
                return


def sweep(spool: Spool, inbox: Inbox, index: Index, now: datetime, stop: threading.Event) -> int:
    """List what the spool holds and the index does not, then close what dead receivers left open.

    It writes to the index itself, so that a long sweep delays no association. Files that cannot be
    read are logged and left alone. Returns how many instances were listed.
    """
    listed = 0
    paths = spool.paths()
    while portion := list(islice(paths, _BATCH)):
        if stop.is_set():
            return listed
        known = index.known_paths(portion)
        found = list(_readable(spool, [path for path in portion if path not in known]))
        index.add_instances(found)
        listed += len(found)
    if listed:
        log.warning("%d instances were in the spool and not in the index; they are listed now", listed)
    for receiver in inbox.dead:
        index.close_stale_associations(receiver, now)
    inbox.bury()
    return listed


def _readable(spool: Spool, paths: Iterable[PurePosixPath]) -> Iterator[Instance]:
    for path in paths:
        try:
            yield spool.read(path)
        except FileNotFoundError:
            continue  # removed meanwhile
        except (SpoolError, OSError) as error:
            log.warning("the spool holds a file that cannot be read: %s", error)

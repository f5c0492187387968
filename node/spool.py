"""The spool: one Part-10 file per received instance, the data set's bytes exactly as they came.

    spool/<2 hex>/<series>/<instance>.dcm            sound
    spool/<2 hex>/<series>/<instance>.<content>.dcm  kept beside it: defective, or in conflict with it
    spool/<2 hex>/<series>/….damaged                 found damaged when its like was received again
    spool/incoming/<receiver>/                       unfinished; no acknowledged instance is ever here

Names are hashes of UIDs and of contents; nothing that a peer says becomes part of a path. A file
gets its name by a hard link, which, unlike a rename, cannot replace what another thread or process
has just stored under it. File and folder are synchronised before `keep` returns.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Self

from node import filemeta, header
from node.entities import Instance
from node.filemeta import FileMetaError
from node.header import HeaderError
from node.incoming import CONFLICT, Incoming, Origin, SeriesFolders, SpoolError, instance_of, mapped

__all__ = ["CONFLICT", "Inbox", "Incoming", "Origin", "Spool", "SpoolError"]


class Spool:
    """The received instances below a data folder. Any thread or process may read it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.root = data / "spool"

    def free(self) -> int:
        """Bytes that may still be written to its file system."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o750)
        space = os.statvfs(self.root)
        return space.f_bavail * space.f_frsize

    def paths(self) -> Iterator[PurePosixPath]:
        """The path of every instance, relative to the data folder, series by series."""
        for fan in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for series in sorted(fan.iterdir()):
                for file in sorted(series.glob("*.dcm")):
                    yield PurePosixPath(file.relative_to(self.data))

    def read(self, path: PurePosixPath) -> Instance:
        """The instance of one file, its header read again. Raises SpoolError where it is damaged."""
        with (self.data / path).open("rb", buffering=0) as file, mapped(file) as whole:
            try:
                meta, at = filemeta.decode(whole)
                if len(whole) - at != meta.size:
                    raise SpoolError(f"{path}: holds {len(whole) - at} of {meta.size} bytes")
                with whole[at:] as data:
                    found = header.read(data, meta.transfer_syntax_uid)
            except (FileMetaError, HeaderError) as error:
                raise SpoolError(f"{path}: {error}") from error
            beside = path.name.count(".") > 1
            return instance_of(meta, found, path, len(whole), found.defect or (CONFLICT if beside else ""))

    def walk(self) -> Iterator[Instance]:
        """Every instance, series by series, for rebuilding the index. Raises SpoolError at a damaged file."""
        return (self.read(path) for path in self.paths())

    def store(self, data: bytes, origin: Origin, at: datetime) -> Instance:
        """Keep one whole data set at once. Raises HeaderError, and OSError where there is no space."""
        with Inbox(self) as inbox, inbox.receive(origin) as incoming:
            incoming.write(data)
            return incoming.keep(incoming.header(), at)


class Inbox:
    """One receiving process's place for unfinished files, under a lock that dies with the process.

    `id` names the receiver. `dead` are the ids of receivers that ended without leaving; their places
    stay until `bury`, so that what they had begun elsewhere can be ended first.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.id = ""
        self._root = spool.root / "incoming"
        self._folders = SeriesFolders(spool.data, spool.root)
        self._locks: dict[str, int] = {}

    @property
    def dead(self) -> tuple[str, ...]:
        """The ids of the dead receivers that this one takes care of."""
        return tuple(name for name in self._locks if name != self.id)

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o750)
        for place in sorted(self._root.iterdir()):
            if self._claim(place):
                for left in place.glob("*.part"):
                    left.unlink()
        place = self._root / uuid.uuid4().hex
        place.mkdir(mode=0o750)
        while not self._claim(place):  # a process that starts just now took it for a dead one's
            place = self._root / uuid.uuid4().hex
            place.mkdir(mode=0o750)
        self.id = place.name
        self._check_links(place)
        return self

    def __exit__(self, *_: object) -> None:
        self._remove(self.id)
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()

    def bury(self) -> None:
        """Remove the places of the dead."""
        for name in self.dead:
            self._remove(name)

    def _remove(self, name: str) -> None:
        with suppress(OSError):  # what is left in it is swept by the next receiver
            (self._root / name / "lock").unlink()
            (self._root / name).rmdir()
        os.close(self._locks.pop(name))

    def _claim(self, place: Path) -> bool:
        try:
            lock = os.open(place / "lock", os.O_CREAT | os.O_RDWR, 0o640)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._locks[place.name] = lock
        return True

    @staticmethod
    def _check_links(place: Path) -> None:
        probe = place / "link.part"
        try:
            os.link(place / "lock", probe)
            probe.unlink()
        except OSError as error:
            raise SpoolError(f"{place}: the file system has no hard links: {error}") from error

    def receive(self, origin: Origin) -> Incoming:
        """Begin an instance. Raises OSError where no file can be made."""
        return Incoming(self._folders, origin, self._root / self.id / f"{uuid.uuid4().hex}.part")

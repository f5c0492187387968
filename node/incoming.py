"""One instance on its way into the spool: from the first byte of its data set to its durable file."""

import hashlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Self

from node import filemeta, header
from node.entities import Instance
from node.errors import AenodeError
from node.filemeta import FileMeta, FileMetaError
from node.header import Header

log = logging.getLogger("aenode.receive")

CONFLICT = "other content came earlier under this SOP Instance UID"
_EPOCH = datetime.fromtimestamp(0, UTC)
_FOLDERS_REMEMBERED = 4096

Fragment = bytes | memoryview


class SpoolError(AenodeError):
    """The spool's file system cannot do what the spool needs, or one of its files is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an instance comes from: what its C-STORE request and its association say."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    association: str


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SeriesFolders:
    """The folders of series, made and synchronised where they are not there yet."""

    def __init__(self, data: Path, root: Path) -> None:
        self.data = data
        self.mending = threading.Lock()
        self._remembering = threading.Lock()
        self._root = root
        self._known: dict[Path, None] = {}  # on the disk for certain, oldest first

    def of(self, series_instance_uid: str) -> Path:
        """The folder of a series, made and synchronised with its parents."""
        name = _hashed(series_instance_uid)
        folder = self._root / name[:2] / name
        if folder not in self._known:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            # Another process may have made it and not have synchronised it yet.
            for parent in (folder.parent, self._root, self.data):
                _sync_folder(parent)
            with self._remembering:
                if len(self._known) >= _FOLDERS_REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[folder] = None
        return folder

    def forget(self, folder: Path) -> None:
        """A folder was removed by somebody else."""
        with self._remembering:
            self._known.pop(folder, None)


class Incoming:
    """One instance on its way in. Leaving its context discards it unless it was kept."""

    def __init__(self, folders: SeriesFolders, origin: Origin, part: Path) -> None:
        self.origin = origin
        self._folders = folders
        self._part = part
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._at = len(self._meta(_EPOCH, "0" * 64).encode())
        self._file = part.open("x+b", buffering=0)
        os.lseek(self._file.fileno(), self._at, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, fragment: Fragment) -> None:
        """Append bytes of the data set. Raises OSError where there is no space."""
        self._sha256.update(fragment)
        self._size += len(fragment)
        descriptor = self._file.fileno()
        while (written := os.write(descriptor, fragment)) < len(fragment):
            fragment = fragment[written:]

    def discard(self) -> None:
        """Forget what has come so far."""
        if not self._file.closed:
            self._file.close()
            with suppress(FileNotFoundError):
                self._part.unlink()

    def header(self) -> Header:
        """Read the header of the data set. Raises HeaderError."""
        with mapped(self._file) as whole, whole[self._at :] as data:
            return header.read(data, self.origin.transfer_syntax_uid)

    def keep(self, found: Header, at: datetime) -> Instance:
        """Make the instance durable under its final name, and end this context's work.

        Where an identical one is there already, nothing is stored twice. Other content under the
        same UID is kept beside it, with a defect. Raises OSError where it cannot be written.
        """
        digest = self._sha256.hexdigest()
        meta = self._meta(at, digest)
        os.pwrite(self._file.fileno(), meta.encode(), 0)
        name = _hashed(self.origin.sop_instance_uid)
        beside, defect = f"{name}.{digest[:16]}.dcm", found.defect
        # The plain name is left to the first sound content.
        for target in [beside] if defect else [f"{name}.dcm", beside]:
            path, linked = self._link(found.series_instance_uid, target)
            if linked or self._stands_for(path, digest):
                break
            defect = CONFLICT
        else:
            raise SpoolError(f"{path}: other content lies where that of the same hash belongs")
        # Of a duplicate too: its first copy may have its name since a moment only.
        _sync_folder(path.parent)
        self.discard()
        size = path.stat().st_size
        return instance_of(meta, found, PurePosixPath(path.relative_to(self._folders.data)), size, defect)

    def _link(self, series_instance_uid: str, name: str) -> tuple[Path, bool]:
        """Put the synchronised file under its name. False where that is taken."""
        path = self._folders.of(series_instance_uid) / name
        if path.exists():
            return path, False
        os.fsync(self._file.fileno())
        try:
            os.link(self._part, path)
        except FileExistsError:
            return path, False
        except FileNotFoundError:
            self._folders.forget(path.parent)
            return self._link(series_instance_uid, name)
        return path, True

    def _stands_for(self, path: Path, digest: str) -> bool:
        """Whether the file that has our name holds our content, and whole.

        One that is damaged is set aside and ours takes its place: this receipt is the chance to mend it.
        """
        if (stored := _whole_sha256(path)) is not None:
            return stored == digest
        with self._folders.mending:
            if (stored := _whole_sha256(path)) is not None:  # another thread was faster
                return stored == digest
            log.error("%s is damaged; it is set aside, and what came now takes its place", path)
            os.fsync(self._file.fileno())
            path.replace(path.with_suffix(".damaged"))
            os.link(self._part, path)
        return True

    def _meta(self, at: datetime, sha256: str) -> FileMeta:
        origin = self.origin
        return FileMeta(
            sop_class_uid=origin.sop_class_uid,
            sop_instance_uid=origin.sop_instance_uid,
            transfer_syntax_uid=origin.transfer_syntax_uid,
            calling_ae=origin.calling_ae,
            called_ae=origin.called_ae,
            association=origin.association,
            received_at=at,
            size=self._size,
            sha256=sha256,
        )


def _whole_sha256(path: Path) -> str | None:
    """The SHA-256 of the data set in a spooled file; None where the file is damaged."""
    with path.open("rb", buffering=0) as file, mapped(file) as whole:
        try:
            meta, at = filemeta.decode(whole)
        except FileMetaError:
            return None
        with whole[at:] as data:
            return meta.sha256 if hashlib.sha256(data).hexdigest() == meta.sha256 else None


@contextmanager
def mapped(file: FileIO) -> Iterator[memoryview]:
    """The bytes of an open file, without reading them."""
    if os.fstat(file.fileno()).st_size == 0:
        yield memoryview(b"")  # nothing cannot be mapped
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


def instance_of(meta: FileMeta, found: Header, path: PurePosixPath, size: int, defect: str) -> Instance:
    """The instance that a file holds."""
    return Instance(
        sop_instance_uid=meta.sop_instance_uid,
        sop_class_uid=meta.sop_class_uid,
        series_instance_uid=found.series_instance_uid,
        study_instance_uid=found.study_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        path=path,
        size=size,
        sha256=meta.sha256,
        calling_ae=meta.calling_ae,
        called_ae=meta.called_ae,
        association=meta.association,
        received_at=meta.received_at,
        own_result=found.own_result,
        defect=defect,
    )

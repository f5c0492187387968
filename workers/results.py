"""The result folder of a job: claimed by one process, published whole, or not at all.

    results/<job>.partial/   while a process works: heartbeat (also the lock), attempts, artifacts
    results/<job>/           when it is over: artifacts and manifest.json

The lock is the kernel's (flock), so a killed process holds nothing and leaves nothing that must be
cleaned before the job can be done again.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node.errors import AenodeError
from node.job import HEARTBEAT, MANIFEST, Manifest

HEARTBEAT_SECONDS = 2.0
_ATTEMPTS = "attempts"


class AlreadyRunning(AenodeError):
    """Another process works on this job just now."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one job's result."""

    final: Path
    partial: Path
    attempt: int  # from 1; counts the attempts that ended in a killed process, too

    def publish(self, manifest: Manifest) -> Manifest:
        """Write the manifest, make everything durable, and give the folder its name."""
        target = self.partial / MANIFEST
        with target.open("w", encoding="utf-8") as stream:
            stream.write(manifest.to_json())
            stream.flush()
            os.fsync(stream.fileno())
        for folder in {self.partial, *(self.partial / Path(a.path).parent for a in manifest.artifacts)}:
            _sync_folder(folder)
        self.partial.rename(self.final)
        # Only now: while the folder has its old name, the heartbeat in it is the lock.
        for name in (HEARTBEAT, _ATTEMPTS):
            (self.final / name).unlink(missing_ok=True)
        _sync_folder(self.final.parent)
        return manifest

    def discard(self) -> None:
        """Give the claim up; the job was finished by another process meanwhile."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything but the claim itself."""
        for entry in self.partial.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in (HEARTBEAT, _ATTEMPTS):
                entry.unlink()


def finished(data: Path, job_id: str) -> Manifest | None:
    """The manifest of a job that is over, or None."""
    try:
        return Manifest.from_json((data / "results" / job_id / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None


@contextmanager
def claimed(data: Path, job_id: str) -> Iterator[Claim]:
    """Claim a job that is not finished, and let its heart beat meanwhile. Raises AlreadyRunning.

    What a killed attempt left behind is cleared. Whether the job was finished just before the claim
    is for the caller to ask.
    """
    final = data / "results" / job_id
    partial = final.with_name(f"{job_id}.partial")
    lock = _lock(partial, job_id)
    stop = threading.Event()
    try:
        claim = Claim(final, partial, _count_attempt(partial))
        claim.clear()
        beat = threading.Thread(target=_beat, args=(lock, stop), name=f"heartbeat-{job_id}", daemon=True)
        beat.start()
        try:
            yield claim
        finally:
            stop.set()
            beat.join()
    finally:
        lock.close()


def abandon(data: Path, manifest: Manifest) -> None:
    """Publish a failure for a job whose process is about to be killed; a finished job stays as it is."""
    final = data / "results" / manifest.job_id
    folder = final.with_name(f"{manifest.job_id}.abandoned")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not final.exists():
            Claim(final, folder, 0).publish(manifest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # The process that writes there is about to be killed.
        shutil.rmtree(final.with_name(f"{manifest.job_id}.partial"), ignore_errors=True)


def _lock(partial: Path, job_id: str) -> IO[bytes]:
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            lock = (partial / HEARTBEAT).open("ab")
        except FileNotFoundError:  # published or cleared between the two lines
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunning(f"job {job_id} is being worked on by another process") from None
        try:
            if os.path.samestat(os.fstat(lock.fileno()), (partial / HEARTBEAT).stat()):
                return lock
        except FileNotFoundError:
            pass
        lock.close()


def _beat(lock: IO[bytes], stop: threading.Event) -> None:
    while not stop.is_set():
        os.utime(lock.fileno())
        stop.wait(HEARTBEAT_SECONDS)


def _count_attempt(partial: Path) -> int:
    file = partial / _ATTEMPTS
    try:
        attempt = int(file.read_text()) + 1
    except (FileNotFoundError, ValueError):
        attempt = 1
    file.write_text(str(attempt))
    return attempt


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What killed workers left in the results folder of jobs that nobody does any more."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from node.index import Index
from node.job import HEARTBEAT

log = logging.getLogger("aenode.route")


def left_behind(results: Path, unfinished: frozenset[str]) -> Iterator[Path]:
    """Folders that killed workers left of jobs that nobody does any more.

    A folder whose heartbeat is locked belongs to a worker that lives.
    """
    if not results.is_dir():
        return
    for folder in sorted(results.iterdir()):
        job_id, _, ending = folder.name.partition(".")
        if ending in ("partial", "abandoned") and job_id not in unfinished and not _is_locked(folder):
            yield folder


def _is_locked(folder: Path) -> bool:
    try:
        heartbeat = os.open(folder / HEARTBEAT, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(heartbeat, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(heartbeat)
    return False


def sweep_results(data: Path, index: Index) -> int:
    """Remove what killed workers left behind; how many folders."""
    unfinished = frozenset(submission.job.id for submission in index.unfinished_jobs())
    count = 0
    for folder in left_behind(data / "results", unfinished):
        shutil.rmtree(folder, ignore_errors=True)
        count += 1
    if count:
        log.info("%d unfinished result folders of finished or unknown jobs were removed", count)
    return count

"""Removes from the disk what is settled, proven and old: oldest first, never by age alone.

Files go first and the index is told afterwards, so a crash between the two costs a repetition. The
rows stay: what happened to a series can still be told, and an instance that comes again is known.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from node.config_file import SettingsFile
from node.index import Index, Purgeable

log = logging.getLogger("aenode.deliver")

_AT_ONCE = 20  # series a portion


class Retention:
    """`step` removes what may go; it returns after each portion when it is told to stop."""

    def __init__(self, file: SettingsFile, index: Index) -> None:
        self._file = file
        self._index = index

    def step(self, now: datetime, stopped: Callable[[], bool] = lambda: False) -> int:
        """Remove everything that may go at `now`; how many series that were."""
        retention = self._file.settings.retention
        before = now - timedelta(days=retention.days)
        count = 0
        while not stopped():
            portion = self._index.purgeable(before, retention.purge, _AT_ONCE)
            for purgeable in portion:
                self._index.require_lease()
                self._remove(purgeable)
                self._index.record_purge(purgeable, now)
                count += 1
            if len(portion) < _AT_ONCE:
                break
        if count:
            log.info("%d series were removed after their retention time", count)
        return count

    def _remove(self, purgeable: Purgeable) -> None:
        data = self._file.settings.node.data
        for path in purgeable.paths:
            (data / path).unlink(missing_ok=True)
        for folder in {data / path.parent for path in purgeable.paths}:
            with suppress(OSError):  # an instance has just come, or one is kept beside
                folder.rmdir()
        for job_id in purgeable.job_ids:
            for name in (job_id, f"{job_id}.failed"):
                shutil.rmtree(data / "results" / name, ignore_errors=True)

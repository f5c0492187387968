"""One active router of several: the others stand by and take over when it dies.

Whether the active one lives is judged by the beat of its lease and this machine's monotonic clock; a
dead process of the same machine is replaced at once. Whoever takes over gets a higher token, and every
write of the one before is refused from then on (fencing), even if it was only asleep.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from node.index import Index, Lease, LeaseLost

log = logging.getLogger("aenode.route")

NAME = "route"


def this_process() -> str:
    """Machine, process namespace, process id and its start: the name of one process for all time."""
    return ":".join((*_place(), str(os.getpid()), _started(os.getpid())))


def _place() -> tuple[str, str]:
    namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a link that must not be resolved
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname(), f"{boot}/{namespace}"


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    *place, pid, started = holder.split(":")
    return tuple(place) == _place() and pid.isdecimal() and _started(int(pid)) != started


class ActiveRouter:
    """Whether this process is the active router; `look` is called about once a second."""

    def __init__(
        self,
        index: Index,
        seconds: float,
        *,
        holder: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._seconds = seconds
        self._holder = holder or this_process()
        self._monotonic = monotonic
        self._held = False
        self._beat_at = 0.0
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self._stands_by = False

    @property
    def active(self) -> bool:
        """Whether the lease is held, and was shown to be held a short time ago."""
        return self._held and self._monotonic() - self._beat_at < self._seconds / 2

    def look(self) -> bool:
        """Beat, or try to take over. Whether this process is active now."""
        if self._held:
            self._beat()
        if not self._held:
            self._try()
        return self.active

    def _beat(self) -> None:
        now = self._monotonic()
        if now - self._beat_at < self._seconds / 6:
            return
        try:
            self._index.beat_lease()
            self._beat_at = now
        except LeaseLost as error:
            log.warning("%s", error)
            self._held, self._seen = False, None

    def _try(self) -> None:
        now = self._monotonic()
        lease = self._index.lease(NAME)
        if lease is not None and lease != self._seen:
            self._seen, self._seen_at = lease, now
        silent = lease is None or not lease.holder or is_dead(lease.holder)
        if not silent and now - self._seen_at < self._seconds:
            if not self._stands_by:
                log.info("another router is active; this one stands by")
            self._stands_by = True
            return
        token = self._index.take_lease(NAME, self._holder, lease)
        if token is None:
            return
        log.info("this router is the active one (token %d)", token)
        self._held, self._beat_at, self._stands_by = True, now, False

    def release(self) -> None:
        """Let another router take over at once."""
        if not self._held:
            return
        self._held = False
        try:
            self._index.release_lease()
        except LeaseLost as error:
            log.info("%s", error)

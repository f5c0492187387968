"""Audit messages of STOW-RS requests, one for those of a peer within a second: many bring one instance each.

What waits when the process is killed is lost from the record, as the message of an association is that had
not ended.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from node.audit import Audit, Studies

log = logging.getLogger("aenode.receive")

_GATHER_SECONDS = 1.0


class Recording:
    """Gathers what peers sent, and writes it on a thread of its own."""

    def __init__(self, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, str], dict[str, Counter[str]]] = {}
        self._refused: Counter[tuple[str, str]] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self) -> None:
        """Write what waits and stop."""
        self._stopping.set()
        self._thread.join()

    def add(self, calling_ae: str, host: str, studies: Studies, refused: int) -> None:
        """Count what a request brought."""
        who = (calling_ae, host)
        with self._lock:
            sent = self._sent.setdefault(who, {})
            for study_uid, classes in studies.items():
                sent.setdefault(study_uid, Counter()).update(classes)
            self._refused[who] += refused

    def _run(self) -> None:
        while not self._stopping.wait(_GATHER_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            sent, self._sent = self._sent, {}
            refused, self._refused = self._refused, Counter()
        for (calling_ae, host), studies in sent.items():
            try:
                self._audit.received(self._clock(), calling_ae, host, studies, refused[calling_ae, host])
            except Exception:
                log.exception("an audit message was not written")

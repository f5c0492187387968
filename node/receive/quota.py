"""How much of the spool, and how many associations, each peer may take."""

import threading
import time
from collections import Counter

from node.config import Peer
from node.index import Index

_ASK_EVERY_SECONDS = 30.0


class Quotas:
    """Bytes of the spool and associations of each calling AE title.

    The index tells how much is there; what was received since it was last asked is added.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._bytes: dict[str, tuple[float, int]] = {}  # when the index was asked, and bytes since then
        self._associations: Counter[str] = Counter()

    def is_used_up(self, peer: Peer | None) -> bool:
        """Whether a peer has no bytes left."""
        if peer is None or peer.quota is None:
            return False
        now = time.monotonic()
        with self._lock:
            asked_at, used = self._bytes.get(peer.title, (0.0, 0))
        if asked_at == 0.0 or now - asked_at >= _ASK_EVERY_SECONDS:
            used = self._index.spooled_bytes(peer.title)
            with self._lock:
                self._bytes[peer.title] = (now, used)
        return used >= peer.quota

    def received(self, calling_ae: str, size: int) -> None:
        """Count an instance."""
        with self._lock:
            if calling_ae in self._bytes:
                asked_at, used = self._bytes[calling_ae]
                self._bytes[calling_ae] = (asked_at, used + size)

    def enter(self, peer: Peer | None, calling_ae: str) -> bool:
        """Count an association, where the peer may have one more."""
        with self._lock:
            limit = peer.max_associations if peer is not None else None
            if limit is not None and self._associations[calling_ae] >= limit:
                return False
            self._associations[calling_ae] += 1
            return True

    def leave(self, calling_ae: str) -> None:
        """An association that was counted has ended."""
        with self._lock:
            self._associations[calling_ae] -= 1

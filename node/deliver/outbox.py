"""The outbox: PENDING deliveries go to their peers, and the index learns what came of each.

One thread a peer that has work due, so that a slow peer holds up nobody else. An instance may
be sent twice (a crash between the peer's answer and ours to the index), never not at all; UIDs are
deterministic, so the archive ends the same.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from node.config import Peer, Settings
from node.config_file import SettingsFile
from node.deliver.backoff import delay
from node.deliver.breaker import AlwaysClosed, Breaker
from node.deliver.proof import Proof
from node.dimse.outcome import Outcome
from node.dimse.scu import StoreResult, store_each
from node.entities import Delivery
from node.errors import IllegalTransition, PeerError
from node.index import DeliveryOutcome, Index
from node.states import DeliveryState

log = logging.getLogger("aenode.deliver")

_WRITE_TOGETHER = 32  # results a transaction
_WRITE_AFTER = timedelta(seconds=1)
_LOOK_FOR_STRAYS = timedelta(minutes=1)


class Outbox:
    """Sends what is due. `step` returns at once; `wait` and `close` are for its threads."""

    def __init__(
        self,
        settings_file: SettingsFile,
        index: Index,
        clock: Callable[[], datetime],
        *,
        breaker: Breaker | None = None,
        proofs: Mapping[str, Proof] | None = None,
    ) -> None:
        self._settings_file = settings_file
        self._index = index
        self._clock = clock
        self._breaker: Breaker = breaker or AlwaysClosed()
        self._proofs = proofs or {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self._strays_at: datetime | None = None

    def step(self, now: datetime) -> None:
        """Start a thread for every peer that has deliveries due and no thread yet."""
        settings = self._settings_file.settings
        for peer in settings.peers:
            thread = self._threads.get(peer.name)
            if (thread and thread.is_alive()) or not self._has_work(peer, now):
                continue
            thread = threading.Thread(
                target=self._serve, args=(peer, settings), name=f"deliver-{peer.name}", daemon=True
            )
            self._threads[peer.name] = thread
            thread.start()
        if self._strays_at is None or now >= self._strays_at:
            self._strays_at = now + _LOOK_FOR_STRAYS
            self._explain_strays(settings, now)

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds for the threads that run; whether all have ended."""
        until = time.monotonic() + timeout
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads.values())

    def close(self, timeout: float = 30) -> bool:
        """End each association after the instance under way; whether all did within `timeout` seconds."""
        self._stopping.set()
        return self.wait(timeout)

    def _has_work(self, peer: Peer, now: datetime) -> bool:
        if self._stopping.is_set() or peer.address is None or not self._breaker.permits(peer.name, now):
            return False
        due = self._index.next_delivery_at(peer.name)
        return (due is not None and due <= now) or (
            peer.prove in self._proofs
            and bool(self._index.deliveries_in(DeliveryState.SENT, peer=peer.name, limit=1))
        )

    def _serve(self, peer: Peer, settings: Settings) -> None:
        try:
            while self._send_batch(peer, settings):
                pass
            if not self._stopping.is_set():
                self._prove(peer, settings)
        except Exception:
            # Nothing was lost: what the index does not call SENT is still PENDING.
            log.exception("delivery to %s stopped; it begins again", peer.name)
            self._breaker.failed(peer.name, self._clock())

    def _send_batch(self, peer: Peer, settings: Settings) -> bool:
        """Send what is due over one association; whether another batch may follow at once."""
        due = self._index.due_deliveries(peer.name, self._clock(), settings.deliver.batch)
        if not due or self._stopping.is_set():
            return False
        files = [settings.node.data / delivery.artifact.path for delivery in due]
        timeout = settings.deliver.timeout_seconds
        ready: list[DeliveryOutcome] = []
        tried, answered, written_at = 0, 0, self._clock()
        try:
            with closing(store_each(peer, settings.node.ae_title, files, timeout=timeout)) as results:
                for delivery, result in zip(due, results, strict=True):
                    if not result.tried:
                        break  # it stays due: the next association begins with it
                    ready.append(self._outcome(settings, delivery, result))
                    tried += 1
                    answered += result.status is not None or result.outcome is Outcome.REFUSED
                    if len(ready) >= _WRITE_TOGETHER or self._clock() - written_at >= _WRITE_AFTER:
                        self._record(peer, ready)
                        ready, written_at = [], self._clock()
                    if self._stopping.is_set():
                        break
        except PeerError as error:
            log.warning("no association: %s", error)
            for delivery, file in zip(due[tried:], files[tried:], strict=True):
                result = StoreResult(file, Outcome.REFUSED if error.permanent else Outcome.RETRY, str(error))
                ready.append(self._outcome(settings, delivery, result))
        self._record(peer, ready)
        whole = answered == len(due)
        (self._breaker.succeeded if whole else self._breaker.failed)(peer.name, self._clock())
        return whole

    def _outcome(self, settings: Settings, delivery: Delivery, result: StoreResult) -> DeliveryOutcome:
        """What a result means for its delivery."""
        attempt = delivery.attempts + 1
        state, reason, again = DeliveryState.DEAD, result.reason, None
        if result.outcome.kept:
            state = DeliveryState.SENT
        elif result.outcome is Outcome.RETRY and attempt >= settings.deliver.attempts:
            reason = f"{reason}; given up after {attempt} attempts"
        elif result.outcome is Outcome.RETRY:
            state = DeliveryState.PENDING
            first, limit = settings.deliver.retry_seconds, settings.deliver.retry_max_seconds
            wait = delay(attempt, first=first, limit=limit, seed=delivery.peer)
            again = self._clock() + timedelta(seconds=wait)
        return DeliveryOutcome(
            delivery=delivery, state=state, status=result.status, reason=reason, next_attempt_at=again
        )

    def _record(self, peer: Peer, outcomes: Sequence[DeliveryOutcome]) -> None:
        if not outcomes:
            return
        at = self._clock()
        try:
            self._index.record_deliveries(outcomes, at)
        except IllegalTransition:
            # Somebody else moved one of them meanwhile; the others must not suffer for it.
            for outcome in outcomes:
                try:
                    self._index.record_deliveries([outcome], at)
                except IllegalTransition as error:
                    log.warning("%s: %s", peer.name, error)
        counts = Counter(outcome.state for outcome in outcomes)
        log.log(
            logging.ERROR if counts[DeliveryState.DEAD] else logging.INFO,
            "%s: %s",
            peer.name,
            ", ".join(f"{count} deliveries {state}" for state, count in counts.items()),
        )

    def _prove(self, peer: Peer, settings: Settings) -> None:
        proof = self._proofs.get(peer.prove)
        sent = self._index.deliveries_in(DeliveryState.SENT, peer=peer.name, limit=settings.deliver.batch)
        if proof is None or not sent:
            return
        try:
            self._record(peer, proof.ask(peer, settings.node.ae_title, sent))
        except PeerError as error:
            log.warning("%s: %d deliveries are not proven yet: %s", peer.name, len(sent), error)

    def _explain_strays(self, settings: Settings, now: datetime) -> None:
        """Tell the timeline why deliveries wait whose peer the settings no longer have."""
        addressed = {peer.name for peer in settings.peers if peer.address}
        for name in (status.peer for status in self._index.status().peers):
            if name in addressed:
                continue
            reason = f"waits: the settings have no peer {name} with an address"
            strays = self._index.due_deliveries(name, now, settings.deliver.batch)
            untold = [delivery for delivery in strays if delivery.reason != reason]
            outcomes = [
                DeliveryOutcome(
                    delivery=delivery, state=DeliveryState.PENDING, reason=reason, next_attempt_at=now
                )
                for delivery in untold
            ]
            if outcomes:
                log.warning(
                    "%d deliveries wait: the settings have no peer %s with an address", len(outcomes), name
                )
                self._index.record_deliveries(outcomes, now)

"""The outbox: PENDING deliveries go to their peers, and the index learns what came of each.

Threads of its own for each peer that has work due, so that a slow peer holds up nobody else. An
instance may be sent twice (a crash between the peer's answer and ours to the index), never not at
all; UIDs are deterministic, so the archive ends the same.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from node.audit import Audit, studies_of
from node.backoff import delay
from node.config import Peer, Settings
from node.config_file import SettingsFile
from node.deliver.breaker import AlwaysClosed, Breaker
from node.deliver.proof import Proof
from node.deliver.sending import Sender, send
from node.entities import Delivery
from node.errors import IllegalTransition, PeerError
from node.index import DeliveryOutcome, Index, LeaseLost, Turn
from node.reach import host_of, store_each
from node.states import DeliveryState

log = logging.getLogger("aenode.deliver")

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
        sender: Sender = store_each,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._settings_file = settings_file
        self._index = index
        self._clock = clock
        self._breaker: Breaker = breaker or AlwaysClosed()
        self._proofs = proofs or {}
        self._sender = sender
        self._threads: dict[tuple[str, int], threading.Thread] = {}
        self._turns: dict[str, Turn] = {}
        self._taking = threading.Lock()
        self._under_way: set[int] = set()  # ids of deliveries that a thread has taken
        self._stopping = threading.Event()
        self._strays_at: datetime | None = None

    def step(self, now: datetime) -> None:
        """Start threads for every peer that has deliveries due."""
        settings = self._settings_file.settings
        self._give_turns_back()
        for peer in settings.peers:
            self._start(peer, settings, now)
        if self._strays_at is None or not timedelta() < self._strays_at - now <= _LOOK_FOR_STRAYS:
            self._strays_at = now + _LOOK_FOR_STRAYS
            self._explain_strays(settings, now)

    def _start(self, peer: Peer, settings: Settings, now: datetime) -> None:
        for slot in range(peer.associations):
            thread = self._threads.get((peer.name, slot))
            if thread and thread.is_alive():
                continue
            if not self._has_work(peer, now) or not self._has_turn(peer):
                return
            thread = threading.Thread(
                target=self._serve,
                args=(peer, settings, slot),
                name=f"deliver-{peer.name}-{slot}",
                daemon=True,
            )
            self._threads[peer.name, slot] = thread
            thread.start()

    def _has_turn(self, peer: Peer) -> bool:
        """Whether this router serves the peer: of several, one does at a time."""
        if peer.name not in self._turns:
            turn = self._index.take_turn(f"deliver {peer.name}")
            if turn is None:
                return False
            self._turns[peer.name] = turn
        return True

    def _give_turns_back(self) -> None:
        busy = {name for (name, _), thread in self._threads.items() if thread.is_alive()}
        for name in self._turns.keys() - busy:
            self._turns.pop(name).release()

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds for the threads that run; whether all have ended."""
        until = time.monotonic() + timeout
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads.values())

    def close(self, timeout: float = 30) -> bool:
        """End each association after the instance under way; whether all did within `timeout` seconds."""
        self._stopping.set()
        ended = self.wait(timeout)
        self._give_turns_back()
        return ended

    def _has_work(self, peer: Peer, now: datetime) -> bool:
        if self._stopping.is_set() or not peer.reachable or not self._breaker.permits(peer.name, now):
            return False
        with self._taking:
            taken = len(self._under_way)
            due = self._index.due_deliveries(peer.name, now, taken + 1)
            if any(delivery.id not in self._under_way for delivery in due):
                return True
        alone = not any(t.is_alive() for (name, _), t in self._threads.items() if name == peer.name)
        return alone and peer.prove in self._proofs and bool(self._index.due_proofs(peer.name, now, 1))

    def _take(self, peer: Peer, settings: Settings) -> list[Delivery]:
        """This thread's share of what is due."""
        batch = settings.deliver.batch
        with self._taking:
            found = self._index.due_deliveries(peer.name, self._clock(), batch + len(self._under_way))
            free = [delivery for delivery in found if delivery.id not in self._under_way]
            share = free[: min(batch, -(-len(free) // peer.associations))]
            self._under_way.update(delivery.id for delivery in share)
        return share

    def _serve(self, peer: Peer, settings: Settings, slot: int) -> None:
        try:
            if not self._breaker.ready(peer, self._clock()):
                return
            while self._send_batch(peer, settings):
                pass
            if slot == 0:
                self._prove(peer, settings)
        except LeaseLost as error:
            log.warning("delivery to %s stops: %s", peer.name, error)
        except Exception as error:
            # Nothing was lost: what the index does not call SENT is still PENDING.
            log.exception("delivery to %s stopped; it begins again", peer.name)
            self._breaker.failed(peer.name, self._clock(), type(error).__name__)

    def _send_batch(self, peer: Peer, settings: Settings) -> bool:
        """Send what is due over one association; whether another batch may follow at once."""
        if self._stopping.is_set():
            return False
        self._index.require_lease()
        if (turn := self._turns.get(peer.name)) is not None:
            turn.check()
        due = self._take(peer, settings)
        if not due:
            return False
        try:
            sent = send(
                self._sender,
                peer,
                settings.node.ae_title,
                due,
                settings.node.data,
                settings.deliver,
                self._clock,
                lambda outcomes: self._record(peer, outcomes),
                self._stopping.is_set,
            )
        finally:
            with self._taking:
                self._under_way.difference_update(delivery.id for delivery in due)
        self._note(peer, sent.kept, len(due) - len(sent.kept) - sent.left_out)
        if sent.answered:
            self._breaker.succeeded(peer.name, self._clock())
        elif not self._stopping.is_set():
            self._breaker.failed(peer.name, self._clock(), sent.reason)
        return sent.whole

    def _note(self, peer: Peer, kept: Sequence[Delivery], failed: int) -> None:
        """Tell the audit record what was transferred."""
        if self._audit is None or not kept:
            return
        studies = self._index.studies_of([delivery.artifact.job_id for delivery in kept])
        pairs = [(studies[d.artifact.job_id], d.artifact.sop_class_uid) for d in kept]
        self._audit.returned(self._clock(), peer.title, host_of(peer), studies_of(pairs), failed)

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
                    if not self._index.record_overtaken(outcome, at):
                        log.warning("%s: %s", peer.name, error)
        counts = Counter(outcome.state for outcome in outcomes)
        level = logging.WARNING if counts[DeliveryState.UNSUPPORTED] else logging.INFO
        log.log(
            logging.ERROR if counts[DeliveryState.DEAD] else level,
            "%s: %s",
            peer.name,
            ", ".join(f"{count} deliveries {state}" for state, count in counts.items()),
        )

    def _prove(self, peer: Peer, settings: Settings) -> None:
        proof = self._proofs.get(peer.prove)
        if proof is None:
            return
        deliver, batch = settings.deliver, settings.deliver.batch
        while not self._stopping.is_set():
            sent = self._index.due_proofs(peer.name, self._clock(), batch)
            if not sent:
                return
            reached = True
            try:
                self._record(peer, proof.ask(peer, settings.node.ae_title, sent))
            except PeerError as error:
                reached = False
                log.warning("%s: %d deliveries are not proven yet: %s", peer.name, len(sent), error)
            # What the answer says nothing of is asked about later.
            wait = delay(
                sent[0].proofs + 1,
                first=deliver.proof_seconds,
                limit=deliver.proof_max_seconds,
                seed=peer.name,
            )
            asked = {delivery.id for delivery in sent}
            due = self._index.due_proofs(peer.name, self._clock(), batch)
            left = [delivery for delivery in due if delivery.id in asked]
            self._index.postpone_proofs(left, self._clock() + timedelta(seconds=wait))
            if not reached:
                return

    def _explain_strays(self, settings: Settings, now: datetime) -> None:
        """Tell the timeline why deliveries wait whose peer the settings no longer have."""
        addressed = {peer.name for peer in settings.peers if peer.reachable}
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

"""What follows SENT: making sure that the peer holds what it answered Success for.

A peer's `prove` names the way: "commitment" asks for storage commitment, and falls back to C-FIND
where the peer has no such service; "find" asks by C-FIND at IMAGE level; "none" asks nothing, and
its deliveries stay SENT: the peer's status is all that is known. Nothing is ever called PROVEN that
was not asked for and answered. What a peer turns out not to hold is sent again.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from node.backoff import delay
from node.config import Deliver, Peer
from node.dimse.commitment import request_commitment
from node.dimse.requestor import NothingAccepted
from node.entities import Delivery
from node.index import DeliveryOutcome, Index
from node.reach import listed_instances
from node.states import DeliveryState

log = logging.getLogger("aenode.deliver")

_REMEMBERED = timedelta(days=7)  # a report that comes later than this is not known any more


class Proof(Protocol):
    """One way to make sure, such as storage commitment or C-FIND."""

    def ask(self, peer: Peer, own_ae: str, sent: Sequence[Delivery]) -> Sequence[DeliveryOutcome]:
        """What became of SENT deliveries: PROVEN, or PENDING where the peer lost one.

        A delivery that nothing is known of yet is left out. Raises PeerError.
        """


class FindProof:
    """Proof by C-FIND at IMAGE level, or QIDO-RS."""

    def __init__(self, index: Index, settings: Callable[[], Deliver], clock: Callable[[], datetime]) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock

    def ask(self, peer: Peer, own_ae: str, sent: Sequence[Delivery]) -> Sequence[DeliveryOutcome]:
        """PROVEN for what the peer lists. What it does not list is asked for again, then sent again.

        Many archives list an instance some time after they stored it, so one missing answer proves
        nothing. Raises PeerError.
        """
        settings = self._settings()
        studies = self._index.studies_of([delivery.artifact.job_id for delivery in sent])
        series = sorted({(studies[d.artifact.job_id], d.artifact.series_instance_uid) for d in sent})
        listed = listed_instances(peer, own_ae, series, timeout=settings.timeout_seconds)
        proven: list[DeliveryOutcome] = []
        lost: list[Delivery] = []
        for delivery in sent:
            artifact = delivery.artifact
            if artifact.sop_instance_uid in listed[artifact.series_instance_uid]:
                reason = f"listed by {peer.name}"
                proven.append(
                    DeliveryOutcome(
                        delivery=delivery, state=DeliveryState.PROVEN, status=delivery.status, reason=reason
                    )
                )
            elif delivery.proofs + 1 >= settings.proof_questions:
                lost.append(delivery)
        if lost:
            reason = f"{peer.name} does not list it, asked {settings.proof_questions} times; sent again"
            log.warning("%s does not hold %d instances that it accepted", peer.name, len(lost))
            self._index.record_loss(
                lost, self._clock(), reason, losses=settings.losses, retry_after=_again(settings, peer)
            )
        return proven


class CommitmentProof:
    """Proof by storage commitment; a report on another association is written by the receiver."""

    def __init__(
        self,
        index: Index,
        settings: Callable[[], Deliver],
        clock: Callable[[], datetime],
        otherwise: Proof,
    ) -> None:
        self._index = index
        self._settings = settings
        self._clock = clock
        self._otherwise = otherwise
        self._without: set[str] = set()  # peers that have no such service, told once

    def ask(self, peer: Peer, own_ae: str, sent: Sequence[Delivery]) -> Sequence[DeliveryOutcome]:
        """Ask for commitment to all of `sent` under a new transaction. Raises PeerError."""
        settings, now = self._settings(), self._clock()
        transaction = f"2.25.{uuid.uuid4().int}"
        # Known before it is asked: the report may overtake our own writing.
        self._index.forget_commitments(now - _REMEMBERED)
        self._index.open_commitment(transaction, peer.name, sent, now)
        pairs = [(d.artifact.sop_class_uid, d.artifact.sop_instance_uid) for d in sent]
        try:
            report = request_commitment(
                peer,
                own_ae,
                transaction,
                pairs,
                wait=settings.proof_wait_seconds,
                timeout=settings.timeout_seconds,
            )
        except NothingAccepted:
            if peer.name not in self._without:
                self._without.add(peer.name)
                log.warning("%s has no storage commitment; it is asked by C-FIND", peer.name)
            return self._otherwise.ask(peer, own_ae, sent)
        if report is not None:
            proven, lost = self._index.record_commitment(
                transaction,
                report.committed,
                report.failed,
                self._clock(),
                losses=settings.losses,
                retry_after=_again(settings, peer),
            )
            log.info("%s commits itself to %d instances, not to %d", peer.name, proven, lost)
        return ()


def _again(settings: Deliver, peer: Peer) -> timedelta:
    wait = delay(1, first=settings.retry_seconds, limit=settings.retry_max_seconds, seed=peer.name)
    return timedelta(seconds=wait)

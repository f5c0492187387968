"""Proof of what was sent: which deliveries are to be asked about, and what storage commitment reported."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from node.entities import Delivery
from node.index import rows
from node.index.store import Store, chunks
from node.index.tables import commitment_items, commitments, deliveries, jobs, series
from node.states import DeliveryState


class Proving(Store):
    """The part of the index that the proofs use, and the receiver for reports on a new association."""

    def due_proofs(self, peer: str, now: datetime, limit: int) -> list[Delivery]:
        """SENT deliveries to a peer whose next question is due, oldest first."""
        query = (
            rows.deliveries_with_artifacts()
            .where(
                deliveries.c.peer == peer,
                deliveries.c.state == DeliveryState.SENT,
                deliveries.c.next_attempt_at <= now,
            )
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return [rows.delivery(row) for row in connection.execute(query)]

    def studies_of(self, job_ids: Sequence[str]) -> dict[str, str]:
        """The StudyInstanceUID of each job's series."""
        found: dict[str, str] = {}
        with self._read() as connection:
            for chunk in chunks(sorted(set(job_ids))):
                query = (
                    select(jobs.c.id, series.c.study_instance_uid).join(series).where(jobs.c.id.in_(chunk))
                )
                found.update((row.id, row.study_instance_uid) for row in connection.execute(query))
        return found

    def postpone_proofs(self, asked: Sequence[Delivery], until: datetime, *, count: bool = True) -> None:
        """Ask again about SENT deliveries at `until`; `count` where they were asked about now."""
        with self._write(durable=False) as connection:
            for chunk in chunks([d.id for d in asked]):
                connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(chunk), deliveries.c.state == DeliveryState.SENT)
                    .values(next_attempt_at=until, proofs=deliveries.c.proofs + int(count))
                )

    def open_commitment(
        self, transaction_uid: str, peer: str, asked: Sequence[Delivery], at: datetime
    ) -> None:
        """Note a request for storage commitment before it is made, so that its report is known."""
        with self._write() as connection:
            connection.execute(
                insert(commitments).values(transaction_uid=transaction_uid, peer=peer, asked_at=at)
            )
            self._insert_new(
                connection,
                commitment_items,
                [{"transaction_uid": transaction_uid, "delivery_id": d.id} for d in asked],
            )

    def forget_commitments(self, before: datetime) -> int:
        """Remove transactions asked for before a time; their reports are not expected any more."""
        old = select(commitments.c.transaction_uid).where(commitments.c.asked_at < before)
        with self._write(durable=False) as connection:
            connection.execute(commitment_items.delete().where(commitment_items.c.transaction_uid.in_(old)))
            return connection.execute(commitments.delete().where(commitments.c.asked_at < before)).rowcount

    def commitment_peer(self, transaction_uid: str) -> str | None:
        """The name of the peer that was asked under this transaction; None where there is none."""
        with self._read() as connection:
            peer: str | None = connection.execute(
                select(commitments.c.peer).where(commitments.c.transaction_uid == transaction_uid)
            ).scalar()
            return peer

    def record_commitment(
        self,
        transaction_uid: str,
        committed: Sequence[str],
        failed: Mapping[str, int],
        at: datetime,
        *,
        losses: int,
        retry_after: timedelta,
    ) -> tuple[int, int]:
        """Write a report: PROVEN what was committed, PENDING what was not; how many of each.

        `committed` are SOP Instance UIDs, `failed` gives the FailureReason (PS3.3 C.14.1.1) of others.
        Only SENT deliveries of this very transaction are moved, so a late or repeated report does
        no harm. After `losses` failures a delivery is DEAD: sending it again does not help.
        """
        good, proven, lost = set(committed), 0, 0
        with self._write() as connection:
            for delivery in _of_transaction(connection, transaction_uid):
                uid = delivery.artifact.sop_instance_uid
                if uid in failed:
                    reason = f"not committed by {delivery.peer} (0x{failed[uid]:04X})"
                    self._lose(connection, delivery, at, reason, losses, retry_after)
                    lost += 1
                elif uid in good:
                    details = {"peer": delivery.peer}
                    self._move(
                        connection, delivery, DeliveryState.PROVEN, at, "storage committed", details=details
                    )
                    proven += 1
            connection.execute(
                update(commitments)
                .where(commitments.c.transaction_uid == transaction_uid)
                .values(answered_at=at)
            )
        return proven, lost

    def record_loss(
        self, lost: Sequence[Delivery], at: datetime, reason: str, *, losses: int, retry_after: timedelta
    ) -> None:
        """Return SENT deliveries that the peer does not hold to PENDING, or DEAD after `losses` times."""
        with self._write() as connection:
            for delivery in lost:
                self._lose(connection, delivery, at, reason, losses, retry_after)

    def _lose(
        self,
        connection: Connection,
        delivery: Delivery,
        at: datetime,
        reason: str,
        losses: int,
        retry_after: timedelta,
    ) -> None:
        count = delivery.losses + 1
        state = DeliveryState.DEAD if count >= losses else DeliveryState.PENDING
        if state is DeliveryState.DEAD:
            reason = f"{reason}; accepted and not kept {count} times"
        self._move(
            connection,
            delivery,
            state,
            at,
            reason,
            details={"peer": delivery.peer},
            losses=count,
            proofs=0,
            next_attempt_at=at + retry_after,
        )


def _of_transaction(connection: Connection, transaction_uid: str) -> list[Delivery]:
    query = (
        rows.deliveries_with_artifacts()
        .join(commitment_items, commitment_items.c.delivery_id == deliveries.c.id)
        .where(
            commitment_items.c.transaction_uid == transaction_uid,
            deliveries.c.state == DeliveryState.SENT,
        )
        .order_by(deliveries.c.id)
    )
    return [rows.delivery(row) for row in connection.execute(query)]

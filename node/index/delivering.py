"""What the outbox asks and writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update

from node.entities import Delivery
from node.errors import IllegalTransition
from node.index import rows
from node.index.store import Store
from node.index.tables import breakers, deliveries
from node.states import DeliveryState

_REQUEUED = (DeliveryState.DEAD, DeliveryState.UNSUPPORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """What an attempt at a delivery came to.

    `state` is SENT or PROVEN, DEAD or UNSUPPORTED, or PENDING for a failure to be tried again at
    `next_attempt_at`. `status` is the peer's C-STORE status where it answered.
    """

    delivery: Delivery
    state: DeliveryState
    status: int | None = None
    reason: str = ""
    next_attempt_at: datetime | None = None


class Delivering(Store):
    """The outbox's part of the index."""

    def due_deliveries(self, peer: str, now: datetime, limit: int) -> list[Delivery]:
        """PENDING deliveries to a peer whose backoff is over: STAT first, then the longest due."""
        query = (
            rows.deliveries_with_artifacts()
            .where(
                deliveries.c.peer == peer,
                deliveries.c.state == DeliveryState.PENDING,
                deliveries.c.next_attempt_at <= now,
            )
            .order_by(deliveries.c.priority, deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return [rows.delivery(row) for row in connection.execute(query)]

    def deliveries_in(
        self, state: DeliveryState, *, peer: str | None = None, job_id: str | None = None, limit: int = 10_000
    ) -> list[Delivery]:
        """Deliveries in a state, oldest first; of one peer or one job where named."""
        query = rows.deliveries_with_artifacts().where(deliveries.c.state == state)
        if peer is not None:
            query = query.where(deliveries.c.peer == peer)
        if job_id is not None:
            query = query.where(deliveries.c.job_id == job_id)
        with self._read() as connection:
            found = connection.execute(query.order_by(deliveries.c.id).limit(limit))
            return [rows.delivery(row) for row in found]

    def next_delivery_at(self, peer: str) -> datetime | None:
        """When the next PENDING delivery to a peer is due; None where there is none."""
        query = select(func.min(deliveries.c.next_attempt_at)).where(
            deliveries.c.peer == peer, deliveries.c.state == DeliveryState.PENDING
        )
        with self._read() as connection:
            due: datetime | None = connection.execute(query).scalar()
            return due

    def record_deliveries(self, outcomes: Sequence[DeliveryOutcome], at: datetime) -> None:
        """Write what a batch of attempts came to, in one transaction.

        Raises IllegalTransition, and writes nothing, where one is no longer in the state it was read in.
        """
        with self._write() as connection:
            for outcome in outcomes:
                delivery = outcome.delivery
                values: dict[str, Any] = {"status": outcome.status}
                if delivery.state is DeliveryState.PENDING:
                    values["attempts"] = delivery.attempts + 1
                if outcome.state is DeliveryState.SENT:
                    # Its proof may be asked for at once.
                    values |= {"sent_at": at, "proofs": 0, "next_attempt_at": at}
                if outcome.next_attempt_at is not None:
                    values["next_attempt_at"] = outcome.next_attempt_at
                if outcome.state is not delivery.state:
                    self._move(
                        connection,
                        delivery,
                        outcome.state,
                        at,
                        outcome.reason,
                        details={"peer": delivery.peer, "attempt": delivery.attempts + 1},
                        **values,
                    )
                    continue
                # Another wait is no change of state, but a new reason for it has its line in the timeline:
                # an archive that is down for a week must not fill it with the same sentence.
                changed = connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id == delivery.id, deliveries.c.state == delivery.state)
                    .values(reason=outcome.reason, **values)
                )
                if changed.rowcount != 1:
                    raise IllegalTransition(f"delivery {delivery.id} is no longer {delivery.state}")
                if outcome.reason == delivery.reason:
                    continue
                self._note(
                    connection,
                    self._series_uid(connection, delivery),
                    "delivery",
                    str(delivery.id),
                    outcome.state,
                    at,
                    outcome.reason,
                    {"peer": delivery.peer, "attempt": delivery.attempts + 1},
                )

    def record_overtaken(self, outcome: DeliveryOutcome, at: datetime) -> bool:
        """Write that a peer took what was withdrawn while it was under way; False where it is not that."""
        delivery = replace(outcome.delivery, state=DeliveryState.WITHDRAWN)
        if outcome.state is not DeliveryState.SENT:
            return False
        reason = f"{outcome.reason}; it was under way when it was withdrawn"
        try:
            with self._write() as connection:
                values: dict[str, Any] = {"status": outcome.status, "sent_at": at, "next_attempt_at": at}
                self._move(connection, delivery, DeliveryState.SENT, at, reason, **values)
        except IllegalTransition:
            return False
        return True

    def record_delivery(
        self,
        delivery: Delivery,
        state: DeliveryState,
        at: datetime,
        *,
        status: int | None = None,
        reason: str = "",
        next_attempt_at: datetime | None = None,
    ) -> None:
        """Write what one attempt came to; see `record_deliveries`."""
        outcome = DeliveryOutcome(
            delivery=delivery, state=state, status=status, reason=reason, next_attempt_at=next_attempt_at
        )
        self.record_deliveries([outcome], at)

    def requeue_deliveries(
        self,
        at: datetime,
        *,
        peer: str | None = None,
        job_ids: Sequence[str] | None = None,
        reason: str = "requeued by hand",
    ) -> list[Delivery]:
        """Return DEAD and UNSUPPORTED deliveries to PENDING, due at once; all, or those of a peer or jobs."""
        query = rows.deliveries_with_artifacts().where(deliveries.c.state.in_(_REQUEUED))
        if peer is not None:
            query = query.where(deliveries.c.peer == peer)
        if job_ids is not None:
            query = query.where(deliveries.c.job_id.in_(job_ids))
        with self._write() as connection:
            ended = [rows.delivery(row) for row in connection.execute(query.order_by(deliveries.c.id))]
            for delivery in ended:
                self._move(
                    connection,
                    delivery,
                    DeliveryState.PENDING,
                    at,
                    reason,
                    attempts=0,
                    losses=0,
                    next_attempt_at=at,
                )
            return ended

    def record_breaker(
        self,
        peer: str,
        state: str,
        at: datetime,
        *,
        failures: int = 0,
        probe_at: datetime | None = None,
        reason: str = "",
    ) -> None:
        """Note how a peer's circuit breaker stands, for people to see."""
        row = {
            "peer": peer,
            "state": state,
            "since": at,
            "failures": failures,
            "probe_at": probe_at,
            "reason": reason,
        }
        with self._write(durable=False) as connection:
            self._insert_new(connection, breakers, [row])
            earlier = connection.execute(select(breakers.c.state).where(breakers.c.peer == peer)).scalar()
            if earlier == state:
                row["since"] = breakers.c.since
            connection.execute(update(breakers).where(breakers.c.peer == peer).values(row))

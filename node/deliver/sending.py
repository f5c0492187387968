"""One association's worth of deliveries: what each result means for its delivery.

How files travel is a `Sender`'s business: `node.reach.store_each` is the one that a node uses, and
any other with its signature may stand in for some peers.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from node.backoff import delay
from node.config import Deliver, Peer
from node.dimse.outcome import Outcome
from node.dimse.outgoing import StoreResult
from node.entities import Delivery
from node.errors import PeerError
from node.index import DeliveryOutcome
from node.states import DeliveryState

_WRITE_TOGETHER = 32  # results a transaction
_WRITE_AFTER = timedelta(seconds=1)


class Sender(Protocol):
    """Sends files to a peer, and gives each one's result as soon as it is known, in their order.

    Closing the generator ends the sending after the file under way. A result with `tried` False
    means that the file's turn did not come. Raises PeerError where there is no connection at all.
    """

    def __call__(
        self, peer: Peer, own_ae: str, files: Sequence[Path], *, timeout: float
    ) -> Generator[StoreResult, None, None]:
        """Send; `timeout` is in seconds, for each answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What sending a batch came to."""

    whole: bool  # the peer answered for every file
    answered: int  # files that it answered for
    kept: tuple[Delivery, ...]  # those that it has now
    left_out: int  # those that it does not take at all
    reason: str = ""  # why not all


def outcome_of(settings: Deliver, delivery: Delivery, result: StoreResult, now: datetime) -> DeliveryOutcome:
    """What a result means for its delivery."""
    attempt = delivery.attempts + 1
    state, reason, again = DeliveryState.DEAD, result.reason, None
    if result.outcome.kept:
        state = DeliveryState.SENT
    elif result.outcome is Outcome.UNSUPPORTED:
        state, reason = DeliveryState.UNSUPPORTED, f"left out: {reason}"
    elif result.outcome is Outcome.RETRY and attempt >= settings.attempts:
        reason = f"{reason}; given up after {attempt} attempts"
    elif result.outcome is Outcome.RETRY:
        state = DeliveryState.PENDING
        wait = delay(
            attempt, first=settings.retry_seconds, limit=settings.retry_max_seconds, seed=delivery.peer
        )
        again = now + timedelta(seconds=wait)
    return DeliveryOutcome(
        delivery=delivery, state=state, status=result.status, reason=reason, next_attempt_at=again
    )


def send(
    sender: Sender,
    peer: Peer,
    own_ae: str,
    due: Sequence[Delivery],
    data: Path,
    settings: Deliver,
    clock: Callable[[], datetime],
    record: Callable[[Sequence[DeliveryOutcome]], None],
    stopped: Callable[[], bool],
) -> Sent:
    """Send deliveries over one association; `record` is given their outcomes, some at a time."""
    files = [data / delivery.artifact.path for delivery in due]
    ready: list[DeliveryOutcome] = []
    kept: list[Delivery] = []
    tried, answered, left_out, written_at, reason = 0, 0, 0, clock(), ""
    try:
        with closing(sender(peer, own_ae, files, timeout=settings.timeout_seconds)) as results:
            for delivery, result in zip(due, results, strict=True):
                if not result.tried:
                    break  # it stays due: the next association begins with it
                ready.append(outcome_of(settings, delivery, result, clock()))
                tried += 1
                if result.outcome.kept:
                    kept.append(delivery)
                left_out += result.outcome is Outcome.UNSUPPORTED
                if result.status is not None or result.outcome.final:
                    answered += 1
                else:
                    reason = result.reason
                if len(ready) >= _WRITE_TOGETHER or clock() - written_at >= _WRITE_AFTER:
                    record(ready)
                    ready, written_at = [], clock()
                if stopped():
                    break
    except PeerError as error:
        reason = str(error)
        for delivery, file in zip(due[tried:], files[tried:], strict=True):
            result = StoreResult(file, Outcome.REFUSED if error.permanent else Outcome.RETRY, reason)
            ready.append(outcome_of(settings, delivery, result, clock()))
    record(ready)
    return Sent(answered == len(due), answered, tuple(kept), left_out, reason)

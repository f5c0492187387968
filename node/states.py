"""The states of a series revision, a job and a delivery, and the only ways between them.

A row changes its state through `Index.move`, which asks `require` here and writes the
change, its time and its reason to the timeline in the same transaction.
"""

from enum import StrEnum

from node.errors import IllegalTransition


class SeriesState(StrEnum):
    """Where one revision of a series stands."""

    RECEIVING = "RECEIVING"  # instances may still come
    COMPLETE = "COMPLETE"  # frozen; the rules have not been asked yet
    ROUTED = "ROUTED"  # at least one rule matched; its jobs exist
    IGNORED = "IGNORED"  # no rule matched, or it is our own result
    QUARANTINED = "QUARANTINED"  # kept, but cannot be read as a series


class JobState(StrEnum):
    """Where one pipeline on one frozen revision stands."""

    QUEUED = "QUEUED"  # to be handed to the broker, or handed over and not begun
    RUNNING = "RUNNING"  # a worker holds it under a lease
    DONE = "DONE"  # its result folder was collected
    FAILED = "FAILED"  # gave no result; the reason is in the timeline


class DeliveryState(StrEnum):
    """Where one artifact on its way to one peer stands."""

    PENDING = "PENDING"  # to be sent, at once or after its backoff
    SENT = "SENT"  # the peer answered Success or a warning
    PROVEN = "PROVEN"  # the peer holds it, by commitment or by query
    DEAD = "DEAD"  # refused for good, or out of attempts
    UNSUPPORTED = "UNSUPPORTED"  # the peer takes nothing of its SOP class: left out there
    WITHDRAWN = "WITHDRAWN"  # not true any more before it was sent: a notice of a job that runs again


State = SeriesState | JobState | DeliveryState

TRANSITIONS: dict[State, frozenset[State]] = {
    SeriesState.RECEIVING: frozenset({SeriesState.COMPLETE, SeriesState.QUARANTINED}),
    SeriesState.COMPLETE: frozenset({SeriesState.ROUTED, SeriesState.IGNORED, SeriesState.QUARANTINED}),
    SeriesState.ROUTED: frozenset(),
    SeriesState.IGNORED: frozenset(),
    SeriesState.QUARANTINED: frozenset(),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.DONE, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.DONE, JobState.FAILED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    DeliveryState.PENDING: frozenset(
        {DeliveryState.SENT, DeliveryState.DEAD, DeliveryState.UNSUPPORTED, DeliveryState.WITHDRAWN}
    ),
    DeliveryState.SENT: frozenset({DeliveryState.PROVEN, DeliveryState.PENDING, DeliveryState.DEAD}),
    DeliveryState.PROVEN: frozenset(),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
    DeliveryState.UNSUPPORTED: frozenset({DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
    # SENT where it was under way when it was withdrawn, PENDING where the job failed again as before.
    DeliveryState.WITHDRAWN: frozenset({DeliveryState.SENT, DeliveryState.PENDING}),
}

AT_PEER = frozenset({DeliveryState.SENT, DeliveryState.PROVEN})  # as far as its answers go
PASSED_OVER = frozenset({DeliveryState.UNSUPPORTED, DeliveryState.WITHDRAWN})  # settled, and no failure


def require(old: State, new: State) -> None:
    """Raise IllegalTransition unless `old` may become `new`."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing, it is final"
        raise IllegalTransition(f"{type(old).__name__} {old} cannot become {new}; allowed: {allowed}")

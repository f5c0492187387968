"""When is a revision of a series complete? Pure: evidence and the time go in, a verdict comes out.

DICOM has no word for it: PS3.4 gives the end of an association no meaning, and one series may
come in several. The evidence, strongest first:

1. The source says by C-FIND how many instances it has (0020,1209). Where just so many are here,
   the revision is complete at once. Where fewer are here, it waits for as long as for an open
   association, and is then frozen with the number missing. A count of none, or of fewer than
   came, proves nothing: the source does not know the series, or is itself still receiving it.
2. Every association that carried it is closed, and no instance came for `quiet_seconds`.
3. An association is still open, and no instance came for `quiet_seconds_open`.

Nothing is lost by a wrong guess: a late instance opens the next revision.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from node.config import Completion

_ASK_AFTER = timedelta(seconds=1)  # of quiet: a slice that is on its way still comes before the count


class Step(Enum):
    """What to do with a revision now."""

    WAIT = "wait"
    ASK = "ask the source, and wait"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a revision that is RECEIVING."""

    arrived: int  # SOP instances that came for it, those set apart included
    last_instance_at: datetime
    last_release_at: datetime | None  # of the associations that carried it; None where none is known
    open_associations: int
    can_ask: bool  # the source is a peer that answers C-FIND
    asked_at: datetime | None = None  # when the source was last asked
    asking: bool = False  # and has not answered yet
    listed: int | None = None  # its answer; None where it gave none


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and for FREEZE why, as one sentence for the timeline."""

    step: Step
    reason: str = ""


def quiet_since(evidence: Evidence) -> datetime:
    """Since when nothing has happened: the last instance, or the last release where that was later."""
    if evidence.open_associations or evidence.last_release_at is None:
        return evidence.last_instance_at
    return max(evidence.last_instance_at, evidence.last_release_at)


def judge(evidence: Evidence, settings: Completion, now: datetime) -> Verdict:
    """What to do with a revision at `now`."""
    since = quiet_since(evidence)
    quiet = now - since
    short, long = _limits(settings)
    asked_at = evidence.asked_at
    if evidence.asking and asked_at is not None and now - asked_at < long:
        return Verdict(Step.WAIT)
    # An answer counts only where nothing came after the question.
    answered = asked_at is not None and asked_at >= since
    if settings.ask_source and evidence.can_ask and not answered:
        ask_after = short if evidence.open_associations else min(_ASK_AFTER, short / 2)
        return Verdict(Step.ASK if quiet >= ask_after else Step.WAIT)
    limit, where = short, "after the last association"
    if evidence.open_associations:
        limit, where = long, "with an association still open"
    reason = f"no instance for {_said(limit)} {where}"
    listed, arrived = evidence.listed if answered else None, evidence.arrived
    if listed is not None and listed >= arrived > 0:
        limit, reason = timedelta(0), f"the source lists {listed} instances, and all are here"
        if listed > arrived:
            limit, reason = long, f"missing {listed - arrived} of {listed}, after {_said(long)} of quiet"
    return Verdict(Step.FREEZE, reason) if quiet >= limit else Verdict(Step.WAIT)


def _limits(settings: Completion) -> tuple[timedelta, timedelta]:
    """Quiet to wait out when no association is open, and the bound on every other wait."""
    short = timedelta(seconds=settings.quiet_seconds)
    return short, max(short, timedelta(seconds=settings.quiet_seconds_open))


def _said(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"

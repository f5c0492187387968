"""When a series is complete."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import Completion
from node.route.completion import Evidence, Step, judge
from tests.node.records import after

SETTINGS = Completion(quiet_seconds=5, quiet_seconds_open=30)
LAST, RELEASE = after(10), after(11)
CLOSED = Evidence(
    arrived=300, last_instance_at=LAST, last_release_at=RELEASE, open_associations=0, can_ask=False
)
OPEN = replace(CLOSED, open_associations=1, last_release_at=None)
ASKABLE = replace(CLOSED, can_ask=True)
OPEN_ASKABLE = replace(OPEN, can_ask=True)
ASKED = replace(ASKABLE, asked_at=after(12))


@pytest.mark.parametrize(
    ("evidence", "at", "step", "reason"),
    [
        # Quiet alone: 5 s after the release, 30 s after the last instance while one is open.
        (CLOSED, 15.9, Step.WAIT, ""),
        (CLOSED, 16, Step.FREEZE, "no instance for 5 s after the last association"),
        (replace(CLOSED, last_instance_at=after(14)), 18.9, Step.WAIT, ""),
        (replace(CLOSED, last_release_at=None), 15, Step.FREEZE, "no instance for 5 s"),
        (OPEN, 39.9, Step.WAIT, ""),
        (OPEN, 40, Step.FREEZE, "no instance for 30 s with an association still open"),
        # An earlier association is closed, another is open.
        (replace(OPEN, last_release_at=after(9)), 16, Step.WAIT, ""),
        # The source is asked after a second of quiet; after 5 s while an association is open.
        (ASKABLE, 11.9, Step.WAIT, ""),
        (ASKABLE, 12, Step.ASK, ""),
        (ASKABLE, 500, Step.ASK, ""),
        (OPEN_ASKABLE, 14.9, Step.WAIT, ""),
        (OPEN_ASKABLE, 15, Step.ASK, ""),
        # It is asked once a quiet period: an instance or a release after the question asks again.
        (replace(ASKED, last_release_at=after(13)), 14, Step.ASK, ""),
        (replace(ASKED, last_instance_at=after(13)), 14, Step.ASK, ""),
        (replace(ASKED, listed=300, last_instance_at=after(13)), 13.5, Step.WAIT, ""),
        # The answer is waited for, and not for ever.
        (replace(ASKED, asking=True), 16, Step.WAIT, ""),
        (replace(ASKED, asking=True), 41.9, Step.WAIT, ""),
        (replace(ASKED, asking=True), 42, Step.FREEZE, "no instance for 5 s"),
        # No answer: quiet decides.
        (ASKED, 15.9, Step.WAIT, ""),
        (ASKED, 16, Step.FREEZE, "no instance for 5 s"),
        # All are here: at once, even with an association still open.
        (replace(ASKED, listed=300), 12.2, Step.FREEZE, "the source lists 300 instances, and all are here"),
        (replace(OPEN_ASKABLE, asked_at=after(15), listed=300), 15.1, Step.FREEZE, "all are here"),
        # Some are missing: wait as for an open association, then say how many.
        (replace(ASKED, listed=312), 40.9, Step.WAIT, ""),
        (replace(ASKED, listed=312), 41, Step.FREEZE, "missing 12 of 312, after 30 s of quiet"),
        # A source that lists none, or fewer than came, proves nothing.
        (replace(ASKED, listed=0), 15.9, Step.WAIT, ""),
        (replace(ASKED, listed=0), 16, Step.FREEZE, "no instance for 5 s"),
        (replace(ASKED, listed=299), 12.2, Step.WAIT, ""),
        (replace(ASKED, listed=299), 16, Step.FREEZE, "no instance for 5 s"),
    ],
)
def test_the_evidence_decides(evidence: Evidence, at: float, step: Step, reason: str) -> None:
    """Each kind of evidence leads to its verdict at its time."""
    verdict = judge(evidence, SETTINGS, after(at))
    assert verdict.step is step
    assert reason in verdict.reason
    assert bool(verdict.reason) == (step is Step.FREEZE)


def test_the_source_is_not_asked_where_the_settings_say_so() -> None:
    """With ask_source off, quiet alone decides."""
    settings = SETTINGS.model_copy(update={"ask_source": False})
    assert judge(ASKABLE, settings, after(15)).step is Step.WAIT
    assert judge(ASKABLE, settings, after(16)).step is Step.FREEZE


def test_a_short_quiet_period_asks_in_its_middle() -> None:
    """A quiet period of less than two seconds leaves time to ask before it is over."""
    settings = SETTINGS.model_copy(update={"quiet_seconds": 0.5})
    assert judge(ASKABLE, settings, after(11.2)).step is Step.WAIT
    assert judge(ASKABLE, settings, after(11.25)).step is Step.ASK


def test_a_wait_for_an_open_association_is_never_the_shorter() -> None:
    """quiet_seconds_open below quiet_seconds counts as quiet_seconds."""
    settings = Completion(quiet_seconds=20, quiet_seconds_open=5)
    assert judge(OPEN, settings, after(29.9)).step is Step.WAIT
    assert judge(OPEN, settings, after(30)).step is Step.FREEZE


@given(
    evidence=st.builds(
        Evidence,
        arrived=st.integers(1, 500),
        last_instance_at=st.floats(0, 100).map(after),
        last_release_at=st.none() | st.floats(0, 100).map(after),
        open_associations=st.integers(0, 3),
        can_ask=st.booleans(),
        asked_at=st.none() | st.floats(0, 200).map(after),
        asking=st.booleans(),
        listed=st.none() | st.integers(0, 500),
    )
)
def test_every_series_is_frozen_in_the_end(evidence: Evidence) -> None:
    """Whatever the evidence, a quiet series is asked about at most once more and then frozen."""
    verdict = judge(evidence, SETTINGS, after(1000))
    if verdict.step is Step.ASK:
        verdict = judge(replace(evidence, asked_at=after(1000), asking=True), SETTINGS, after(1030))
    assert verdict.step is Step.FREEZE


@given(at=st.floats(0, 14.99), listed=st.none() | st.integers(301, 999))
def test_nothing_is_frozen_before_its_quiet_period(at: float, listed: int | None) -> None:
    """Without proof, no series is frozen before the shortest quiet period is over."""
    for evidence in (CLOSED, OPEN, ASKABLE, replace(ASKED, listed=listed)):
        assert judge(evidence, SETTINGS, after(at)).step is not Step.FREEZE

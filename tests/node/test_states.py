"""The tables of states."""

from itertools import product

import pytest

from node.errors import IllegalTransition
from node.states import TRANSITIONS, DeliveryState, JobState, SeriesState, State, require

ALL: list[State] = [*SeriesState, *JobState, *DeliveryState]


@pytest.mark.parametrize("state", ALL)
def test_every_state_has_a_row(state: State) -> None:
    """Every state of every entity says what may follow it."""
    assert state in TRANSITIONS


@pytest.mark.parametrize(("old", "new"), list(product(ALL, ALL)))
def test_only_listed_changes_pass(old: State, new: State) -> None:
    """A change that the table does not list raises, and the message names both states."""
    if new in TRANSITIONS[old]:
        assert type(old) is type(new)
        require(old, new)
    else:
        with pytest.raises(IllegalTransition, match=rf"{old} cannot become {new}"):
            require(old, new)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (SeriesState.RECEIVING, {SeriesState.ROUTED, SeriesState.IGNORED, SeriesState.QUARANTINED}),
        (JobState.QUEUED, {JobState.DONE, JobState.FAILED}),
        (DeliveryState.PENDING, {DeliveryState.PROVEN, DeliveryState.DEAD, DeliveryState.UNSUPPORTED}),
    ],
)
def test_every_end_is_reached_from_the_start(first: State, last: set[State]) -> None:
    """Each entity's ends can be reached from its first state, and no state leads nowhere else."""
    reached, edge = {first}, {first}
    while edge:
        edge = {new for old in edge for new in TRANSITIONS[old]} - reached
        reached |= edge
    assert last <= reached
    assert reached == set(type(first))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (JobState.FAILED, {JobState.QUEUED}),
        (DeliveryState.DEAD, {DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
        (DeliveryState.UNSUPPORTED, {DeliveryState.PENDING, DeliveryState.WITHDRAWN}),
    ],
)
def test_requeue_is_the_only_way_back(old: State, new: set[State]) -> None:
    """What failed for good comes back by requeue alone, of the delivery or of its job."""
    assert TRANSITIONS[old] == new

"""From decisions to jobs."""

from hypothesis import given
from hypothesis import strategies as st

from node.job import PipelineSpec
from node.route.planning import job_id, reason_of
from tests.node.records import SERIES, instance

PIPELINE = PipelineSpec(name="p", model="m", outputs=("derived",), strength=0.5, limit_sigma=3)


@given(order=st.permutations(range(5)))
def test_a_job_id_does_not_depend_on_the_order_of_arrival(order: list[int]) -> None:
    """The same instances in any order give the same 32 hexadecimal digits."""
    made = job_id(SERIES, [instance(n) for n in order], PIPELINE)
    assert made == job_id(SERIES, [instance(n) for n in range(5)], PIPELINE)
    assert len(made) == 32
    assert set(made) <= set("0123456789abcdef")


def test_a_job_id_tells_what_was_done_to_what() -> None:
    """Another instance, other content, another series or setting is another job."""
    listed = [instance(0), instance(1)]
    ids = {
        job_id(SERIES, listed, PIPELINE),
        job_id(SERIES, listed[:1], PIPELINE),
        job_id(SERIES, [instance(0), instance(1, content="other")], PIPELINE),
        job_id("1.9", listed, PIPELINE),
        job_id(SERIES, listed, PIPELINE.model_copy(update={"strength": 0.4})),
        job_id(SERIES, listed, PIPELINE.model_copy(update={"limit_sigma": 2})),
        job_id(SERIES, listed, PIPELINE.model_copy(update={"model": "m/0.2.0"})),
    }
    assert len(ids) == 7


def test_no_rules_at_all_is_said() -> None:
    """A node without rules says so in the timeline."""
    assert reason_of([]) == "no rule is set up"

"""Instances, and the revisions of a series that they open."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import IllegalTransition
from node.index import Index
from node.states import JobState, SeriesState
from tests.node.records import SERIES, STUDY, after, artifact, frozen, index_in, instance, queued_job


@pytest.fixture
def index(tmp_path: Path, index_url: str) -> Iterator[Index]:
    opened = index_in(tmp_path, index_url)
    yield opened
    opened.close()


def uids(index: Index, series_id: int) -> list[str]:
    return [i.sop_instance_uid for i in index.instances_of(series_id)]


def test_instances_of_a_series_join_one_revision(index: Index) -> None:
    """Batches of one series fill its RECEIVING revision, and what is read back is what was written."""
    batch = [instance(n) for n in range(5)]
    index.add_instances(batch[:2])
    index.add_instances(batch[2:])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert (revision.revision, revision.instances) == (1, 5)
    assert (revision.calling_ae, revision.called_ae) == ("CT1", "AENODE")
    assert (revision.opened_at, revision.last_instance_at) == (batch[0].received_at, batch[4].received_at)
    assert index.instances_of(revision.id) == batch


def test_series_of_one_batch_are_kept_apart(index: Index) -> None:
    """Instances of two series in one batch open two revisions."""
    index.add_instances([instance(n, series=f"1.2.{n % 2}") for n in range(6)])
    assert [r.instances for r in index.series_in(SeriesState.RECEIVING)] == [3, 3]


def test_a_late_instance_opens_the_next_revision(index: Index) -> None:
    """The next revision holds the earlier instances and the late one; the frozen list stays as it was."""
    first = frozen(index, count=3)
    before = uids(index, first.id)
    index.add_instances([instance(7)])
    (second,) = index.series_in(SeriesState.RECEIVING)
    assert (second.revision, second.instances) == (2, 4)
    assert uids(index, first.id) == before
    assert uids(index, second.id) == [*before, instance(7).sop_instance_uid]
    assert "late" in index.find(SERIES)[0].events[-1].reason


def test_sending_a_series_again_changes_nothing(index: Index) -> None:
    """A second send of a frozen series opens no revision and lists nothing twice."""
    first = frozen(index, count=3)
    index.add_instances([instance(n, association="a2", received_at=after(100)) for n in range(3)])
    assert index.series_in(SeriesState.RECEIVING) == []
    assert len(index.instances_of(first.id)) == 3
    assert index.status().instances == 3


def test_a_repeated_instance_keeps_its_revision_waiting(index: Index) -> None:
    """A sender that starts over shows that it is still at it, on the association it uses now."""
    index.add_instances([instance(0)])
    index.open_association("a2", calling_ae="CT1", called_ae="AENODE", host="h", receiver="r", at=after(40))
    index.add_instances([instance(0, association="a2", received_at=after(50))])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert (revision.instances, revision.last_instance_at) == (1, after(50))
    assert index.arrival_of(revision).open_associations == 1


def test_one_batch_may_hold_an_instance_twice(index: Index) -> None:
    """The same instance twice in a batch is listed once."""
    index.add_instances([instance(0), instance(0), instance(1)])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert revision.instances == 2


def test_other_content_under_a_known_uid_is_set_apart(index: Index) -> None:
    """A SOP Instance UID stands for one slice; another content under it never enters the series."""
    index.add_instances([instance(0), instance(1)])
    index.add_instances([instance(1, content="other")])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert [i.sha256 for i in index.instances_of(revision.id)] == [instance(0).sha256, instance(1).sha256]
    (defect,) = index.find(SERIES)[0].defects
    assert "other content" in defect.defect


def test_a_defect_is_listed_and_never_routed(index: Index) -> None:
    """A defect opens no revision, joins no frozen list, and stands in the timeline with its reason."""
    index.add_instances([instance(0, defect="it was cut short")])
    assert index.series_in(SeriesState.RECEIVING) == []
    for named in (SERIES, STUDY, instance(0).sop_instance_uid):
        (report,) = index.find(named)
        assert [(e.entity, e.key, e.reason) for e in report.events] == [
            ("instance", instance(0).sop_instance_uid, "it was cut short")
        ]
        assert report.revisions == ()
    index.add_instances([instance(1)])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert uids(index, revision.id) == [instance(1).sop_instance_uid]
    assert index.arrival_of(revision).arrived == 2
    assert index.arrival_of(revision).defects == 1
    assert index.defects_of(SERIES)[0].defect == "it was cut short"


def test_a_sound_instance_joins_after_its_defective_copy(index: Index) -> None:
    """An instance that was cut short may be sent again whole."""
    index.add_instances([instance(0, content="cut", defect="it was cut short")])
    index.add_instances([instance(0)])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert uids(index, revision.id) == [instance(0).sop_instance_uid]
    assert index.arrival_of(revision).arrived == 1


def test_a_result_is_known_by_its_uid_too(index: Index) -> None:
    """An archive may have taken our ContributingEquipment away; the next instance of that series has none."""
    job = queued_job(index)
    ours = artifact(job, 1)
    index.finish_job(job, JobState.DONE, after(20), produced=[ours], peers=["archive"])
    stripped = instance(1, series=ours.series_instance_uid, sop_instance_uid=ours.sop_instance_uid)
    index.add_instances([stripped, instance(2, series=ours.series_instance_uid)])
    found = {r.own_result: r.instances for r in index.series_in(SeriesState.RECEIVING)}
    assert found == {True: 1, False: 1}


def test_own_results_gather_apart(index: Index) -> None:
    """Own results under the UID of a received series share no revision with it."""
    index.add_instances([instance(n, own_result=n % 2 == 0) for n in range(4)])
    by_kind = {r.own_result: r for r in index.series_in(SeriesState.RECEIVING)}
    assert [(own, r.instances) for own, r in sorted(by_kind.items())] == [(False, 2), (True, 2)]
    assert uids(index, by_kind[True].id) == [instance(n).sop_instance_uid for n in (0, 2)]
    assert uids(index, by_kind[False].id) == [instance(n).sop_instance_uid for n in (1, 3)]


def test_two_peers_fill_one_revision(index: Index) -> None:
    """Two peers that send one series fill one revision, which keeps the titles of the first."""
    index.add_instances([instance(0)])
    index.add_instances([instance(1, calling_ae="PACS", association="a2")])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert (revision.instances, revision.calling_ae) == (2, "CT1")


def test_arrival_follows_the_associations(index: Index) -> None:
    """Open associations are counted and the last release is known; a stale one is closed at start."""
    for name, receiver in (("a1", "r1"), ("a2", "r2")):
        index.open_association(
            name, calling_ae="CT1", called_ae="AENODE", host="h", receiver=receiver, at=after(0)
        )
    index.add_instances([instance(0, association="a1"), instance(1, association="a2")])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    assert index.arrival_of(revision).open_associations == 2
    index.close_association("a1", after(3))
    index.close_association("a1", after(9))
    found = index.arrival_of(revision)
    assert (found.open_associations, found.last_release_at) == (1, after(3))
    assert index.close_stale_associations("r2", after(5)) == 1
    assert index.close_stale_associations("r2", after(6)) == 0
    found = index.arrival_of(revision)
    assert (found.open_associations, found.last_release_at) == (0, after(5))


def test_a_move_from_an_old_state_is_refused(index: Index) -> None:
    """A revision that another process moved on is not moved a second time."""
    index.add_instances([instance(0)])
    (stale,) = index.series_in(SeriesState.RECEIVING)
    index.move(stale, SeriesState.COMPLETE, after(10), "quiet")
    with pytest.raises(IllegalTransition, match="is COMPLETE, no longer RECEIVING"):
        index.move(stale, SeriesState.COMPLETE, after(11), "quiet")
    events = [e for e in index.find(SERIES)[0].events if e.state == "COMPLETE"]
    assert [(e.at, e.reason) for e in events] == [(after(10), "quiet")]


def test_a_move_that_the_table_forbids_is_refused(index: Index) -> None:
    """RECEIVING cannot become ROUTED, and nothing is written."""
    index.add_instances([instance(0)])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    with pytest.raises(IllegalTransition):
        index.move(revision, SeriesState.ROUTED, after(10))
    assert index.series_in(SeriesState.RECEIVING) == [revision]


def test_a_naive_time_is_refused(index: Index) -> None:
    """A time without its zone is a mistake that shows at once."""
    index.add_instances([instance(0)])
    (revision,) = index.series_in(SeriesState.RECEIVING)
    with pytest.raises(Exception, match="naive"):
        index.move(revision, SeriesState.COMPLETE, after(1).replace(tzinfo=None))


def test_known_paths_tells_what_is_listed(index: Index) -> None:
    """Of the spool's paths those are known that an instance or a defect was listed with."""
    index.add_instances([instance(0), instance(1, defect="cut")])
    asked = [instance(0).path, instance(1).path, PurePosixPath("spool/never.dcm")]
    assert index.known_paths(asked) == set(asked[:2])
    many = [PurePosixPath(f"spool/{n}.dcm") for n in range(3000)]
    assert index.known_paths(many) == set()


def test_an_index_is_rebuilt_from_the_spool(index: Index, tmp_path: Path) -> None:
    """Every series of the spool is RECEIVING in a new index, whole, and a second rebuild adds nothing."""
    frozen(index, count=3)
    index.add_instances([instance(9)])
    walked = [instance(n) for n in (0, 1, 2, 9)]
    walked += [instance(n, series="1.9") for n in range(700)] + [instance(5, defect="cut")]
    fresh = index_in(tmp_path / "fresh")
    assert fresh.rebuild(iter(walked)) == 705
    assert fresh.rebuild(iter(walked)) == 705
    revisions = fresh.series_in(SeriesState.RECEIVING)
    assert sorted((r.series_instance_uid, r.revision, r.instances) for r in revisions) == [
        ("1.2.3.4", 1, 4),
        ("1.9", 1, 700),
    ]
    assert fresh.status().defects == 1
    fresh.close()


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.just("freeze")),
        max_size=12,
    )
)
def test_no_order_of_arrival_and_freezing_loses_an_instance(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[int] | str]
) -> None:
    """However sends and freezing interleave, each frozen list is all that came, and stays as it was."""
    opened = index_in(tmp_path_factory.mktemp("index"))
    came: set[str] = set()
    lists: dict[int, list[str]] = {}
    for step in steps:
        if isinstance(step, list):
            opened.add_instances([instance(n) for n in step])
            came |= {instance(n).sop_instance_uid for n in step}
            continue
        for revision in opened.series_in(SeriesState.RECEIVING):
            opened.move(revision, SeriesState.COMPLETE, after(60))
            lists[revision.id] = uids(opened, revision.id)
            assert lists[revision.id] == sorted(came)
            assert opened.series_revision(revision.id).instances == len(came)
    for series_id, listed in lists.items():
        assert uids(opened, series_id) == listed
    opened.close()

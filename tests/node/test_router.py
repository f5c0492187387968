"""From received series to jobs: completion, rules, and the broker."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from node.config import Peer
from node.entities import CONTRIBUTING_MANUFACTURER
from node.index import Index
from node.route.router import OWN_RESULT
from node.states import JobState, SeriesState
from tests.node.records import CONFIG, after
from tests.node.routing import ONE_PIPELINE, Bench, benches
from tests.peers import wait_for
from tests.series import series


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a bench with other settings."""
    with benches(tmp_path) as make:
        yield make


def test_a_series_becomes_jobs(bench: Bench) -> None:
    """A quiet series that meets a rule gets a job a pipeline, and each is handed to the broker whole."""
    images = series(6, 16)
    bench.receive(images)
    bench.settle(1)
    assert bench.revision().state is SeriesState.ROUTED
    assert bench.revision().accession_number == "ACC-1"
    assert [(j.pipeline, j.rule, j.send_to, j.state) for j in bench.jobs()] == [
        ("ct-anomaly", "thin CT", ("archive",), JobState.QUEUED),
        ("ct-denoise", "thin CT", ("archive",), JobState.QUEUED),
    ]
    assert {spec.job_id for spec in bench.submitted} == {job.id for job in bench.jobs()}
    for spec in bench.submitted:
        assert {i.sop_instance_uid for i in spec.instances} == {ds.SOPInstanceUID for ds in images}
        assert all((bench.data / i.path).is_file() for i in spec.instances)
        assert (spec.revision, spec.series_instance_uid) == (1, images[0].SeriesInstanceUID)
        assert spec.time_limit_seconds == bench.file.settings.workers.time_limit_seconds


def test_nothing_happens_before_the_series_is_quiet(bench: Bench) -> None:
    """While instances may still come, a series stays RECEIVING and no job is made."""
    bench.receive(series(3, 16))
    bench.step(0.5)
    assert bench.states() == {SeriesState.RECEIVING: 1}
    assert bench.submitted == []


def test_a_series_that_meets_no_rule_is_ignored_with_the_attributes(bench: Bench) -> None:
    """The timeline says which attributes failed, and holds none of their values."""
    bench.receive(series(3, 16, modality="MR", step=3.25))
    bench.settle(1)
    revision = bench.revision()
    assert revision.state is SeriesState.IGNORED
    assert revision.reason == "no rule matched: thin CT (Modality, SliceThickness)"
    assert revision.accession_number == "ACC-1"
    assert bench.jobs() == []


def test_own_results_are_never_routed(make: Callable[..., Bench]) -> None:
    """A series with our ContributingEquipment ends as IGNORED, though it meets a rule; nobody is asked."""
    asked: list[str] = []

    def ask(
        peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
    ) -> int | None:
        asked.append(series_uid)
        return None

    bench = make(CONFIG, ask)
    images = series(3, 16)
    for ds in images:
        item = Dataset()
        item.Manufacturer = CONTRIBUTING_MANUFACTURER
        ds.ContributingEquipmentSequence = [item]
    bench.receive(images)
    bench.settle(1)
    assert (bench.revision().state, bench.revision().reason) == (SeriesState.IGNORED, OWN_RESULT)
    states = [e.state for e in bench.index.find(images[0].SeriesInstanceUID)[0].events]
    assert states == ["RECEIVING", "COMPLETE", "IGNORED"]
    assert asked == []


def test_what_is_no_image_is_ignored_though_a_rule_wants_everything(make: Callable[..., Bench]) -> None:
    """A report or a segmentation that comes with a study costs no job, no failure and no notice."""
    everything = re.sub(r"when = .*", "when = {}", CONFIG)
    bench = make(everything)
    report = series(1, 16, series="sr")[0]
    report.SOPClassUID, report.Modality = Comprehensive3DSRStorage, "SR"
    del report.PixelData
    bench.receive([report], name="a1")
    bench.receive(series(3, 16), name="a2")
    bench.settle(1)
    assert bench.revision(1).state is SeriesState.IGNORED
    assert bench.revision(1).reason == "no images: Comprehensive 3D SR Storage"
    assert bench.revision(2).state is SeriesState.ROUTED


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"not DICOM at all"), "cannot be read as DICOM"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "does not hold it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000].replace(b"CS", b"?!")), "cannot be read"),
        (lambda path: path.unlink(), "is no longer in the spool"),
    ],
)
def test_an_unreadable_instance_quarantines_its_series_alone(
    bench: Bench, damage: Callable[[Path], None], reason: str
) -> None:
    """The reason names the instance, and another series of the same step is routed."""
    bench.receive(series(3, 16, series="good"), name="a1")
    bench.receive(series(3, 16, series="bad"), name="a2")
    broken = bench.index.instances_of(2)[1]
    damage(bench.data / broken.path)
    bench.settle(1)
    assert bench.revision(1).state is SeriesState.ROUTED
    assert bench.revision(2).state is SeriesState.QUARANTINED
    assert broken.sop_instance_uid in bench.revision(2).reason
    assert reason in bench.revision(2).reason


def test_a_file_in_the_place_of_another_is_noticed(bench: Bench) -> None:
    """A file that holds another instance than the index says is not taken for it."""
    bench.receive(series(3, 16))
    first, second, _ = bench.index.instances_of(1)
    (bench.data / first.path).write_bytes((bench.data / second.path).read_bytes())
    bench.settle(1)
    assert bench.revision().reason == f"the file of instance {first.sop_instance_uid} does not hold it"


def test_a_late_slice_makes_a_new_revision_with_all_slices(make: Callable[..., Bench]) -> None:
    """The late slice's revision is routed with the earlier ones in it, as another job."""
    bench = make(ONE_PIPELINE)
    images = series(4, 16)
    bench.receive(images[:3])
    bench.settle(1)
    bench.receive(images[3:], name="a2")
    bench.settle(100)
    first, second = bench.submitted
    assert (first.revision, second.revision) == (1, 2)
    assert [len(first.instances), len(second.instances)] == [3, 4]
    assert first.job_id != second.job_id
    assert bench.states() == {SeriesState.ROUTED: 2}


def test_sending_a_series_again_makes_no_second_job(make: Callable[..., Bench]) -> None:
    """The same series sent twice is routed once."""
    bench = make(ONE_PIPELINE)
    bench.receive(series(3, 16))
    bench.settle(1)
    bench.receive(series(3, 16), name="a2")
    bench.settle(100)
    assert len(bench.submitted) == 1
    assert bench.states() == {SeriesState.ROUTED: 1}


def test_two_rules_with_one_pipeline_make_one_job(make: Callable[..., Bench]) -> None:
    """Its results go to the peers of both rules."""
    second = """
[[rules]]
name = "all CT"
when = { Modality = "CT" }
pipelines = ["ct-denoise"]
send_to = ["ct-1", "archive"]
"""
    bench = make(ONE_PIPELINE + second)
    bench.receive(series(3, 16))
    bench.settle(1)
    job = bench.job()
    assert (job.rule, job.send_to) == ("thin CT, all CT", ("archive", "ct-1"))


def test_a_changed_rule_is_in_force_in_the_next_step(bench: Bench) -> None:
    """The router asks the settings as they are when a series is complete."""
    bench.receive(series(3, 16))
    bench.file.path.write_text(CONFIG.replace('Modality = "CT"', 'Modality = "PT"'))
    assert bench.file.refresh()
    bench.settle(1)
    assert bench.revision().state is SeriesState.IGNORED


def test_jobs_wait_while_the_broker_is_down(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs stay QUEUED, the broker is tried now and then with growing pauses, and nothing is lost."""
    bench.receive(series(3, 16))
    bench.broker_is_down = True
    bench.settle(1)
    tried = 0
    for second in range(40, 400):
        before = bench.router._refusals
        bench.step(second)
        tried += bench.router._refusals - before
    assert [job.state for job in bench.jobs()] == [JobState.QUEUED] * 2
    assert 5 <= tried <= 12
    assert len(caplog.records) == 1
    bench.broker_is_down = False
    bench.step(500)
    assert {spec.job_id for spec in bench.submitted} == {job.id for job in bench.jobs()}
    bench.step(501)
    assert len(bench.submitted) == 2


def test_one_job_s_trouble_leaves_the_others_alone(bench: Bench) -> None:
    """An error nobody foresaw stops neither the other jobs nor is it hidden."""
    submit, refused = bench.router._submit, []

    def broken(spec: object) -> None:
        if not refused:
            refused.append(spec)
            raise RuntimeError("a fault of ours")
        submit(spec)  # type: ignore[arg-type]  # a JobSpec

    bench.router._submit = broken
    bench.receive(series(3, 16))
    bench.step(1)
    with pytest.raises(ExceptionGroup) as raised:
        bench.step(32)
    assert raised.group_contains(RuntimeError, match="a fault of ours")
    assert len(bench.submitted) == 1
    bench.step(33)
    assert {spec.job_id for spec in bench.submitted} == {job.id for job in bench.jobs()}


def test_a_rebuilt_index_routes_to_the_same_jobs(bench: Bench, tmp_path: Path) -> None:
    """After the index is lost, the spool gives the same jobs again, with the same ids."""
    from node.spool import Spool  # noqa: PLC0415

    bench.receive(series(4, 16))
    bench.settle(1)
    before = {spec.job_id for spec in bench.submitted}
    bench.index.close()
    for file in bench.data.glob("index.sqlite*"):
        file.unlink()
    bench.index = bench.router._index = Index.open(bench.file.settings)
    bench.router._following._index = bench.index
    bench.submitted.clear()
    assert bench.index.rebuild(Spool(bench.data).walk()) == 4
    wait_for(lambda: bench.step(1e9) and bench.submitted)
    assert {spec.job_id for spec in bench.submitted} == before


def test_a_count_of_set_apart_instances_stands_in_the_timeline(bench: Bench) -> None:
    """What was set apart is told where the series is frozen, and does not enter the job."""
    images = series(4, 16)
    bench.receive(images[:3])
    other = series(4, 16, seed=9)[2]
    bench.receive([other])
    bench.settle(1)
    assert {len(spec.instances) for spec in bench.submitted} == {3}
    (report,) = bench.index.find(str(images[0].SeriesInstanceUID))
    assert any(e.state == "COMPLETE" and e.reason.endswith("; 1 set apart") for e in report.events)
    assert [d.sop_instance_uid for d in report.defects] == [other.SOPInstanceUID]


def test_no_patient_value_enters_the_index(bench: Bench) -> None:
    """Neither name nor id of the patient is in any file of the index."""
    bench.receive(series(3, 16))
    bench.settle(1)
    bench.index.close()
    for file in bench.data.glob("index.sqlite*"):
        content = file.read_bytes()
        assert b"Test^Person" not in content
        assert b"TEST-1" not in content


def test_a_job_submitted_long_ago_is_offered_again(make: Callable[..., Bench]) -> None:
    """A job that no worker begins is handed over again, at growing intervals."""
    bench = make(ONE_PIPELINE)
    bench.receive(series(3, 16))
    bench.settle(1)
    offered = []
    for minute in range(2, 60):
        bench.step(minute * 60)
        offered.append(len(bench.submitted))
    assert offered[2] == 1
    assert 3 <= offered[-1] <= 5
    assert "no worker has begun it" in bench.index.find(bench.job().id)[0].events[-1].reason


def test_a_job_that_a_later_one_overtook_is_offered_again(make: Callable[..., Bench]) -> None:
    """A job that Redis lost is noticed when a later one begins."""
    bench = make(ONE_PIPELINE)
    bench.receive(series(3, 16, series="lost"))
    bench.settle(1)
    bench.receive(series(3, 16, series="later"), name="a2")
    bench.settle(100)
    lost, later = (spec.job_id for spec in bench.submitted)
    bench.beat(later, 1)
    bench.step(150)
    for second in range(160, 400, 10):
        bench.beat(later, second)
        bench.step(second)
    assert [spec.job_id for spec in bench.submitted] == [lost, later, lost]


def test_a_job_behind_a_running_one_is_not_offered_again(make: Callable[..., Bench]) -> None:
    """While a worker is busy with an earlier job, a later one only waits."""
    bench = make(ONE_PIPELINE)
    bench.receive(series(3, 16, series="first"))
    bench.settle(1)
    first = bench.submitted[0].job_id
    bench.receive(series(3, 16, series="second"), name="a2")
    bench.settle(100)
    for second in range(140, 1500, 20):
        bench.beat(first, second)
        bench.step(second)
    assert len(bench.submitted) == 2
    assert after(1480) == bench.now

"""Late instances, STAT, and rejection notes."""

import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import redis
from pydicom.uid import ExplicitVRLittleEndian

from node.deliver.rejection import Rejections, rejection_note
from node.entities import Artifact
from node.job import STAT_QUEUE, Priority
from node.route.submit import Submitter
from node.states import DeliveryState, SeriesState
from tests.node.records import CONFIG, after
from tests.node.routing import Bench
from tests.peers import RedisServer
from tests.series import series

TAIL = 'send_to = ["archive"]\n'


def bench_with(folder: Path, rule: str) -> Bench:
    return Bench(folder, CONFIG.replace(TAIL, TAIL + rule))


def first_then_late(bench: Bench) -> None:
    """Three slices, processed; then a fourth."""
    bench.receive(series(3, 16, series="a"))
    bench.settle(10)
    for spec in list(bench.submitted):
        bench.finish(spec.job_id)
    bench.step(50)
    bench.now = after(100)
    bench.receive(series(4, 16, series="a")[3:], name="late")
    bench.settle(110)


def test_a_late_slice_is_reprocessed_and_names_what_it_supersedes(tmp_path: Path) -> None:
    """The new jobs know the series of the results of the same pipeline before them."""
    bench = bench_with(tmp_path, "")
    first_then_late(bench)
    old, new = bench.submitted[:2], bench.submitted[2:]
    assert [len(spec.instances) for spec in new] == [4, 4]
    for spec in new:
        (before,) = (o for o in old if o.pipeline == spec.pipeline)
        assert spec.supersedes == (f"2.25.{int(before.job_id, 16)}",)
    bench.close()


@pytest.mark.parametrize("late", ["ignore", "alert"])
def test_a_rule_may_ignore_late_slices_or_only_tell_of_them(
    tmp_path: Path, late: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are kept, their revision says why nothing happened, and "alert" is an error in the log."""
    bench = bench_with(tmp_path, f'late = "{late}"\n')
    first_then_late(bench)
    assert len(bench.submitted) == 2
    assert bench.states() == {SeriesState.ROUTED: 1, SeriesState.IGNORED: 1}
    sentence = "late instances are ignored by rule thin CT"
    if late == "alert":
        sentence = "ALERT: late instances, not processed, by rule thin CT"
    assert sentence in bench.revision(2).reason
    assert ("ALERT" in caplog.text) == (late == "alert")
    assert len(bench.index.instances_of(2)) == 4
    bench.close()


def test_a_rule_that_was_not_met_before_is_not_late(tmp_path: Path) -> None:
    """A series that becomes what the rule asks for only with its last slice is processed."""
    text = CONFIG.replace('ImageType = "!~ LOCALIZER"', 'instances = ">= 4"')
    bench = Bench(tmp_path, text.replace(TAIL, TAIL + 'late = "ignore"\n'))
    first_then_late(bench)
    assert len(bench.submitted) == 2
    assert bench.states() == {SeriesState.IGNORED: 1, SeriesState.ROUTED: 1}
    bench.close()


def test_the_older_result_is_rejected_when_the_newer_has_arrived(tmp_path: Path) -> None:
    """The note waits for every delivery, lists every older instance, and is made once."""
    bench = bench_with(tmp_path, "retire_superseded = true\n")
    first_then_late(bench)
    notes = Rejections(bench.file, bench.index, lambda: bench.now)
    source = series(1, 16, series="result")[0]
    for spec in bench.submitted[2:]:
        bench.finish(spec.job_id)
        source.save_as(bench.data / "results" / spec.job_id / "0.dcm", enforce_file_format=True)
    bench.step(200)
    assert notes.step() == 0
    for delivery in bench.index.deliveries_in(DeliveryState.PENDING)[:-1]:
        bench.index.record_delivery(delivery, DeliveryState.SENT, after(201))
    assert notes.step() == 1, "the other job has a delivery that is still to go"
    (last,) = (d for d in bench.index.deliveries_in(DeliveryState.PENDING) if d.artifact.role == "derived")
    bench.index.record_delivery(last, DeliveryState.SENT, after(202))
    assert notes.step() == 1
    assert notes.step() == 0
    pending = bench.index.deliveries_in(DeliveryState.PENDING)
    assert [d.artifact.role for d in pending] == ["rejection"] * 2
    note = pydicom.dcmread(bench.data / pending[0].artifact.path)
    old = {a.artifact.sop_instance_uid for a in bench.index.deliveries_in(DeliveryState.SENT)}
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0]
    named = {
        item.ReferencedSOPInstanceUID
        for one in evidence.ReferencedSeriesSequence
        for item in one.ReferencedSOPSequence
    }
    assert len(named) == 2
    assert named <= old
    bench.close()


def test_a_rejection_note_is_a_valid_object(tmp_path: Path) -> None:
    """Dciodvfy finds no error in it."""
    like = series(1, 16)[0]
    retired = [
        Artifact(
            sop_instance_uid=f"1.2.3.{n}",
            sop_class_uid=str(like.SOPClassUID),
            series_instance_uid="1.2.3",
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            role="derived",
            path=Path("x"),  # type: ignore[arg-type]  # not looked at
        )
        for n in range(3)
    ]
    note = rejection_note(like, retired, "0" * 32, after(0))
    file = tmp_path / "note.dcm"
    note.save_as(file, enforce_file_format=True)
    checker = Path(sys.executable).with_name("dciodvfy")
    done = subprocess.run([checker, file], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
    assert note.SOPInstanceUID == rejection_note(like, retired, "0" * 32, after(9)).SOPInstanceUID


@pytest.mark.parametrize(
    ("rule", "urgent", "priority"),
    [
        ("", False, Priority.ROUTINE),
        ("", True, Priority.STAT),
        ('priority = "stat"\n', False, Priority.STAT),
        ('priority = "routine"\n', True, Priority.ROUTINE),
    ],
)
def test_stat_comes_from_the_rule_or_the_images(
    tmp_path: Path, rule: str, urgent: bool, priority: Priority
) -> None:
    """RequestedProcedurePriority counts where the rule says nothing."""
    bench = bench_with(tmp_path, rule)
    images = series(2, 16)
    for ds in images:
        ds.RequestedProcedurePriority = "STAT" if urgent else "LOW"
    bench.receive(images)
    bench.settle(10)
    assert {spec.priority for spec in bench.submitted} == {priority}
    bench.close()


def test_stat_comes_from_the_sender_and_goes_first(tmp_path: Path, redis_server: RedisServer) -> None:
    """What a STAT peer sends is handed over before what came earlier, in a queue of its own."""
    text = CONFIG + '[[peers]]\nname = "er"\nae_title = "ER"\npriority = "stat"\n'
    bench = Bench(tmp_path, text)
    bench.broker_is_down = True
    bench.receive(series(2, 16, series="a"), name="a")
    bench.receive(series(2, 16, series="b"), calling_ae="ER", name="b")
    bench.settle(10)
    bench.broker_is_down = False
    bench.step(200)
    assert [spec.priority for spec in bench.submitted] == [Priority.STAT] * 2 + [Priority.ROUTINE] * 2
    submit = Submitter(redis_server.url)
    for spec in bench.submitted:
        submit(spec)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.llen(STAT_QUEUE) == 2
    bench.close()

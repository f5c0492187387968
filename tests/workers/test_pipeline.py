"""One job from its files to its result folder."""

import fcntl
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest

from node.job import HEARTBEAT, MANIFEST, JobSpec, Manifest
from tests import series as made
from tests.workers.jobs_made import job
from tests.workers.models_made import anomaly_folder, denoiser_folder
from tests.workers.results_made import NOW, iod_errors
from workers import device, pipeline
from workers.results import AlreadyRunning, abandon, claimed


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return denoiser_folder(tmp_path_factory.mktemp("models") / "0.0.1")


@pytest.fixture(scope="module")
def anomaly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return anomaly_folder(tmp_path_factory.mktemp("models") / "0.0.1", threshold=0.2)


def run(spec: JobSpec, data: Path) -> Manifest:
    return pipeline.run(spec, data, "cpu", NOW)


def test_a_denoiser_gives_a_derived_series(tmp_path: Path, denoiser: Path) -> None:
    """Each slice has a valid derived image, the bound holds, and the manifest lists them with times."""
    images = made.series(4, 96)
    spec = job(tmp_path, images, denoiser)
    manifest = run(spec, tmp_path)
    folder = tmp_path / "results" / spec.job_id
    assert (manifest.outcome, manifest.reason) == ("done", "")
    assert manifest.model == "test-denoise 0.0.1"
    assert len(manifest.weights_sha256) == 64
    assert set(manifest.seconds) == {"load", "read", "domain", "model", "write", "gate"}
    assert Manifest.from_json((folder / MANIFEST).read_bytes()) == manifest
    assert sorted(p.name for p in folder.iterdir()) == ["derived", MANIFEST]
    assert not list(tmp_path.glob("results/*.partial"))
    paths = [folder / artifact.path for artifact in manifest.artifacts]
    assert iod_errors(*paths) == []
    changed = []
    for path, image in zip(paths, images, strict=True):
        out = pydicom.dcmread(path)
        assert out.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
        changed.append(np.abs(out.pixel_array.astype(int) - image.pixel_array).max())
    assert 1 <= max(changed) <= 0.5 * 3 * 30


def test_an_anomaly_model_gives_captures(tmp_path: Path, anomaly: Path) -> None:
    """Captures come back, valid, for a pipeline with the output "capture"."""
    spec = job(tmp_path, made.series(3, 96), anomaly, outputs=("capture",))
    manifest = run(spec, tmp_path)
    assert (manifest.outcome, manifest.reason) == ("done", "")
    assert {artifact.role for artifact in manifest.artifacts} == {"capture"}
    folder = tmp_path / "results" / spec.job_id
    assert iod_errors(*(folder / artifact.path for artifact in manifest.artifacts)) == []


def test_a_finished_job_is_not_done_again(tmp_path: Path, denoiser: Path) -> None:
    """The second run returns the first one's manifest and touches no file."""
    spec = job(tmp_path, made.series(2), denoiser)
    first = run(spec, tmp_path)
    file = tmp_path / "results" / spec.job_id / first.artifacts[0].path
    before = file.stat()
    assert run(spec, tmp_path) == first
    assert file.stat() == before


def test_a_killed_attempt_leaves_nothing_behind(tmp_path: Path, denoiser: Path) -> None:
    """Files of an attempt that died are gone from the result of the next, whose UIDs are the same."""
    spec = job(tmp_path, made.series(2), denoiser)
    partial = tmp_path / "results" / f"{spec.job_id}.partial"
    (partial / "derived").mkdir(parents=True)
    (partial / "derived/0009.dcm").write_bytes(b"half")
    (partial / "0001.tmp").write_bytes(b"half")
    (partial / HEARTBEAT).touch()
    manifest = run(spec, tmp_path)
    assert manifest.outcome == "done"
    folder = tmp_path / "results" / spec.job_id
    assert sorted(p.name for p in (folder / "derived").iterdir()) == ["0001.dcm", "0002.dcm"]
    assert not partial.exists()


def test_a_job_that_kills_its_process_is_given_up(tmp_path: Path, denoiser: Path) -> None:
    """After so many attempts that ended without a word, the job fails with that reason."""
    spec = job(tmp_path, made.series(2), denoiser)
    for _ in range(3):
        partial = tmp_path / "results" / f"{spec.job_id}.partial"
        with claimed(tmp_path, spec.job_id):
            assert partial.exists()
    manifest = run(spec, tmp_path)
    assert manifest.outcome == "failed"
    assert manifest.reason == "the worker process died in each of 3 attempts"


def test_two_processes_do_not_do_one_job(tmp_path: Path, denoiser: Path) -> None:
    """While another process holds the claim, run refuses; once it is gone, it does the job."""
    spec = job(tmp_path, made.series(2), denoiser)
    partial = tmp_path / "results" / f"{spec.job_id}.partial"
    partial.mkdir(parents=True)
    with (partial / HEARTBEAT).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning):
            run(spec, tmp_path)
    assert run(spec, tmp_path).outcome == "done"


def test_a_job_finished_meanwhile_is_not_done_again(
    tmp_path: Path, denoiser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that claims a job just after another published it returns that result and leaves no trace."""
    spec = job(tmp_path, made.series(2), denoiser)
    done = run(spec, tmp_path)
    answers = iter([None, done])  # it was not there at the first look, and is at the second
    monkeypatch.setattr(pipeline, "finished", lambda *_: next(answers))
    assert run(spec, tmp_path) == done
    assert [p.name for p in (tmp_path / "results").iterdir()] == [spec.job_id]


def test_many_processes_on_one_job_give_one_whole_result(tmp_path: Path, denoiser: Path) -> None:
    """Eight threads that run one job at once: each gets the one result or is told that it is running."""
    spec = job(tmp_path, made.series(2), denoiser)
    got: list[Manifest | None] = []

    def once() -> None:
        try:
            got.append(run(spec, tmp_path))
        except AlreadyRunning:
            got.append(None)

    threads = [threading.Thread(target=once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    manifests = {m.to_json() for m in got if m is not None}
    assert len(manifests) == 1
    folder = tmp_path / "results" / spec.job_id
    assert sorted(p.name for p in folder.iterdir()) == ["derived", MANIFEST]
    assert len(list((folder / "derived").iterdir())) == 2
    assert [p.name for p in (tmp_path / "results").iterdir()] == [spec.job_id]


def test_the_heart_beats_while_a_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat's time changes while the claim is held, and the file goes with it."""
    monkeypatch.setattr("workers.results.HEARTBEAT_SECONDS", 0.01)
    with claimed(tmp_path, "a" * 32) as claim:
        beat = claim.partial / HEARTBEAT
        seen = {beat.stat().st_mtime_ns}
        while len(seen) < 3:
            seen.add(beat.stat().st_mtime_ns)
        claim.publish(Manifest(job_id="a" * 32, outcome="failed", reason="test"))
    assert [p.name for p in (tmp_path / "results" / ("a" * 32)).iterdir()] == [MANIFEST]
    assert not [t for t in threading.enumerate() if t.name.startswith("heartbeat")]


def test_an_abandoned_job_has_a_reason_and_a_finished_one_stays(tmp_path: Path, denoiser: Path) -> None:
    """Abandoning publishes a failure in place of the partial folder, and never over a result."""
    stuck = Manifest(job_id="b" * 32, outcome="failed", reason="killed")
    (tmp_path / "results" / f"{'b' * 32}.partial/derived").mkdir(parents=True)
    abandon(tmp_path, stuck)
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["b" * 32]
    spec = job(tmp_path, made.series(2), denoiser)
    done = run(spec, tmp_path)
    abandon(tmp_path, Manifest(job_id=spec.job_id, outcome="failed", reason="too late"))
    assert run(spec, tmp_path) == done


def _failure(spec: JobSpec, data: Path) -> str:
    manifest = run(spec, data)
    folder = data / "results" / spec.job_id
    assert manifest.outcome == "failed"
    assert not manifest.retryable
    assert [p.name for p in folder.iterdir()] == [MANIFEST]
    return manifest.reason


def test_each_fault_has_its_own_reason(tmp_path: Path, denoiser: Path, anomaly: Path) -> None:
    """Wrong outputs, settings, modality, model and series fail with a sentence that names it."""
    images = made.series(2)
    assert _failure(job(tmp_path, images, denoiser, outputs=("report",), name="1"), tmp_path) == (
        "pipeline 'pipeline' asks model 'test-denoise' for report; "
        "a model of kind denoiser gives derived, capture"
    )
    assert "gives capture, segmentation, report" in _failure(
        job(tmp_path, images, anomaly, name="2"), tmp_path
    )
    reason = _failure(job(tmp_path, images, denoiser, strength=0.9, name="3"), tmp_path)
    assert "strength is 0.9; this model allows 0 to 0.6" in reason
    mr = made.series(2, modality="MR")
    assert "is for CT, the series is MR" in _failure(job(tmp_path, mr, denoiser, name="4"), tmp_path)
    assert "no model 'absent'" in _failure(job(tmp_path, images, "absent", name="5"), tmp_path)
    twice = [images[0], made.image(3, made.body(1, 64)[0], position=(-100, -100, 2))]
    assert "Two images lie at" in _failure(job(tmp_path, twice, denoiser, name="6"), tmp_path)


def test_a_notice_says_why_there_is_no_result(tmp_path: Path, denoiser: Path) -> None:
    """Asked for, a failure for good brings one small valid capture with its reason, and only that."""
    mr = made.series(2, modality="MR")
    silent = job(tmp_path, mr, denoiser, name="silent")
    assert run(silent, tmp_path).artifacts == ()
    spec = job(tmp_path, mr, denoiser, name="told").model_copy(update={"notice": True})
    manifest = run(spec, tmp_path)
    assert (manifest.outcome, [a.role for a in manifest.artifacts]) == ("failed", ["notice"])
    path = tmp_path / "results" / spec.job_id / manifest.artifacts[0].path
    assert iod_errors(path) == []
    ds = pydicom.dcmread(path)
    assert ds.DerivationDescription == f"No AI result: {manifest.reason}"
    assert (ds.StudyInstanceUID, ds.PatientID) == (mr[0].StudyInstanceUID, "TEST-1")
    assert (ds.Rows, ds.SeriesNumber, ds.BurnedInAnnotation) == (512, 309, "YES")
    assert ds.pixel_array[112:240].max() > 200
    absent = job(tmp_path, mr, "absent", name="absent").model_copy(update={"notice": True})
    assert [a.role for a in run(absent, tmp_path).artifacts] == ["notice"]


def test_no_notice_is_made_of_what_cannot_be_read(tmp_path: Path, denoiser: Path) -> None:
    """Where not even a header can be read, or another attempt may help, there is no notice."""
    spec = job(tmp_path, made.series(2), denoiser, name="x").model_copy(update={"notice": True})
    (tmp_path / spec.instances[0].path).write_bytes(b"no DICOM")
    manifest = run(spec, tmp_path)
    assert (manifest.outcome, manifest.artifacts) == ("failed", ())
    assert "is not readable" in manifest.reason
    gone = job(tmp_path, made.series(2), denoiser, name="y").model_copy(update={"notice": True})
    (tmp_path / gone.instances[1].path).unlink()
    assert (run(gone, tmp_path).retryable, run(gone, tmp_path).artifacts) == (True, ())


def test_a_damaged_model_is_refused(tmp_path: Path, denoiser: Path) -> None:
    """A model folder with a changed byte gives no result, and its reason says so."""
    copy = tmp_path / "model/0.0.1"
    copy.parent.mkdir()
    denoiser_folder(copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "model.safetensors was changed" in _failure(job(tmp_path, made.series(2), copy), tmp_path)


def test_a_missing_file_may_be_tried_again(tmp_path: Path, denoiser: Path) -> None:
    """A file that cannot be opened is a failure that another attempt may cure."""
    spec = job(tmp_path, made.series(2), denoiser)
    (tmp_path / spec.instances[1].path).unlink()
    manifest = run(spec, tmp_path)
    assert (manifest.outcome, manifest.retryable) == ("failed", True)
    assert "step 'read'" in manifest.reason


def test_a_job_reads_nothing_outside_of_the_data_folder(tmp_path: Path, denoiser: Path) -> None:
    """A path that climbs out is refused."""
    spec = job(tmp_path / "data", made.series(2), denoiser)
    climbing = spec.instances[0].model_copy(update={"path": "../secret.dcm"})
    spec = spec.model_copy(update={"instances": (climbing, *spec.instances[1:])})
    assert "outside of the data folder" in _failure(spec, tmp_path / "data")


def test_a_gpu_that_is_not_there_is_refused() -> None:
    """Auto and cpu always work; an absent GPU is named."""
    assert device.choose("cpu") == "cpu"
    assert device.choose("auto") in ("cpu", "cuda")
    with pytest.raises(device.ModelRefused, match="cuda:99"):
        device.choose("cuda:99")

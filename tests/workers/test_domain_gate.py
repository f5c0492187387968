"""The domain gate in a job: amber is told in the manifest and in every object, red gives the reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from models import weights
from models.domain import Domain
from node.job import Manifest
from tests import series as made
from tests.workers.jobs_made import job
from tests.workers.models_made import anomaly_folder, denoiser_folder
from tests.workers.results_made import NOW, iod_errors
from tests.workers.test_cli_models import run as command
from tests.workers.test_cli_models import thorax_folder
from workers import pipeline
from workers.cli import models
from workers.read import read_series


def run(folder: Path, images: list, model: Path, **changes: object) -> Manifest:  # type: ignore[type-arg]
    spec = job(folder, images, model, **changes)  # type: ignore[arg-type]
    return pipeline.run(spec, folder, "cpu", NOW)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser without statistics, as packed before there was a gate."""
    return denoiser_folder(tmp_path_factory.mktemp("models") / "0.0.1")


@pytest.fixture(scope="module")
def gated(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with a gate, fitted by the command on small CT series."""
    folder = tmp_path_factory.mktemp("gated")
    data = thorax_folder(folder / "data", 9)
    said = command(models, "gate", plain, "--data", data, "--version", "0.0.2", "--out", folder / "0.0.2")
    assert said.exit_code == 0, said.stderr
    return folder / "0.0.2"


def test_the_gate_is_a_new_version_of_the_same_weights(plain: Path, gated: Path) -> None:
    """Weights and golden output are the same; the card's hash is not; nothing is overwritten."""
    before, after = weights.load(str(plain)), weights.load(str(gated))
    assert (before.weights_sha256, after.version) == (after.weights_sha256, "0.0.2")
    assert Domain.of(before.calibration) is None and Domain.of(after.calibration) is not None
    said = command(models, "gate", plain, "--data", plain, "--version", "0.0.2", "--out", gated)
    assert said.exit_code == 1


def test_usual_images_pass(tmp_path: Path, gated: Path) -> None:
    """Its images are usual; only its coarse pixels are noticed by the header."""
    manifest = run(tmp_path, made.series(3, 64, spacing=(4.0, 4.0), seed=40), gated)
    assert (manifest.outcome, manifest.reason) == ("done", "")
    assert [note for note in manifest.notes if "training" in note or "taught" in note] == [
        "amber: pixels of 4.00 × 4.00 mm were not in the training"
    ]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("inverted", "nothing like those that the model was taught on"),
        ("no rescale", "no air and no fat, so that their values are not HU"),
        ("magnitudes", "no air and no fat, so that their values are not HU"),
        ("bone only", "no soft tissue, so that their values are not HU of a person"),
    ],
)
def test_images_unlike_the_training_are_refused(tmp_path: Path, gated: Path, wrong: str, reason: str) -> None:
    """The job fails with the reason and without a file."""
    images = made.series(3, 64, spacing=(4.0, 4.0), seed=41)
    for ds in images:
        stored = ds.pixel_array.astype(int)
        if wrong == "inverted":
            ds.PixelData = (2048 - stored).clip(0, 4095).astype("<u2").tobytes()
        elif wrong == "magnitudes":  # as an MR whose header says CT
            ds.RescaleIntercept = 0
            ds.PixelData = (stored // 4).astype("<u2").tobytes()
        elif wrong == "bone only":
            ds.PixelData = np.where(stored > 500, 2000, 0).astype("<u2").tobytes()
        else:
            ds.RescaleIntercept = 0
    manifest = run(tmp_path, images, gated)
    assert manifest.outcome == "failed" and reason in manifest.reason
    assert not manifest.artifacts


def test_mr_with_negative_values_is_no_magnitude(tmp_path: Path) -> None:
    """CT whose header says MR, or a phase image, is refused by a model of MR."""
    model = denoiser_folder(tmp_path / "mr" / "0.0.1", modality="MR")
    images = made.series(3, 64, modality="MR")
    for ds in images:
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    assert "no MR magnitudes" in run(tmp_path, images, model).reason


def test_statistics_of_an_older_form_are_said_to_be_so(tmp_path: Path, gated: Path) -> None:
    """A model gated with two limits gives no result, and the command that mends it."""
    model = weights.load(str(gated))
    older = {**model.calibration, "gate_limits": model.calibration["gate_limits"][:2]}
    weights.repack(gated, tmp_path / "0.0.3", replace(model, calibration=older), "0.0.3")
    manifest = run(tmp_path, made.series(3, 64, spacing=(4.0, 4.0)), tmp_path / "0.0.3")
    assert manifest.outcome == "failed" and "aenode models gate" in manifest.reason


def test_the_contract_refuses_what_the_header_tells(tmp_path: Path, plain: Path) -> None:
    """Another modality and a localizer give no result, with any model."""
    manifest = run(tmp_path / "mr", made.series(2, 64, modality="MR"), plain)
    assert manifest.reason == "Model 'test-denoise' is for CT, the series is MR."
    images = made.series(2, 64)
    for ds in images:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert run(tmp_path / "scout", images, plain).outcome == "failed"


@pytest.mark.parametrize("kind", ["derived", "capture"])
def test_amber_is_sent_and_told_everywhere(tmp_path: Path, kind: str, plain: Path) -> None:
    """An odd tube voltage: the manifest notes it, and every object carries it and stays valid."""
    model = plain if kind == "derived" else anomaly_folder(tmp_path / "0.0.1", threshold=0.2)
    images = made.series(3, 96)
    for ds in images:
        ds.KVP = 40
    spec = job(tmp_path, images, model, outputs=(kind,))
    manifest = pipeline.run(spec, tmp_path, "cpu", NOW)
    assert manifest.outcome == "done", manifest.reason
    assert "amber: a tube voltage of 40 kV was not in the training" in manifest.notes
    paths = [tmp_path / "results" / spec.job_id / artifact.path for artifact in manifest.artifacts]
    assert paths and iod_errors(*paths) == []
    for path in paths:
        ds = pydicom.dcmread(path)
        assert "usual domain: a tube voltage of 40 kV" in ds.DerivationDescription
        assert "tube voltage" in ds.ContributingEquipmentSequence[-1].ContributionDescription


def test_planes_and_parts_are_noticed(tmp_path: Path, plain: Path) -> None:
    """A model for axial trunks notices sagittal slices and a head, and does not repeat the header's word."""
    from workers.domain_gate import _noticed  # noqa: PLC0415 - a part of the module

    model = weights.load(str(plain))
    model.card["input"] = {"modality": "CT", "plane": "axial, trunk"}
    images = made.series(3, 64)
    for ds in images:
        ds.BodyPartExamined = "HEAD"
    volume = read_series(made.write(tmp_path, images))
    assert _noticed(volume, model) == ["BodyPartExamined is not of the trunk"]
    for ds in volume.headers:
        ds.ImageOrientationPatient, ds.BodyPartExamined = [0, 1, 0, 0, 0, -1], "CHEST"
    assert _noticed(volume, model) == ["the slices are not axial"]
    assert np.isfinite(volume.voxels).all()


@pytest.mark.parametrize(
    ("device", "precision"), [("cpu", "bfloat16"), ("openvino", "bfloat16"), ("openvino", "float32")]
)
def test_a_faster_way_is_told_and_gives_other_uids(
    tmp_path: Path, plain: Path, device: str, precision: str
) -> None:
    """Pixels are within 2 HU of the reference's, the series is another one, and its header says how."""
    images = made.series(2, 64)
    reference = run(tmp_path / "a", images, plain)
    spec = job(tmp_path / "b", images, plain)
    manifest = pipeline.run(spec, tmp_path / "b", device, NOW, precision=precision)  # type: ignore[arg-type]
    assert (manifest.outcome, manifest.reason) == ("done", "")
    assert manifest.artifacts[0].series_instance_uid != reference.artifacts[0].series_instance_uid
    for one, other in zip(reference.artifacts, manifest.artifacts, strict=True):
        first = pydicom.dcmread(tmp_path / "a" / "results" / reference.job_id / one.path)
        second = pydicom.dcmread(tmp_path / "b" / "results" / spec.job_id / other.path)
        assert np.abs(first.pixel_array.astype(int) - second.pixel_array).max() <= 2
        told = second.ContributingEquipmentSequence[-1].ContributionDescription
        assert "computed in " in told and ("bfloat16" in told) == (precision == "bfloat16")

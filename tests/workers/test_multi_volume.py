"""An anomaly model on a series of several volumes: which are judged, and what the results say of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.job import Manifest
from tests import series as made
from tests import validators
from tests.workers import modalities_made as other
from tests.workers.jobs_made import job
from tests.workers.models_made import anomaly_folder, denoiser_folder
from tests.workers.results_made import NOW, PROVENANCE, scores, set_errors
from workers import pipeline
from workers.admission import MOST_JUDGED
from workers.read import read_volumes
from workers.write import gate
from workers.write.bundle import write_bundle


@pytest.fixture(scope="module")
def anomaly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return anomaly_folder(tmp_path_factory.mktemp("models") / "0.0.1", threshold=0.2)


def volumes_of(count: int, change: Callable[[FileDataset, int], None], size: int = 96) -> list[FileDataset]:
    """A CT series with several images in each place; `change` is told the volume's number from 0."""
    images = []
    for number in range(count):
        for ds in made.series(2, size, seed=number):
            ds.SOPInstanceUID = made.uid("volume", number, ds.InstanceNumber)
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.InstanceNumber = int(ds.InstanceNumber) + 2 * number
            change(ds, number)
            images.append(ds)
    return images


def phases(ds: FileDataset, number: int) -> None:
    ds.NominalPercentageOfCardiacPhase = 35 * number


def diffusion(ds: FileDataset, number: int) -> None:
    ds.DiffusionBValue = 500.0 * (number // 2)
    ds.DiffusionGradientOrientation = [0.0, 0.0, 1.0] if number % 2 else [1.0, 0.0, 0.0]


def run(folder: Path, images: list[FileDataset], model: Path) -> tuple[Manifest, list[FileDataset]]:
    """The manifest of a job on these images, and its objects in their order."""
    spec = job(folder, images, model, outputs=("capture", "segmentation", "report"))
    manifest = pipeline.run(spec, folder, "cpu", NOW)
    files = [folder / "results" / spec.job_id / artifact.path for artifact in manifest.artifacts]
    assert validators.dciodvfy(*files) == []
    assert set_errors(*sorted((folder / "spool").rglob("*.dcm")), *files) == []
    return manifest, [pydicom.dcmread(file) for file in files]


def test_each_of_a_few_volumes_has_results_of_its_own(tmp_path: Path, anomaly: Path) -> None:
    """Two phases give two bundles, whose objects say of which phase they are and refer to it only."""
    images = volumes_of(2, phases)
    manifest, results = run(tmp_path, images, anomaly)
    assert (manifest.outcome, manifest.reason) == ("done", "")
    by_phase = {str(ds.SOPInstanceUID): int(ds.NominalPercentageOfCardiacPhase) for ds in images}
    phases_of = {}
    for ds in results:
        named = {by_phase[uid] for uid in by_phase if uid in ds.to_json()}
        (phase,) = named
        label = f"NominalPercentageOfCardiacPhase {phase}"
        assert f", {label}"[:30] in ds.SeriesDescription
        assert f"; of {label}" in ds.ContributingEquipmentSequence[-1].ContributionDescription
        assert ds.Modality != "OT" or label in ds.DerivationDescription
        phases_of.setdefault(str(ds.SeriesInstanceUID), set()).add(phase)
    assert all(len(found) == 1 for found in phases_of.values())
    assert {phase for found in phases_of.values() for phase in found} == {0, 35}
    assert len({artifact.path for artifact in manifest.artifacts}) == len(results)


def test_of_a_diffusion_series_the_lowest_b_value_is_judged(tmp_path: Path, anomaly: Path) -> None:
    """Weighted volumes are left out with the reason; both of b 0 are judged."""
    manifest, results = run(tmp_path, volumes_of(4, diffusion), anomaly)
    assert manifest.outcome == "done"
    left_out = [note for note in manifest.notes if note.startswith("not judged")]
    assert len(left_out) == 1
    assert left_out[0].endswith("It is diffusion-weighted, and normal images are not")
    assert "DiffusionBValue 500" in left_out[0]
    assert all("DiffusionBValue 0" in ds.SeriesDescription for ds in results)


def test_of_many_volumes_the_first_stands_for_the_series(tmp_path: Path, anomaly: Path) -> None:
    """More phases than are judged one by one give one bundle, of the first, and a note."""
    manifest, results = run(tmp_path, volumes_of(MOST_JUDGED + 1, phases, size=64), anomaly)
    assert any("the first, NominalPercentageOfCardiacPhase 0, stands for" in note for note in manifest.notes)
    assert all(
        "CardiacPhase 0" in ds.ContributingEquipmentSequence[-1].ContributionDescription for ds in results
    )


def test_where_no_volume_may_be_judged_the_reason_is_told(tmp_path: Path, anomaly: Path) -> None:
    """The sentence says how many there are, and what is wrong with the first."""
    images = volumes_of(2, phases)
    for ds in images:
        ds.Modality, ds.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    spec = job(tmp_path, images, anomaly, outputs=("capture",))
    reason = pipeline.run(spec, tmp_path, "cpu", NOW).reason
    assert reason == (
        "None of the 2 volumes may be judged by model 'test-anomaly'; NominalPercentageOfCardiacPhase 0: "
        "Model 'test-anomaly' is for CT, the series is MR."
    )


@pytest.mark.parametrize("kind", ["type", "part"])
def test_phase_images_are_refused_by_models_of_magnitudes(tmp_path: Path, kind: str) -> None:
    """Their values turn over, and their noise is another; ImageType or ComplexImageComponent tells."""
    model = denoiser_folder(tmp_path / "model" / "0.0.1", modality="MR")
    images = made.series(2, 64, modality="MR")
    for ds in images:
        if kind == "type":
            ds.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]
        else:
            ds.ComplexImageComponent = "REAL"
        assert np.ptp(ds.pixel_array) > 0
    reason = pipeline.run(job(tmp_path, images, model), tmp_path, "cpu", NOW).reason
    assert reason == "Model 'test-denoise' is for magnitudes, the series shows phases or parts."


def test_overlays_of_one_echo_of_an_object_name_its_frames(tmp_path: Path) -> None:
    """Segmentation and map of the second of two interleaved echoes lie on its frames."""
    (path,) = made.write(tmp_path, [other.enhanced_mr(echoes=2)])
    source = pydicom.dcmread(path)
    volume = read_volumes([path])[1]
    roles = ("segmentation", "report", "parametric")
    artifacts = write_bundle(roles, volume, scores(volume), PROVENANCE, tmp_path, NOW, [])
    gate.check(tmp_path, artifacts, volume)
    assert [artifact.role for artifact in artifacts] == list(roles)
    for artifact in (artifacts[0], artifacts[2]):
        assert validators.dciodvfy(tmp_path / artifact.path) == []
        groups = pydicom.dcmread(tmp_path / artifact.path).PerFrameFunctionalGroupsSequence
        for group in groups:
            number = int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
            own = source.PerFrameFunctionalGroupsSequence[number - 1]
            assert own.MREchoSequence[0].EffectiveEchoTime == 20
            assert group.PlanePositionSequence == own.PlanePositionSequence

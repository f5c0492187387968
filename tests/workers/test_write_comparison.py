"""A denoiser's page: before, after and difference, read back from its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from models.denoiser import Denoised
from tests import series as made
from tests import validators
from tests.workers import modalities_made as other
from tests.workers.jobs_made import job
from tests.workers.models_made import denoiser_folder
from tests.workers.results_made import NOW, PROVENANCE, denoised, set_errors, volume_of
from workers import pipeline
from workers.read import Volume, read_volumes
from workers.write import gate
from workers.write.capture import write_comparison
from workers.write.comparison import chosen, figure, noise_words, scale_of, unit_of
from workers.write.derived import Part, write_parts

COLUMNS = [slice(24 + 290 * k, 24 + 290 * k + 284) for k in range(3)]
ROW = slice(312, 312 + 284)


def page_of(folder: Path, parts: list[Part]) -> FileDataset:
    """The page of these results, gated, validated and read back."""
    (artifact,) = write_comparison(parts, PROVENANCE, folder, NOW)
    gate.check_parts(folder, [artifact], [(volume, None) for volume, _ in parts])
    assert validators.dciodvfy(folder / artifact.path) == []
    return pydicom.dcmread(folder / artifact.path)


def test_the_page_is_one_capture_in_the_study_of_its_series(tmp_path: Path) -> None:
    """One RGB page that names the slices shown, with noise, strength and limit, and no patient on it."""
    volume = volume_of(tmp_path / "in", made.series(6))
    result = replace(denoised(volume), remaining=np.full(6, 5, np.float32))
    page = page_of(tmp_path / "out", [(volume, result)])
    assert page.pixel_array.shape == (1024, 1024, 3)
    assert page.StudyInstanceUID == volume.headers[0].StudyInstanceUID
    assert (page.Modality, page.BurnedInAnnotation, page.SeriesNumber) == ("OT", "YES", 302)
    for words in ("Noise 10 → 5 HU, 50% less", "Strength 0.5", "strength x 3 x noise", "not for primary"):
        assert words in page.DerivationDescription
    named = [item.ReferencedSOPInstanceUID for item in page.SourceImageSequence]
    assert named == [row.volume.headers[row.index].SOPInstanceUID for row in chosen([(volume, result)])]
    write_parts([(volume, result)], PROVENANCE, tmp_path / "out", NOW)
    assert set_errors(*sorted(tmp_path.rglob("*.dcm"))) == []


def test_the_difference_is_coloured_where_something_changed(tmp_path: Path) -> None:
    """A change in one half of a slice colours that half of the third column; the others are grey."""
    volume = volume_of(tmp_path / "in", made.series(1, size=64))
    image = volume.voxels.copy()
    image[:, :, :32] += 10
    page = page_of(tmp_path / "out", [(volume, Denoised(image, np.full(1, 20, np.float32), 0.5, 3.0))])
    pixels = page.pixel_array[ROW].astype(int)
    before, after, difference = (pixels[:, column] for column in COLUMNS)
    assert np.ptp(before, axis=-1).max() == np.ptp(after, axis=-1).max() == 0
    assert np.abs(before - after).max() > 0
    coloured = np.ptp(difference, axis=-1) > 40
    assert coloured[:, :141].all()
    assert not coloured[:, 143:].any()


def test_what_changed_most_of_each_half_is_shown(tmp_path: Path) -> None:
    """Slices that did not change are not taken; where none changed, the one in the middle is."""
    volume = volume_of(tmp_path / "in", made.series(8, size=32))
    image = volume.voxels.copy()
    for index, change in ((1, 3), (2, 9), (6, 5), (7, 4)):
        image[index] += change
    result = Denoised(image, np.full(8, 9, np.float32), 0.5, 3.0)
    assert [row.index for row in chosen([(volume, result)])] == [2, 6]
    same = replace(result, image=volume.voxels, sigma=np.zeros(8, np.float32))
    assert [row.index for row in chosen([(volume, same)])] == [4]
    assert noise_words([(volume, same)], "HU") == "No noise was found; nothing was changed"
    padded = replace(volume, padding=volume.padding | (np.arange(8) == 2)[:, None, None])
    assert [row.index for row in chosen([(padded, result)])] == [1, 6]
    page_of(tmp_path / "out", [(volume, same)])


@pytest.mark.parametrize("make", ["enhanced", "ultrasound", "radiograph", "pet"])
def test_every_modality_has_a_page(tmp_path: Path, make: str) -> None:
    """Frames of several volumes are named with their numbers; colour and unknown pixel sizes are drawn."""
    images: list[FileDataset] = {
        "enhanced": lambda: [other.enhanced_mr(echoes=2)],
        "ultrasound": lambda: [other.ultrasound()],
        "radiograph": lambda: [other.radiograph()],
        "pet": other.pet,
    }[make]()
    if make == "radiograph":
        del images[0].ImagerPixelSpacing
    volumes: list[Volume] = read_volumes(made.write(tmp_path / "in", images))
    page = page_of(tmp_path / "out", [(volume, denoised(volume, strength=0.2)) for volume in volumes])
    if make == "enhanced":
        (item,) = page.SourceImageSequence
        assert len(item.ReferencedFrameNumber) == 2
    assert unit_of(volumes[0].headers[0]) == ("Bq/ml" if make == "pet" else "units")


def test_scale_and_figures_are_round() -> None:
    """The scale ends at a round number that nearly all changes reach not; figures have three digits."""
    assert scale_of([np.array([-28.0, 3, 0], np.float32)]) == 30
    assert scale_of([np.array([0.013], np.float32)]) == pytest.approx(0.015)
    assert scale_of([np.zeros(3, np.float32)]) == 1
    assert [figure(value) for value in (0.0123456, 12.345, 54282.4)] == ["0.0123", "12.3", "54282"]


@pytest.mark.parametrize("outputs", [("derived", "capture"), ("capture",)])
def test_a_denoiser_pipeline_gives_the_page(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    """Beside the derived series or alone, as the pipeline asks; its noise is measured before and after."""
    model = denoiser_folder(tmp_path / "models" / "0.0.1")
    spec = job(tmp_path, made.series(3, 96), model, outputs=outputs)  # type: ignore[arg-type]
    manifest = pipeline.run(spec, tmp_path, "cpu", NOW)
    assert (manifest.outcome, manifest.reason) == ("done", "")
    roles = [artifact.role for artifact in manifest.artifacts]
    assert roles == ["derived"] * (3 if "derived" in outputs else 0) + ["capture"]
    page = pydicom.dcmread(tmp_path / "results" / spec.job_id / manifest.artifacts[-1].path)
    assert "→" in page.DerivationDescription

"""An MR series through a denoiser, and the pictures of an evaluation."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from models.evaluate import Shown
from models.intensity import INTENSITIES
from tests import series as made
from tests.workers.jobs_made import job
from tests.workers.models_made import denoiser_folder
from tests.workers.results_made import NOW, iod_errors
from workers import pipeline
from workers.album import Album
from workers.read import read_series


def test_a_real_mr_series_is_denoised_within_its_bounds(tmp_path: Path, data_dir: Path) -> None:
    """Siemens HASTE of a liver: valid images, no pixel beyond strength × limit × noise, none below 0."""
    model = denoiser_folder(tmp_path / "0.0.1", modality="MR")
    sources = sorted((data_dir / "dicom-series" / "mr_siemens_avanto_liver_haste_cor").glob("*"))
    images = [pydicom.dcmread(path) for path in sources if path.is_file()][:4]
    spec = job(tmp_path, images, model)
    manifest = pipeline.run(spec, tmp_path, "cpu", NOW)
    assert manifest.outcome == "done", manifest.reason
    paths = [tmp_path / "results" / spec.job_id / artifact.path for artifact in manifest.artifacts]
    assert len(paths) == len(images) and iod_errors(*paths) == []
    before = read_series([tmp_path / instance.path for instance in spec.instances])
    body = INTENSITIES["MR"].body(before.voxels, before.padding)
    sigma = INTENSITIES["MR"].noise(before.voxels, body)
    changed = 0.0
    for z, path in enumerate(paths):
        out = pydicom.dcmread(path)
        assert out.Modality == "MR" and out.pixel_array.min() >= 0
        change = np.abs(out.pixel_array.astype(int) - before.stored[z])
        assert change.max() <= 0.5 * 3 * sigma[z] + 0.5
        assert not change[~body[z]].any()
        changed = max(changed, float(change.max()))
    assert changed >= 1


def test_a_ct_model_refuses_mr(tmp_path: Path) -> None:
    """And the other way round."""
    for modality, other in (("CT", "MR"), ("MR", "CT")):
        model = denoiser_folder(tmp_path / modality / "0.0.1", modality=modality)
        spec = job(tmp_path / modality, made.series(2, 64, modality=other), model)
        manifest = pipeline.run(spec, tmp_path / modality, "cpu", NOW)
        assert manifest.reason == f"Model 'test-denoise' is for {modality}, the series is {other}."


def test_an_album_shows_the_worst_the_median_and_the_best(tmp_path: Path) -> None:
    """Three PNGs by gain at the middle level, and none where nothing was shown."""
    rng = np.random.default_rng(1)
    album = Album()
    for level in (0.1, 0.25, 0.5):
        for gain in (3.0, -1.0, 1.0):
            plane = rng.normal(0, 20, (3, 40, 40)).astype(np.float32)
            album.add(Shown("p", level, gain, *plane, (-160.0, 240.0)))
    written = album.write(tmp_path / "seen")
    assert [path.name for path in written] == ["worst.png", "median.png", "best.png"]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width > 800
    assert Album().write(tmp_path / "none") == [] and not (tmp_path / "none").exists()
    assert pytest.approx(1.0) == sorted(one.gain_db for one in album.shown)[4]

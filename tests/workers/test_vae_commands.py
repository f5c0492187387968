"""Codes of films and drawn images, as a person asks for them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pydicom
import pytest
import torch
from PIL import Image

from models import weights
from models.pack_vae import NOVELTY
from models.vae import VAE
from tests.models.test_evaluate_images import film
from tests.models.test_vae import SMALL, WORDS
from tests.workers.models_made import denoiser_folder
from tests.workers.results_made import iod_errors
from tests.workers.test_cli_models import run
from tests.workers.test_train_films import archive
from workers.cli import models, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untaught model that knows the novelty of 120 normal series."""
    torch.manual_seed(1)
    card = {
        "name": "test-vae",
        "version": "0.0.1",
        "kind": "vae",
        "architecture": {"id": "vae", "arguments": SMALL},
        "input": WORDS,
        "golden_tolerance": 1e-3,
    }
    golden = np.random.default_rng(1).uniform(0, 1, (1, 1, 64, 64)).astype(np.float32)
    path = tmp_path_factory.mktemp("models") / "0.0.1"
    known = {NOVELTY: np.linspace(0, 1, 120).astype(np.float32)}
    weights.save(path, VAE(**SMALL), card, golden, "# A test's model\n", known)  # type: ignore[arg-type]  # JSON
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = {f"n{n}.png": (f"P{n // 2}", "normal", film(n)[0]) for n in range(6)}
    return archive(tmp_path_factory.mktemp("films"), "some", named)


def test_codes_are_written_for_programs(folder: Path, films: Path, tmp_path: Path) -> None:
    """Npz and Parquet hold the same rows: person, slice, code, novelty and its rank."""
    for name in ("codes.npz", "codes.parquet"):
        said = run(models, "encode", folder, "--data", films, "--out", tmp_path / name)
        assert said.exit_code == 0, said.stderr
        assert "6 slices of 3 people" in said.stdout
    with np.load(tmp_path / "codes.npz") as arrays:
        columns = {key: arrays[key] for key in arrays.files}
    table = pyarrow.parquet.read_table(tmp_path / "codes.parquet").to_pydict()
    assert columns["code"].shape == (6, 16)
    assert np.allclose(np.array(table["code"]), columns["code"])
    assert table["person"] == columns["person"].tolist() and not any("P" in p for p in table["person"])
    assert ((columns["rarer_than"] >= 0) & (columns["rarer_than"] < 1)).all()
    assert np.allclose(columns["novelty"], columns["series_novelty"])


def test_only_codes_of_a_vae_and_known_formats(folder: Path, films: Path, tmp_path: Path) -> None:
    """A denoiser has no codes; another format is wrong use."""
    other = denoiser_folder(tmp_path / "0.0.1")
    said = run(models, "encode", other, "--data", films, "--out", tmp_path / "x.npz")
    assert said.exit_code == 1 and "has no codes" in said.stderr
    assert run(models, "encode", folder, "--data", films, "--out", tmp_path / "x.csv").exit_code == 2


def test_drawn_images_are_marked_as_synthetic(folder: Path, tmp_path: Path) -> None:
    """DICOM is valid and says so in header and pixels; the same seed draws the same."""
    said = run(models, "sample", folder, "--out", tmp_path / "dicom", "--count", 3, "--dicom")
    assert said.exit_code == 0, said.stderr
    paths = sorted((tmp_path / "dicom").glob("*.dcm"))
    assert len(paths) == 3 and iod_errors(*paths) == []
    ds = pydicom.dcmread(paths[0])
    assert ds.SyntheticData == "YES" and ds.BurnedInAnnotation == "YES"
    assert ds.PatientID == "SYNTHETIC-1" and ds.SeriesDescription.startswith("SYNTHETIC")
    assert ds.pixel_array[:14, :60].max() > 200
    for name in ("one", "two"):
        assert run(models, "sample", folder, "--out", tmp_path / name, "--count", 2).exit_code == 0
    first, second = (np.asarray(Image.open(tmp_path / name / "0002.png")) for name in ("one", "two"))
    assert np.array_equal(first, second) and first.shape == (128, 128)


def test_an_interpolation_goes_from_one_image_to_another(folder: Path, tmp_path: Path) -> None:
    """Its images are as many as asked for, and neighbours differ less than the ends."""
    words = ("--out", tmp_path / "path", "--count", 9, "--interpolate", "--seed", 4)
    assert run(models, "sample", folder, *words).exit_code == 0
    drawn = [np.asarray(Image.open(path), float) for path in sorted((tmp_path / "path").glob("*.png"))]
    assert len(drawn) == 9
    steps = [np.abs(a - b).mean() for a, b in pairwise(drawn)]
    assert max(steps) <= np.abs(drawn[0] - drawn[-1]).mean() + 1e-9


def test_a_vae_is_trained_on_films(films: Path, tmp_path: Path) -> None:
    """One command ends in a model folder of kind vae, with its card."""
    out = tmp_path / "run"
    said = run(train, "chest-xray-vae", "--data", films, "--out", out, "--steps", 4)
    assert said.exit_code == 0, said.stderr
    assert weights.load(str(out / "model")).kind == "vae"
    assert "aenode train chest-xray-vae" in (out / "model" / "CARD.md").read_text()

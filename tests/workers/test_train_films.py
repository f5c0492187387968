"""Chest films from archives of pictures: read by person, trained on, judged as wholes."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from models import weights
from tests.models.test_evaluate_images import film
from tests.workers.test_cli_models import run
from workers.cli import train
from workers.training import DataRefused, read_cases


def archive(folder: Path, split: str, films: dict[str, tuple[str, str, np.ndarray]]) -> Path:
    """A zip of PNGs, and their rows in meta.csv: name → patient, label, pixels."""
    path, table = folder / f"{split}.zip", folder / "meta.csv"
    with zipfile.ZipFile(path, "w") as packed:
        for name, (_, _, pixels) in films.items():
            data = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "png")
            packed.writestr(name, data.getvalue())
        packed.writestr("README.txt", "words")
    new = not table.exists()
    with table.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["split", "file", "patient", "label"])
        writer.writerows([split, name, patient, label] for name, (patient, label, _) in films.items())
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An archive of normal people, and one of other people, half of them ill."""
    folder = tmp_path_factory.mktemp("films")
    normal = {f"n{n}.png": (f"P{n // 2}", "normal", film(n)[0]) for n in range(8)}
    test = {
        f"t{n}.png": (f"Q{n}", "normal" if n < 4 else "bacteria", film(50 + n, 80 * (n >= 4))[0])
        for n in range(8)
    }
    return archive(folder, "train", normal), archive(folder, "test", test)


@pytest.fixture(scope="module")
def trained(films: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The run folder of a few steps, and what the command said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ("--data", films[0], "--test", films[1], "--out", out, "--steps", 4, "--json")
    return out, run(train, "chest-xray-anomaly", *words)


def test_films_are_read_with_their_person_and_label(films: tuple[Path, Path]) -> None:
    """Two films of a patient are one person; what is not normal is abnormal; names leave as hashes."""
    normal, test = (read_cases([path], modality="DX") for path in films)
    assert (len(normal.cases), normal.people) == (8, 4)
    assert {case.abnormal for case in normal.cases} == {False}
    assert [case.abnormal for case in test.cases] == [False] * 4 + [True] * 4
    assert np.array_equal(normal.cases[0].volume[0], film(0)[0].clip(0, 255).astype(np.uint8))
    assert all("P" not in case.person for case in normal.cases)


def test_films_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    """A damaged picture, a damaged archive, and a film that the table does not name."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataRefused, match=r"a\.png cannot be read"):
        read_cases([tmp_path / "a.png"], modality="DX")
    (tmp_path / "b.zip").write_bytes(b"no archive")
    with pytest.raises(DataRefused, match="zip archive"):
        read_cases([tmp_path / "b.zip"], modality="DX")
    path = archive(tmp_path, "c", {"one.png": ("P", "normal", film(1)[0])})
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("two.png", packed.read("one.png"))
    with pytest.raises(DataRefused, match=r"person of two\.png"):
        read_cases([path], modality="DX")


def test_a_film_model_is_trained_and_its_first_line_tells_its_worth(
    trained: tuple[Path, Result],
) -> None:
    """A few steps teach nothing: the card says first that the model does not beat its baselines."""
    out, said = trained
    assert said.exit_code == 0, said.stderr
    card = json.loads(said.stdout)
    images = card["metrics"]["images"]
    assert (images["images"], images["people"]) == (8, 8)
    assert {row["method"] for row in images["rows"]} == {"model", "intensity", "PCA"}
    assert card["metrics"]["normals"]["slices"] == 4
    text = (out / "model" / "CARD.md").read_text()
    assert text.startswith(
        "**Not shown to beat its best baseline for telling abnormal images from normal ones"
    )
    assert not card["metrics"]["beats_baseline"]
    with Image.open(out / "pictures" / "worst.png") as picture:
        assert picture.height == 440 * 3  # normal, abnormal, and normal with a lesion put in
    assert "| PCA |" in text and "Whole films: 8 of 8 people" in text
    loaded = weights.load(str(out / "model"))
    assert loaded.calibration["pca_components"].dtype == np.float16


def test_a_model_is_fine_tuned_and_its_card_says_from_which(
    films: tuple[Path, Path], trained: tuple[Path, Result], tmp_path: Path
) -> None:
    """--from keeps the input of the first model and begins from its weights; another kind is refused."""
    first = trained[0] / "model"
    words = ("--data", films[0], "--test", films[1], "--steps", 4, "--from", first)
    said = run(train, "chest-xray-anomaly", *words, "--loss", "charbonnier", "--out", tmp_path / "second")
    assert said.exit_code == 0, said.stderr
    before, after = (weights.load(str(path)) for path in (first, tmp_path / "second" / "model"))
    assert after.card["input"] == before.card["input"]
    assert "Fine-tuned from chest-xray-anomaly 0.1.0" in after.card["lineage"]["description"]
    assert "--from model --loss charbonnier" in after.card["lineage"]["command"]
    other = run(train, "chest-xray-vae", *words, "--out", tmp_path / "third")
    assert other.exit_code == 1 and "another kind" in other.stderr
    noisy = run(train, "ct-denoise", "--data", films[0], "--noisy", "--out", tmp_path / "fourth")
    assert noisy.exit_code == 1 and "name some of others by --test" in noisy.stderr

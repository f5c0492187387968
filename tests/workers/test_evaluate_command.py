"""`aenode evaluate` as a person types it: what it refuses before it reads, says, and writes."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from models import weights
from models.anomaly import CoarseDAE
from models.card_again import card_again
from models.weights import LoadedModel, WeightsError
from tests.series import series, write
from tests.workers.models_made import anomaly_folder
from tests.workers.test_cli_models import run
from workers.cli import evaluate, train
from workers.options import one_line_errors

LINEAGE = {
    "description": "A test's model.",
    "training_data": "Made.",
    "warning": "Nothing.",
    "command": "aenode train test",
    "git": "0" * 40,
    "steps": 4,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anomaly model that tells its lineage."""
    folder = tmp_path_factory.mktemp("models")
    made = weights.load(str(anomaly_folder(folder / "made")))
    assert isinstance(made.network, CoarseDAE)
    told: dict[str, Any] = {"lineage": LINEAGE, "licence": "CC0", "trained_people": 5, "normals": 12}
    told |= {"calibration_people": 3, "false_positive_rate": 0.01, "threshold": 1.0}
    told["input"] = made.card["input"] | {"plane": "axial", "body_part": "trunk", "pixel_mm": 4.0}
    golden = np.random.default_rng(1).normal(0, 0.1, (1, 1, 16, 16)).astype(np.float32)
    weights.save(
        folder / "model", made.network, made.card | told, golden, "# A test's model\n", made.calibration
    )
    return folder / "model"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CT of one person, and a file that is no image."""
    folder = tmp_path_factory.mktemp("data") / "ours"
    write(folder, series(3, 64, spacing=(4.0, 4.0)))
    (folder / "stray.bin").write_bytes(b"nothing")
    return folder


def test_figures_become_a_card_that_says_what_was_measured(model: Path, data: Path, tmp_path: Path) -> None:
    """The model's own text with the new figures, the data, the command; folders are made."""
    out, card = tmp_path / "new" / "f.json", tmp_path / "cards" / "CARD.md"
    said = run(evaluate, model, "--data", data, "--out", out, "--card", card, "--seed", 5)
    assert said.exit_code == 0, said.stderr
    assert json.loads(out.read_text())["normals"]["slices"] == 3
    text = card.read_text()
    assert "# test-anomaly 0.0.1" in text and "Normal people it never saw (1 people, 3 slices)" in text
    assert text.count("    aenode evaluate model --data ours --seed 5\n") == 1
    assert "on the --data of this command: 1 people, 3 slices" in text
    assert weights.load(str(model)).weights_sha256 in text
    assert text.index("## Measured by") < text.index("## Made by") < text.index("aenode train test")
    assert str(tmp_path) not in text
    notes = " ".join(said.stderr.split())
    assert "stray.bin is no DICOM file" in notes
    assert "note: read: 1 people, 3 slices note: measured: 1 normal people, 3 slices" in notes
    assert str(card) in said.stdout.replace("\n", "")


def test_what_could_not_be_judged_is_said(model: Path, data: Path, tmp_path: Path) -> None:
    """A case that the model cannot take is named on the terminal, and not only in the file."""
    np.savez(
        tmp_path / "small.npz",
        image=np.full((1, 4, 4), -1000.0),
        person=np.array(["b"]),
        spacing=np.ones(2),
    )
    said = run(
        evaluate,
        model,
        "--data",
        data,
        "--data",
        tmp_path / "small.npz",
        "--out",
        tmp_path / "f.json",
        "--json",
    )
    assert said.exit_code == 0, said.stderr
    (left_out,) = json.loads(said.stdout)["notes"]
    notes = " ".join(said.stderr.split())
    assert f"note: {' '.join(left_out.split())}" in notes
    assert "read: 2 people, 4 slices" in notes and "measured: 1 normal people" in notes


def test_what_cannot_be_written_is_refused_before_anything_is_read(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """Figures of hours are not lost to a path."""
    (tmp_path / "file").write_text("")
    for option in ("--out", "--card", "--pictures"):
        said = run(evaluate, model, "--data", data, option, tmp_path / "file" / "f")
        assert said.exit_code == 1
        assert f"{tmp_path / 'file'} is no folder" in said.stderr.replace("\n", "")
        assert "reading" not in said.stderr
    said = run(evaluate, model, "--data", data, "--card", model / "CARD.md")
    assert said.exit_code == 2 and "in a model's folder" in " ".join(said.stderr.split())
    said = run(evaluate, anomaly_folder(tmp_path / "bare"), "--data", data, "--card", tmp_path / "c.md")
    assert said.exit_code == 1 and "does not tell its lineage" in said.stderr
    assert "reading" not in said.stderr


@pytest.mark.parametrize("device", ["foo", "openvino", "cuda:x", "cuda:99", "cuda:", "cpu:0"])
def test_a_device_that_is_none_is_refused_in_a_sentence(
    model: Path, data: Path, tmp_path: Path, device: str
) -> None:
    """By train and evaluate alike, before data is read."""
    for said in (
        run(evaluate, model, "--data", data, "--device", device, "--out", tmp_path / "f.json"),
        run(train, "ct-anomaly", "--data", data, "--device", device, "--out", tmp_path / "run", "--steps", 4),
    ):
        assert said.exit_code == 1
        assert device in said.stderr and "Traceback" not in said.stderr
        assert "reading" not in said.stderr


def test_an_error_of_the_file_system_is_one_line_with_the_path(tmp_path: Path) -> None:
    """Whatever command meets it; a reader that went away is click's to end quietly."""
    (tmp_path / "folder").mkdir()

    @click.command()
    @click.argument("path", type=Path)
    @one_line_errors
    def reads(path: Path) -> None:
        path.read_bytes()

    said = run(reads, tmp_path / "folder")
    assert (said.exit_code, said.stderr) == (1, f"Error: {tmp_path}/folder: Is a directory\n")
    assert run(reads, tmp_path / "absent").stderr == f"Error: {tmp_path}/absent: No such file or directory\n"


def test_an_encoder_has_no_pictures(data: Path, tmp_path: Path) -> None:
    """A sentence, and no empty folder."""
    said = run(evaluate, "chest-xray-vae", "--data", data, "--pictures", tmp_path / "seen")
    assert said.exit_code == 2 and "has none to show" in said.stderr
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("name", ["mr-denoise", "ct-denoise", "chest-xray-vae", "ct-anomaly"])
def test_every_kind_of_card_is_written_again(name: str) -> None:
    """With the shipped figures the text is the shipped card's, but for what was measured and how."""
    folder = weights.resolve(name)
    card = weights.read_card(folder)
    kept = LoadedModel(name, card["version"], card["kind"], "f" * 64, card, torch.nn.Identity(), "cpu")
    command = "aenode evaluate x --data 'a\nb'"
    text = card_again(kept, card["metrics"], command=command, people=2, slices=9)
    assert "    aenode evaluate x --data 'a?b'\n\nMeasured after the model was packed" in text
    assert text.count("## Measured by") == text.count("## Made by") == 1
    assert text.endswith(f"Licence of the weights: {card['licence']}.\n")
    # Columns may stand in another order: model.json sorts its names.
    packed, again = (
        [sorted(line.split()) for line in whole.splitlines()]
        for whole in ((folder / "CARD.md").read_text(), text)
    )
    assert sum(line not in again for line in packed) <= 4
    if card["kind"] == "denoiser":  # the smallest disc, and not the first of the names
        (promised,) = (line for line in text.splitlines() if "contrast of the smallest disc" in line)
        assert promised in (folder / "CARD.md").read_text()
    bare = {key: value for key, value in card.items() if key != "trained_people"}
    kept = LoadedModel(name, card["version"], card["kind"], "", bare, torch.nn.Identity(), "cpu")
    with pytest.raises(WeightsError, match="trained_people"):
        card_again(kept, card["metrics"], command=command, people=2, slices=9)

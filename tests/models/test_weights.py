"""Model folders are used whole and unchanged, or not at all."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import weights
from models.anomaly import CoarseDAE
from models.weights import WeightsError

CARD = {
    "name": "small",
    "version": "1.2.3",
    "kind": "anomaly",
    "architecture": {"id": "coarse-dae", "arguments": {"widths": [8, 16], "groups": 4}},
    "golden_tolerance": 1e-4,
}


def save(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    golden = np.random.default_rng(0).random((1, 1, 16, 16)).astype(np.float32)
    calibration = {"threshold": np.array([3.0])}
    folder.parent.mkdir(parents=True, exist_ok=True)
    weights.save(folder, CoarseDAE((8, 16), 4), CARD | changes, golden, "A small model.\n", calibration)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "small" / "1.2.3")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the card and give it a right hash of its own, as a careful intruder would."""
    card = json.loads((folder / "model.json").read_text())
    change(card)
    card["sha256"] = weights._own_hash(card)
    (folder / "model.json").write_text(weights._render(card))


def test_a_saved_model_comes_back_with_weights_card_and_calibration(folder: Path) -> None:
    """What was saved is what is loaded."""
    model = weights.load(str(folder))
    assert (model.name, model.version, model.kind, model.device) == ("small", "1.2.3", "anomaly", "cpu")
    torch.manual_seed(0)
    fresh = CoarseDAE((8, 16), 4).eval()
    batch = torch.rand(1, 1, 16, 16)
    assert torch.equal(model.network(batch), fresh(batch))
    assert model.calibration["threshold"].tolist() == [3.0]
    assert model.weights_sha256 == model.card["files"]["model.safetensors"]
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert weights.verify(folder) == []


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model.json",
        "CARD.md",
        "calibration.npz",
        "golden/input.npy",
        "golden/output.npy",
    ],
)
def test_one_flipped_bit_in_any_file_is_refused(folder: Path, name: str) -> None:
    """Every file is hashed; the refusal names the file."""
    data = (folder / name).read_bytes()
    places = range(len(data)) if name == "model.json" else (0, len(data) // 2, len(data) - 1)
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        (folder / name).write_bytes(bytes(changed))
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
            weights.load(str(folder))
        assert weights.verify(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "CARD.md", "calibration.npz", "golden/output.npy"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    """A listed file that is not there is not passed over."""
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} cannot be read"):
        weights.load(str(folder))


def test_a_network_that_computes_something_else_is_refused(tmp_path: Path, folder: Path) -> None:
    """Right hashes do not help weights that do not give the golden output."""
    torch.manual_seed(1)
    other = tmp_path / "other"
    golden = np.load(folder / "golden/input.npy")
    weights.save(other, CoarseDAE((8, 16), 4), CARD, golden, "Another.\n")
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    hashes = json.loads((other / "model.json").read_text())["files"]

    def change(card: dict[str, Any]) -> None:
        card["files"]["model.safetensors"] = hashes["model.safetensors"]

    rewrite(folder, change)
    with pytest.raises(WeightsError, match="golden output differs by"):
        weights.load(str(folder))


def test_an_unknown_architecture_is_refused_with_the_known_ones(folder: Path) -> None:
    """An id that our code does not build is no way to run other code."""
    rewrite(folder, lambda card: card["architecture"].update(id="os.system"))
    with pytest.raises(WeightsError, match=r"unknown architecture 'os\.system'; known: bf-rae, coarse-dae"):
        weights.load(str(folder))


def test_arguments_that_the_weights_do_not_fit_are_refused(folder: Path) -> None:
    """The network is built by the card, and the weights must fit it exactly."""
    rewrite(folder, lambda card: card["architecture"]["arguments"].update(widths=[8, 24]))
    with pytest.raises(WeightsError, match="does not fit"):
        weights.load(str(folder))
    rewrite(folder, lambda card: card["architecture"]["arguments"].update(wide=True))
    with pytest.raises(WeightsError, match="refuses its arguments"):
        weights.load(str(folder))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "golden/../../x", "a\\b", "", ".", "..", "a\nb"]
)
def test_a_listed_file_name_that_leads_elsewhere_is_refused(folder: Path, name: str) -> None:
    """The card cannot make the loader read outside of its folder."""
    rewrite(folder, lambda card: card["files"].update({name: "0" * 64}))
    with pytest.raises(WeightsError, match="leads out of the folder"):
        weights.load(str(folder))


@pytest.mark.parametrize(
    "name", ["small/../small/1.2.3", "small/..", "..", "nothing", "small/9.9.9", "small/1.2", "", "a\0b"]
)
def test_a_name_that_is_no_model_is_refused_with_the_names_there_are(folder: Path, name: str) -> None:
    """Names reach the zoo's folders only by their pattern."""
    with pytest.raises(WeightsError, match=r"the zoo has: small/1\.2\.3"):
        weights.resolve(name, zoo=folder.parents[1])


def test_a_name_means_the_newest_version_by_number(tmp_path: Path) -> None:
    """1.10.0 is newer than 1.9.0, and a version pins."""
    for version in ("1.9.0", "1.10.0", "0.99.0"):
        save(tmp_path / "small" / version, version=version)
    assert weights.resolve("small", zoo=tmp_path).name == "1.10.0"
    assert weights.resolve("small/1.9.0", zoo=tmp_path).name == "1.9.0"
    assert [found.name for found in weights.list_models(tmp_path)] == ["0.99.0", "1.9.0", "1.10.0"]


def test_a_folder_is_found_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute, relative and climbing paths to a model folder are paths."""
    monkeypatch.chdir(folder.parent)
    for path in (str(folder), "./1.2.3", "../small/1.2.3"):
        assert weights.resolve(path) == folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "Up/../per"}, "name"),
        ({"version": "1"}, "version"),
        ({"kind": "oracle"}, "kind"),
        ({"golden_tolerance": 0}, "golden_tolerance"),
        ({"golden_tolerance": float("inf")}, "golden_tolerance"),
        ({"architecture": {"id": "coarse-dae"}}, "architecture"),
    ],
)
def test_a_card_that_says_too_little_is_not_written(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """Saving checks what loading would refuse, and leaves nothing behind."""
    with pytest.raises((WeightsError, ValueError), match=rf"(?i){sentence}|out of range|JSON"):
        save(tmp_path / "bad" / "1.2.3", **change)
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_folder_is_never_replaced(folder: Path) -> None:
    """Changed weights are a new version."""
    before = (folder / "model.json").read_bytes()
    with pytest.raises(WeightsError, match="new version"):
        save(folder)
    assert (folder / "model.json").read_bytes() == before


def test_pickled_arrays_are_refused(tmp_path: Path, folder: Path) -> None:
    """No file of a model can carry code."""
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    data = (tmp_path / "evil.npy").read_bytes()
    (folder / "golden/input.npy").write_bytes(data)
    rewrite(folder, lambda card: card["files"].update({"golden/input.npy": sha256(data).hexdigest()}))
    with pytest.raises(WeightsError, match="not a plain array"):
        weights.load(str(folder))


def test_every_shipped_model_is_sound_and_small() -> None:
    """What the zoo ships can be used, and each stays below 8 MB."""
    folders = weights.list_models()
    assert folders
    for folder in folders:
        assert weights.verify(folder) == [], folder
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6

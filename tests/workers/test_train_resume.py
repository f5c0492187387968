"""`aenode train`: options without effect are refused, and --resume holds a run to its word."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import weights
from models.cases import Case
from models.train import SETTINGS, Stopped, TrainSettings
from tests.workers.models_made import anomaly_folder, denoiser_folder
from tests.workers.test_cli_models import run
from workers import asked
from workers.cli import train
from workers.request import Request, TrainingRefused, command_again, precision

SHIPPED = f"ct-anomaly/{weights.read_card(weights.resolve('ct-anomaly'))['version']}"
PEOPLE = [
    Case(name, "made", "CT", np.full((2, 8, 8), number, np.float32), np.zeros((2, 8, 8), bool), (1.0, 1.0))
    for number, name in enumerate("abc")
]


@pytest.fixture
def began(tmp_path: Path) -> Request:
    """A run that was begun with everything but its usual value, and stopped before its first step."""
    (tmp_path / "data").mkdir()
    given = {
        "data": (tmp_path / "data",),
        "steps": 40,
        "seed": 7,
        "version": "2.0.0",
        "loss": "charbonnier",
        "device": "cpu",
        "pixel_mm": 0.8,
        "volume": "T1.nii.gz",
        "lineage": {"licence": "ours"},
        "about": "about.toml",
    }
    request = asked.request_of("ct-anomaly", tmp_path / "run", given, resume=False)
    settings = asdict(TrainSettings(steps=40, seed=7))
    asked.keep(request, settings, 40, None, {"training": PEOPLE[:2], "test": PEOPLE[2:]})
    (request.out / SETTINGS).write_text('{"git": "unknown"}')
    return request


def test_resume_takes_what_is_not_given_from_the_run(began: Request) -> None:
    """Name and folder are enough; what is given again may be, where it is the same."""
    found = asked.request_of("ct-anomaly", began.out, {}, resume=True)
    assert found == replace(began, resume=True)
    assert asked.kept_settings(found, TrainSettings) == TrainSettings(steps=40, seed=7)
    asked.require_same(asked.request_of("ct-anomaly", began.out, {"seed": 7, "steps": 40}, resume=True))


def test_a_gpu_is_used_where_there_is_one(began: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its precision and compiled steps come with it; a run that began on one does not go on without."""
    given = {"data": began.data}
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(asked, "can_compile", lambda device: device == "cuda")
        found = asked.request_of("ct-anomaly", began.out, given, resume=False)
        assert (found.device, found.compiled, precision(found)) == ("cuda", True, "bfloat16")
        plain = asked.request_of("ct-anomaly", began.out, given | {"compiled": False}, resume=False)
        assert not plain.compiled
    asked.keep(found, asdict(TrainSettings(steps=4, device="cuda")), 4, None, {"training": PEOPLE})
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        assert asked.request_of("ct-anomaly", began.out, given, resume=False).device == "cpu"
        said = run(train, "ct-anomaly", "--out", began.out, "--resume")
    assert said.exit_code == 1 and "no such GPU" in said.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--seed", 1), "--seed 1 is asked, and the run in {out} began with 7"),
        (("--data", "{out}"), "--data {out} is asked, and the run in {out} began with {data}"),
        (("--test", "{data}"), "--test {data} is asked, and the run in {out} began with none"),
        (("--steps", 41), "--steps 41 is asked, and the run in {out} began with 40"),
        (("--minutes", 5), "--minutes 5.0 is asked, and the run in {out} began with none"),
        (("--version", "1.0.0"), "--version 1.0.0 is asked, and the run in {out} began with 2.0.0"),
        (("--loss", "mse"), "--loss mse is asked, and the run in {out} began with charbonnier"),
        (("--pixel-mm", 1), "--pixel-mm 1.0 is asked, and the run in {out} began with 0.8"),
        (("--volume", "T2.nii"), "--volume T2.nii is asked, and the run in {out} began with T1.nii.gz"),
        (("--from", SHIPPED), f"--from {SHIPPED} is asked, and the run in {{out}} began with"),
        (("--compiled",), "--compiled on is asked, and the run in {out} began with off"),
        (("--about", "{about}"), '--about {{"licence": "theirs"}} is asked'),
    ],
)
def test_resume_refuses_what_differs_with_both_values(
    began: Request, tmp_path: Path, words: tuple[object, ...], sentence: str
) -> None:
    """One sentence names the option; the folder stays as it was."""
    (tmp_path / "about.toml").write_text('licence = "theirs"')
    places = {"out": began.out, "data": began.data[0], "about": tmp_path / "about.toml"}
    before = (began.out / asked.REQUEST).read_bytes()
    said = run(train, "ct-anomaly", "--out", began.out, "--resume", *(f"{w}".format(**places) for w in words))
    assert said.exit_code == 1
    assert sentence.format(**places) in said.stderr
    assert (began.out / asked.REQUEST).read_bytes() == before


def test_resume_refuses_other_people_and_other_images(began: Request) -> None:
    """Who moved from one part to another, or whose pixels changed, is no longer what was begun with."""
    request = replace(began, resume=True)
    parts = {"training": PEOPLE[1::-1], "test": PEOPLE[2:]}
    asked.keep(request, {}, 40, None, parts)
    with pytest.raises(TrainingRefused, match="the training part is not the one"):
        asked.keep(request, {}, 40, None, parts | {"training": PEOPLE[1:]})
    changed = replace(PEOPLE[2], volume=PEOPLE[2].volume + 1)
    with pytest.raises(TrainingRefused, match="the test part is not the one"):
        asked.keep(request, {}, 40, None, parts | {"test": [changed]})


def test_resume_refuses_folders_that_cannot_go_on(began: Request, tmp_path: Path) -> None:
    """Another recipe's, a damaged one, one of an older version, an empty one, and a file."""

    def refused(out: Path, name: str = "ct-anomaly") -> str:
        said = run(train, name, "--out", out, "--resume")
        assert (said.exit_code, said.stdout) == (1, "")
        assert said.stderr.count("\n") == 1
        return said.stderr

    assert "holds a run of ct-anomaly, not of ct-denoise" in refused(began.out, "ct-denoise")
    (began.out / SETTINGS).write_text("{")
    assert f"{began.out / SETTINGS} is damaged" in refused(began.out)
    (began.out / asked.REQUEST).write_text("[]")
    assert f"{began.out / asked.REQUEST} is damaged" in refused(began.out)
    (began.out / asked.REQUEST).unlink()
    assert "does not say what was asked" in refused(began.out)
    assert "holds no run to resume" in refused(tmp_path)
    (tmp_path / "file").write_text("")
    said = run(train, "ct-anomaly", "--data", began.data[0], "--out", tmp_path / "file" / "run")
    assert said.exit_code == 1
    assert f"{tmp_path / 'file'}" in said.stderr and "Not a directory" in said.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ct-anomaly", "--noisy"), "--noisy is for denoisers, not for ct-anomaly"),
        (("ct-denoise", "--noisy", "--loss", "mse", "--test", "{data}"), "--noisy has its own loss"),
        (("ct-denoise", "--noisy"), "name some of others by --test"),
        (("mr-denoise", "--loss", "bce"), "--loss bce is not for mr-denoise: mse or charbonnier is"),
        (("ct-anomaly", "--steps", "9", "--minutes", "1"), "--minutes or --steps, not both"),
        (("ct-anomaly", "--from", "{anomaly}"), "is for another modality than ct-anomaly"),
        (("mr-denoise", "--from", "{anomaly}"), "is another kind of model than mr-denoise"),
        (("ct-denoise", "--from", "{mr}"), "is for another modality than ct-denoise"),
    ],
)
def test_options_without_effect_are_refused_before_data_are_read(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    """The data folder is empty, which nobody comes to see."""
    (tmp_path / "data").mkdir()
    models = {"anomaly": tmp_path / "anomaly", "mr": tmp_path / "mr", "data": tmp_path / "data"}
    if "{anomaly}" in words:
        anomaly_folder(models["anomaly"], modality="MR")
    if "{mr}" in words:
        denoiser_folder(models["mr"], modality="MR")
    typed = [word.format(**models) for word in words]
    said = run(train, *typed, "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert said.exit_code == 1
    assert sentence in said.stderr


def test_compiling_without_a_compiler_is_refused(began: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler that CXX names is the one that counts."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = run(train, "ct-anomaly", "--data", began.data[0], "--out", began.out / "new", "--compiled")
    assert said.exit_code == 1
    assert "--compiled needs g++" in said.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("--data", ".", "--version", "1.0"), "'1.0' is not like 1.2.3"), ((), "Missing option '--data'")],
)
def test_a_wrong_version_and_absent_data_are_wrong_use(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    """Both are said before anything is done."""
    said = run(train, "ct-anomaly", "--out", tmp_path / "run", *words)
    assert said.exit_code == 2
    assert sentence in said.stderr
    assert not (tmp_path / "run").exists()


def test_a_stop_says_how_to_go_on(began: Request, tmp_path: Path) -> None:
    """The command can be pasted; before the run was written down there is none."""
    out = began.out.rename(tmp_path / "my run")
    again = f"go on with: aenode train ct-anomaly --out '{out}' --resume"
    assert asked.stopped("ct-anomaly", out, Stopped(3, 40)) == f"stopped after 3 of 40 steps; {again}"
    assert asked.stopped("ct-anomaly", out, KeyboardInterrupt()) == f"stopped; {again}"
    assert "before there was anything" in asked.stopped("ct-anomaly", tmp_path, KeyboardInterrupt())


def test_the_card_s_command_does_it_again(began: Request) -> None:
    """Steps instead of minutes, the version, and no folder of the site."""
    request = replace(began, steps=None, minutes=30.0, start=SHIPPED)
    assert command_again(request, 812) == (
        "aenode train ct-anomaly --data data --pixel-mm 0.8 --volume T1.nii.gz --steps 812 --seed 7 "
        f"--version 2.0.0 --from {SHIPPED} --loss charbonnier --device cpu --about about.toml"
    )
    gpu = replace(request, device="cuda:1", start="/site/runs/ours/model")
    assert "--from model" in command_again(gpu, 812)
    assert "--no-compiled --device cuda" in command_again(gpu, 812)

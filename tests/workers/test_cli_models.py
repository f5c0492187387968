"""The commands train, evaluate, models and work, as a person types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from click.testing import CliRunner, Result
from PIL import Image

from models import train as loop
from models import weights
from node.errors import ConfigError
from tests.interrupts import press_ctrl_c
from tests.peers import RedisServer
from tests.series import series, write
from workers.cli import evaluate, models, train, work


def thorax_folder(folder: Path, people: int) -> Path:
    """Small CT series of several people."""
    for person in range(people):
        images = series(3, 64, seed=person, study=f"s{person}", spacing=(4.0, 4.0))
        for ds in images:
            ds.PatientID = f"P{person}"
        write(folder / f"p{person}", images)
    return folder


def run(command: object, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])  # type: ignore[arg-type]  # a command


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A run of four steps that Ctrl-C ends in the third: its folder, its data and what the command said."""
    data = thorax_folder(tmp_path_factory.mktemp("data"), 4)
    out = tmp_path_factory.mktemp("runs") / "ours"
    usual = loop._rate

    def interrupted(settings: loop.TrainSettings, step: int) -> float:
        if step == 2:
            press_ctrl_c()
        return usual(settings, step)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "_rate", interrupted)
        said = run(train, "ct-anomaly", "--data", data, "--out", out, "--steps", 4, "--seed", 3)
    return out, data, said


@pytest.fixture(scope="module")
def trained(stopped: tuple[Path, Path, Result]) -> tuple[Path, Path, Result]:
    """The same run, gone on with to its end, and what that command said."""
    out, data, _ = stopped
    return out, data, run(train, "ct-anomaly", "--out", out, "--resume", "--json")


def test_ctrl_c_says_how_to_go_on(stopped: tuple[Path, Path, Result]) -> None:
    """The step is kept, and the command can be pasted."""
    out, _, said = stopped
    assert said.exit_code == 1
    assert f"after 3 of 4 steps; go on with: aenode train ct-anomaly --out {out} --resume" in said.stderr
    assert (out / loop.STATE).is_file()


def test_training_ends_in_a_model_with_a_card(trained: tuple[Path, Path, Result]) -> None:
    """One command reads DICOM, trains, calibrates, measures and writes a model that loads."""
    out, _, said = trained
    assert said.exit_code == 0, said.stderr
    card = json.loads(said.stdout)
    model = weights.load(str(out / "model"))
    assert model.card == card
    assert card["trained_people"] == 2
    assert card["calibration_people"] == 1
    assert card["metrics"]["normals"]["people"] == 1
    assert "training" in said.stderr
    assert (out / "curves.csv").is_file()
    assert (out / "curves.png").is_file()
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "best.png",
        "median.png",
        "worst.png",
    ]
    text = (out / "model" / "CARD.md").read_text()
    assert "aenode train ct-anomaly" in text
    assert str(out.parent) not in text


def test_a_run_folder_is_not_overwritten(trained: tuple[Path, Path, Result]) -> None:
    """A finished run is left alone, with or without --resume."""
    out, data, _ = trained
    for extra in ([], ["--resume"]):
        said = run(train, "ct-anomaly", "--data", data, "--out", out, "--steps", 4, *extra)
        assert said.exit_code == 1
        assert "holds a finished model" in said.stderr


def test_a_stopped_run_goes_on_as_it_began_or_not_at_all(
    trained: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    """--resume alone has the seed, the people of each part and the card of the run; others are refused."""
    out, data, _ = trained
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "model")
    said = run(train, "ct-anomaly", "--data", data, "--out", again, "--seed", 3)
    assert said.exit_code == 1
    assert "--resume" in said.stderr
    person = data / "p1"
    person.rename(tmp_path / "away")
    assert "part is not the one" in run(train, "ct-anomaly", "--out", again, "--resume").stderr
    (tmp_path / "away").rename(person)
    said = run(train, "ct-anomaly", "--out", again, "--resume")
    assert said.exit_code == 0, said.stderr
    first, second = weights.load(str(out / "model")), weights.load(str(again / "model"))
    assert first.weights_sha256 == second.weights_sha256
    assert first.card["metrics"] == second.card["metrics"]
    command = second.card["lineage"]["command"]
    assert command == first.card["lineage"]["command"]
    assert "--steps 4 --seed 3 --version 0.1.0" in command and "--minutes" not in command


def test_evaluation_prints_and_writes_the_figures_of_the_card(
    trained: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    """The figures stand beside the baselines, on standard output and in the file."""
    out, data, _ = trained
    target = tmp_path / "figures.json"
    seen = tmp_path / "seen"
    words = ("--out", target, "--pictures", seen, "--json")
    said = run(evaluate, out / "model", "--data", data / "p0", *words)
    assert said.exit_code == 0, said.stderr
    figures = json.loads(said.stdout)
    assert figures == json.loads(target.read_text())
    assert figures["normals"]["slices"] == 3
    rows = 1 + len(figures["lesions"])
    for name in ("worst", "median", "best"):
        with Image.open(seen / f"{name}.png") as picture:
            assert picture.size == (1600, 440 * rows)
    shown = run(evaluate, out / "model", "--data", data / "p0", "--out", target)
    assert "normal people: 1" in shown.stdout


def test_people_in_both_parts_are_refused(tmp_path: Path) -> None:
    """Figures on people who were trained on would be worthless."""
    data = thorax_folder(tmp_path / "data", 3)
    said = run(
        train, "ct-anomaly", "--data", data, "--test", data / "p1", "--out", tmp_path / "r", "--steps", 4
    )
    assert said.exit_code == 1
    assert "in the training data and in the test data" in said.stderr


def test_too_few_people_are_refused_with_a_sentence(tmp_path: Path) -> None:
    """Training, calibration and test need a person each."""
    data = thorax_folder(tmp_path / "data", 2)
    said = run(train, "ct-anomaly", "--data", data, "--out", tmp_path / "run", "--steps", 4)
    assert said.exit_code == 1
    assert "2 people cannot be divided into 3 parts" in said.stderr


def test_wrong_use_is_exit_code_2(tmp_path: Path) -> None:
    """An unknown model, an absent folder and an unknown entry of --about are wrong use."""
    (tmp_path / "about.toml").write_text('colour = "blue"\n')
    assert run(train, "ct-magic", "--data", tmp_path, "--out", tmp_path / "r").exit_code == 2
    assert run(train, "ct-anomaly", "--data", tmp_path / "no", "--out", tmp_path / "r").exit_code == 2
    said = run(
        train, "ct-anomaly", "--data", tmp_path, "--out", tmp_path / "r", "--about", tmp_path / "about.toml"
    )
    assert said.exit_code == 2
    assert "colour" in said.stderr


def test_an_unknown_model_is_said_with_those_there_are(tmp_path: Path) -> None:
    """The sentence lists the zoo."""
    for said in (run(evaluate, "no-such", "--data", tmp_path), run(models, "show", "no-such")):
        assert said.exit_code == 1
        assert "the zoo has" in said.stderr


def test_models_are_listed_shown_and_verified() -> None:
    """Each shipped model is in the list, has a card and is sound."""
    listed = json.loads(run(models, "list", "--json").stdout)
    assert {"ct-anomaly", "brain-mr-anomaly"} <= {row["model"].partition("/")[0] for row in listed}
    assert all(row["usable"] for row in listed)
    assert "ct-anomaly" in run(models, "list").stdout
    shown = run(models, "show", "ct-anomaly")
    assert shown.exit_code == 0
    assert "not for primary diagnosis" in shown.stdout
    assert json.loads(run(models, "show", "ct-anomaly", "--json").stdout)["name"] == "ct-anomaly"
    verified = run(models, "verify", "ct-anomaly", "--json")
    assert verified.exit_code == 0
    newest = weights.resolve("ct-anomaly").name
    assert json.loads(verified.stdout) == {f"ct-anomaly/{newest}": []}


def test_a_damaged_model_fails_verification(trained: tuple[Path, Path, Result], tmp_path: Path) -> None:
    """The file is named, and the exit code is 1."""
    damaged = tmp_path / "damaged"
    shutil.copytree(trained[0] / "model", damaged)
    with (damaged / "calibration.npz").open("ab") as stream:
        stream.write(b"\0")
    said = run(models, "verify", damaged)
    assert said.exit_code == 1
    assert "calibration.npz was changed" in said.stdout


@pytest.mark.parametrize("command", [train, evaluate, models, work])
def test_each_command_s_help_has_an_example(command: object) -> None:
    """--help shows how to type it."""
    said = run(command, "--help")
    assert said.exit_code == 0
    assert "Example" in said.stdout
    assert "aenode " in said.stdout


def test_work_refuses_settings_that_are_wrong(tmp_path: Path) -> None:
    """A bad settings file and a bad device are said before anything starts."""
    config = tmp_path / "config.toml"
    config.write_text("[workers]\nprocesses = 0\n")
    assert isinstance(run(work, "--config", config).exception, ConfigError)
    config.write_text("")
    said = run(work, "--config", config, "--device", "abacus")
    assert said.exit_code == 2
    assert "abacus" in said.stderr


def test_a_worker_starts_on_redis_and_ends_on_sigterm(tmp_path: Path, redis_server: RedisServer) -> None:
    """`aenode work` consumes the node's queue, and SIGTERM ends it with exit code 0."""
    config = tmp_path / "config.toml"
    config.write_text(f'[node]\ndata = "data"\n[broker]\nurl = "{redis_server.url}"\n')
    (tmp_path / "data").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "work", "--config", str(config), "--concurrency", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        client = redis.Redis.from_url(redis_server.url)
        deadline = time.monotonic() + 60
        # Celery binds the queue that it consumes to its exchange.
        while not client.smembers("_kombu.binding.aenode"):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the worker never came to its queue"
            time.sleep(0.1)
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_notes_say_what_was_left_out(trained: tuple[Path, Path, Result], tmp_path: Path) -> None:
    """What is not read is named on standard error."""
    folder = tmp_path / "mixed"
    write(folder, series(3, 64, spacing=(4.0, 4.0)))
    (folder / "stray.bin").write_bytes(b"nothing")
    said = run(
        evaluate, trained[0] / "model", "--data", folder, "--out", tmp_path / "f.json", "--seed", np.int64(2)
    )
    assert said.exit_code == 0, said.stderr
    assert "stray.bin is no DICOM file" in said.stderr

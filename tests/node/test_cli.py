"""The command line: help with examples, exit codes, JSON, and clear sentences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom.uid import Comprehensive3DSRStorage

from node.cli import aenode
from tests import series
from tests.peers import Orthanc, free_port

CONFIG = """\
[node]
data = "data"
[[peers]]
name = "archive"
ae_title = "ORTHANC"
address = "127.0.0.1:{port}"
[[pipelines]]
name = "p"
model = "ct-denoise"
outputs = ["derived"]
[[rules]]
name = "thin chest"
when = {{ Modality = "CT", BodyPartExamined = ["CHEST", "THORAX"], SliceThickness = "<= 2.5" }}
pipelines = ["p"]
send_to = ["archive"]
[[rules]]
name = "heads"
when = {{ BodyPartExamined = "HEAD", calling_ae = "CT1" }}
pipelines = ["p"]
send_to = ["archive"]
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `aenode` as a person does."""
    command = [sys.executable, "-m", "node", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A right settings file with two rules."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(port=free_port()))
    return file


@pytest.mark.parametrize("command", aenode.list_commands(None))  # type: ignore[arg-type]  # the list needs no context
def test_each_command_explains_itself_with_an_example(command: str) -> None:
    """--help exits 0, says what it does, and shows a line to copy."""
    shown = CliRunner().invoke(aenode, [command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Example" in shown.stdout
    assert f" {command}" in shown.stdout.split("Example")[1]


def test_the_list_of_commands_needs_no_torch() -> None:
    """A machine that only receives loads none of the worker's packages."""
    program = "import sys\nfrom node.commands import run, ask, mend, send\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert "receive" in run("--help").stdout


def test_an_unknown_command_is_wrong_use() -> None:
    """Exit code 2, and the name that was wrong."""
    assert run("recieve").returncode == 2
    assert "recieve" in run("recieve").stderr


def test_check_lists_every_mistake_and_exits_2(tmp_path: Path) -> None:
    """In text and in JSON."""
    file = tmp_path / "config.toml"
    file.write_text('[node]\nae_title = ""\nbind = "x"\n[workers]\ndevice = "tpu"\n')
    shown = run("check", "--config", file)
    assert shown.returncode == 2
    assert [line.split(":")[1] for line in shown.stderr.splitlines()] == ["2", "3", "5"]
    problems = json.loads(run("check", "--config", file, "--json").stdout)["problems"]
    assert [p["setting"] for p in problems] == ["node.ae_title", "node.bind", "workers.device"]


def test_a_command_with_a_bad_file_says_so_without_a_traceback(tmp_path: Path) -> None:
    """Every command that reads settings exits 2 with the file's mistakes."""
    file = tmp_path / "config.toml"
    file.write_text("[node]\nport = 1\n")
    for command in (["up"], ["receive"], ["route"], ["status"], ["find", "x"], ["requeue", "--all"]):
        shown = run(*command, "--config", file)
        assert shown.returncode == 2, command
        assert shown.stderr.startswith(f"{file}:2: node.port: no such setting")


def test_check_asks_the_peers(config: Path, orthanc: Orthanc) -> None:
    """--peers sends a C-ECHO to each peer with an address."""
    silent = run("check", "--config", config, "--peers")
    assert silent.returncode == 1
    assert "archive" in silent.stdout
    config.write_text(CONFIG.format(port=orthanc.port))
    assert run("check", "--config", config, "--peers").returncode == 0


def test_explain_names_the_attribute_that_failed(config: Path, tmp_path: Path) -> None:
    """For each rule: it matches, or which attribute of which value did not."""
    files = series.write(tmp_path / "in", series.series(3, step=2.0))
    shown = run("explain", *files, "--config", config)
    assert shown.returncode == 0, shown.stderr
    assert "thin chest: matches" in shown.stdout
    assert "BodyPartExamined is CHEST" in shown.stdout
    assert "calling_ae" in shown.stdout
    thick = series.write(tmp_path / "thick", series.series(3, step=5.0))
    verdicts = json.loads(run("explain", *thick, "--config", config, "--json").stdout)[0]["rules"]
    assert [v["matched"] for v in verdicts] == [False, False]
    assert verdicts[0]["failures"][0]["attribute"] == "SliceThickness"


def test_explain_says_that_no_rule_is_asked_about_what_is_no_image(config: Path, tmp_path: Path) -> None:
    """As the router does it, whatever the rules say."""
    report = series.series(1)[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    (file,) = series.write(tmp_path / "in", [report])
    shown = run("explain", file, "--config", config)
    assert shown.returncode == 1
    assert "no images, so no rule is asked: Comprehensive 3D SR Storage" in shown.stdout


def test_explain_names_a_file_that_is_no_dicom(config: Path, tmp_path: Path) -> None:
    """A text file is named, not a traceback."""
    (tmp_path / "notes.txt").write_text("hello")
    shown = run("explain", tmp_path / "notes.txt", "--config", config)
    assert shown.returncode == 1
    assert "notes.txt: not read as DICOM" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_status_and_find_of_an_empty_node(config: Path) -> None:
    """Nothing is known yet: status exits 0, find 1."""
    assert json.loads(run("status", "--config", config, "--json").stdout)["instances"] == 0
    shown = run("find", "1.2.3", "--config", config)
    assert shown.returncode == 1
    assert "nothing is known of 1.2.3" in shown.stderr


def test_requeue_wants_to_be_told_what(config: Path) -> None:
    """Wrong use is exit 2; nothing to requeue is exit 1."""
    assert run("requeue", "--config", config).returncode == 2
    assert run("requeue", "--config", config, "--peer", "nobody").returncode == 2
    assert run("requeue", "--config", config, "--all").returncode == 1


def test_send_reaches_a_real_archive(config: Path, tmp_path: Path, orthanc: Orthanc) -> None:
    """Files and folders, to a peer by name or to an address; what is no DICOM is named and the rest goes."""
    series.write(tmp_path / "in", series.series(3))
    (tmp_path / "in" / "notes.txt").write_text("hello")
    config.write_text(CONFIG.format(port=orthanc.port))
    shown = run("send", tmp_path / "in", "--to", "archive", "--config", config)
    assert shown.returncode == 1
    assert "3 of 4 sent" in shown.stdout
    assert "notes.txt" in shown.stderr
    assert len(orthanc.instances()) == 3
    again = run("send", tmp_path / "in" / "0000.dcm", "--address", orthanc.address, "--called-ae", "ORTHANC")
    assert again.returncode == 0, again.stderr
    assert run("send", tmp_path / "in", "--config", config).returncode == 2


def test_a_second_up_on_the_same_data_is_refused(config: Path) -> None:
    """Two routers on one data folder would do everything twice."""
    port = free_port()
    config.write_text(CONFIG.format(port=port).replace("[node]", f'[node]\nbind = "127.0.0.1:{port}"'))
    command = [sys.executable, "-m", "node", "up", "--config", str(config), "--without", "work"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "receive started" in line:
                break
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        first.terminate()
        first.stderr.read()
    assert second.returncode == 1
    assert "another `aenode up` runs" in second.stderr
    assert first.returncode == 0

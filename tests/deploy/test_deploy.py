"""The container and service files, held against the tools that read them and the code that they start."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from node.cli import aenode
from node.config import Settings
from node.config_file import load
from node.supervise import USAGE, children_of
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yml"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
INSTALLED = "/opt/aenode/.venv/bin/aenode"
GUIDE = (DEPLOY / "administrators-guide.md").read_text()


def check_command(words: list[str]) -> None:
    """Fail unless `aenode` has this command with these options."""
    context = click.Context(aenode)
    command: click.Command | None = aenode
    for number, word in enumerate(words):
        if not isinstance(command, click.Group):
            break
        command = command.get_command(context, word)
        assert command is not None, f"aenode has no command {' '.join(words[: number + 1])!r}"
    assert command is not None
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    used = {word for word in words if word.startswith("-")}
    assert used <= known, f"aenode {words[0]} has no {used - known}"


# --- compose ---


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, as Compose itself reads them."""
    program = shutil.which("docker-compose")
    assert program, "docker-compose is missing: apt-get install docker-compose"
    read = subprocess.run(
        [program, "--file", str(COMPOSE), "config"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert read.returncode == 0, read.stderr
    assert "WARN" not in read.stderr.upper(), read.stderr
    services: dict[str, Any] = yaml.safe_load(read.stdout)["services"]
    return services


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The settings that the containers get."""
    return load(DEPLOY / "container.toml")


def test_compose_reads_its_file(services: dict[str, Any]) -> None:
    """There is Redis, a node and a worker, and nothing needs what is not there."""
    assert set(services) == {"redis", "node", "worker"}
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services) - {name}
        assert service["healthcheck"]["test"], name


@pytest.mark.parametrize("name", ["node", "worker"])
def test_a_container_starts_a_command_that_there_is(services: dict[str, Any], name: str) -> None:
    """Command and options exist."""
    check_command(services[name]["command"])


@pytest.mark.parametrize("name", ["node", "worker"])
def test_a_container_sees_the_data_folder_and_the_settings(
    services: dict[str, Any], settings: Settings, name: str
) -> None:
    """Both mount the same volume where the settings say, and the settings where the image looks."""
    source = yaml.safe_load(COMPOSE.read_text())
    mounts = dict(mount.split(":")[:2] for mount in source["services"][name]["volumes"])
    assert mounts["data"] == str(settings.node.data)
    assert (COMPOSE.parent / "container.toml").is_file()
    assert mounts["./container.toml"] == environment(name)["AENODE_CONFIG"]
    assert "data" in source["volumes"]
    assert services[name]["read_only"] is True


def test_ports_and_addresses_agree_with_the_settings(services: dict[str, Any], settings: Settings) -> None:
    """The published port and the health checks are those of container.toml; Redis is found by its name."""
    port = settings.node.bind.rpartition(":")[2]
    source = yaml.safe_load(COMPOSE.read_text())["services"]
    assert source["node"]["ports"] == [f"{port}:{port}"]
    assert port in services["node"]["healthcheck"]["test"][-1]
    assert f"EXPOSE {port}" in dockerfile("node")
    assert settings.broker.url == "redis://redis:6379/0"
    assert f"--broker {settings.broker.url} " in services["worker"]["healthcheck"]["test"][-1]


def test_only_the_worker_asks_for_a_gpu(services: dict[str, Any]) -> None:
    """One NVIDIA GPU."""
    (gpu,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (gpu["driver"], gpu["count"], gpu["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "deploy" not in services["node"]


def test_the_containers_settings_name_shipped_models(settings: Settings) -> None:
    """Each pipeline's model is in the worker's image."""
    for pipeline in settings.pipelines:
        assert (ROOT / "models" / "zoo" / pipeline.model).is_dir(), pipeline.model


def test_containers_have_time_to_stop(settings: Settings) -> None:
    """Longer than `aenode up` itself waits for its children."""
    longest = sum(child.stop_seconds for child in children_of(settings, Path("c"), ["receive", "route"]))
    node = yaml.safe_load(COMPOSE.read_text())["services"]["node"]
    assert longest < 60 * int(node["stop_grace_period"].removesuffix("m"))


# --- images ---


def dockerfile(name: str) -> str:
    return (DEPLOY / f"Dockerfile.{name}").read_text()


def instructions(name: str) -> list[tuple[str, str]]:
    joined = dockerfile(name).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def environment(name: str) -> dict[str, str]:
    words = " ".join(rest for word, rest in instructions(name) if word == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(words))


@pytest.mark.parametrize("name", ["node", "worker"])
def test_an_image_is_built_of_what_there_is(name: str) -> None:
    """Every source exists and passes .dockerignore, and every extra is one of pyproject.toml."""
    passed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word, rest in instructions(name):
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source.removeprefix("./")).exists(), source
                assert source in passed
        for extra in re.findall(r'"\.\[(\w+)\]"', rest):
            assert extra in extras


@pytest.mark.parametrize("name", ["node", "worker"])
def test_an_image_runs_an_aenode_command_as_an_ordinary_user(name: str) -> None:
    """USER comes before the entry point and is not root."""
    words = [word for word, _ in instructions(name)]
    last = dict(instructions(name))
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert last["USER"] not in ("root", "0")
    assert last["ENTRYPOINT"] == '["aenode"]'
    check_command(yaml.safe_load(last["CMD"]))


def test_the_nodes_image_holds_no_torch() -> None:
    """It installs no worker extra and gets neither workers nor models."""
    copied = " ".join(rest for word, rest in instructions("node") if word == "COPY")
    assert "[worker" not in dockerfile("node")
    assert "workers" not in copied
    assert "models" not in copied


# --- systemd ---


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with the path of this installation, for tools that look whether the program is there."""
    folder = tmp_path_factory.mktemp("units")
    here = str(Path(sys.executable).with_name("aenode"))
    for unit in UNITS:
        (folder / unit.name).write_text(unit.read_text().replace(INSTALLED, here))
    return folder


def systemd_analyze(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt-get install systemd"
    run = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stderr


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    """No error and no warning that names one of them."""
    said = systemd_analyze("verify", *(str(unit) for unit in sorted(units.iterdir())))
    assert "aenode" not in said, said


def test_a_broken_unit_would_be_found(units: Path) -> None:
    """The check above can fail."""
    broken = units.parent / "aenode-broken.service"
    broken.write_text(
        (units / "aenode-route.service").read_text().replace("Restart=on-failure", "Restart=maybe")
    )
    with pytest.raises(AssertionError):
        said = systemd_analyze("verify", str(broken))
        assert "aenode" not in said


@pytest.mark.parametrize(
    ("name", "threshold"), [("aenode-receive", 20), ("aenode-route", 20), ("aenode-work", 40)]
)
def test_the_services_are_hardened(units: Path, name: str, threshold: int) -> None:
    """The score of exposure that systemd itself gives, of 100, stays low; the worker's GPU costs some."""
    systemd_analyze(
        "security", "--no-pager", "--offline=true", f"--threshold={threshold}", str(units / f"{name}.service")
    )


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_service_starts_a_command_that_there_is(unit: Path) -> None:
    """ExecStart is an aenode command, a wrong settings file does not make it start again and again."""
    text = unit.read_text()
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert start.startswith(INSTALLED + " ")
    check_command(start.split()[1:])
    assert unit.stem == f"aenode-{start.split()[1]}"
    assert f"RestartPreventExitStatus={USAGE}\n" in text
    assert f"{unit.name}" in (DEPLOY / "systemd" / "aenode.target").read_text()


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_service_has_time_to_stop(unit: Path) -> None:
    """At least as long as `aenode up` gives the same part."""
    part = unit.stem.removeprefix("aenode-")
    settings = Settings.model_validate({"broker": {"url": "redis://127.0.0.1:6379/0"}})
    (child,) = children_of(settings, Path("config.toml"), [part])
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
    assert int(seconds) > child.stop_seconds


# --- the administrator's guide ---


def commands_in(text: str) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in [*lines, *re.findall(r"`([^`\n]+)`", text)] if line.startswith("aenode ")]


@pytest.mark.parametrize("line", sorted(set(commands_in(GUIDE))))
def test_the_guides_commands_exist(line: str) -> None:
    """Each with the options that it is shown with."""
    check_command(shlex.split(line, comments=True)[1:])


def test_the_guides_settings_exist() -> None:
    """Whatever it names as `section.setting`."""
    named = set(re.findall(r"`([a-z]+)\.([a-z_]+)", GUIDE)) - {("index", "sqlite")}
    sections = {name: field.default for name, field in Settings.model_fields.items()}
    checked = {(section, key) for section, key in named if section in sections}
    assert len(checked) > 10
    for section, key in checked:
        assert key in type(sections[section]).model_fields, f"{section}.{key}"


def test_the_guides_files_exist() -> None:
    """Whatever it names below deploy/ and tests/."""
    for name in set(re.findall(r"(?:deploy|tests)/[\w./-]*\w", GUIDE)):
        assert (ROOT / name).exists(), name

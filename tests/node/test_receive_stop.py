"""Stopping and crashing: what was acknowledged is there afterwards, in the spool and in the index."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.config_file import SettingsFile
from node.index import Index
from node.spool import Spool
from node.states import SeriesState
from tests import series
from tests.node import stowing
from tests.node.hostile import Peer
from tests.node.receiver import Receiver, encoded
from tests.peers import LOOPBACK, dcmtk, free_port, listens, wait_for

CT = (CTImageStorage, [ExplicitVRLittleEndian])
ROOT = Path(__file__).parents[2]
RECEIVE = [sys.executable, "-m", "node", "receive", "--config"]
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def sender(port: int, folder: Path) -> subprocess.Popen[str]:
    command = [dcmtk("storescu"), "-aet", "SENDER", "-aec", "AENODE", LOOPBACK, str(port), "+sd", str(folder)]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE)


def test_stop_while_sending(tmp_path: Path) -> None:
    """Told to stop, the receiver takes no new association and lets the running one send all it has."""
    images = series.series(60, 256)
    series.write(tmp_path / "in", images)
    with Receiver(tmp_path) as receiver:
        running = sender(receiver.port, tmp_path / "in")
        wait_for(lambda: len(list(receiver.spool.paths())) > 3, every=0.001)
        receiver.stop.set()
        wait_for(lambda: not listens(receiver.port), what="the port to close")
        early = len(list(receiver.spool.paths()))
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0, said
    assert early < 60, "the stop came too late to show anything"
    index = Index.open(receiver.file.settings)
    [revision] = index.series_in(SeriesState.RECEIVING)
    assert len(index.instances_of(revision.id)) == 60
    arrival = index.arrival_of(revision)
    assert arrival.open_associations == 0 and arrival.last_release_at is not None
    index.close()
    assert list(receiver.spool.root.glob("incoming/*")) == []


def test_stop_ends_idle_associations(tmp_path: Path) -> None:
    """An association that sends nothing is aborted when the receiver stops, long before its idle time."""
    with Receiver(tmp_path, idle_timeout_seconds=60) as receiver, Peer(receiver.port, seconds=30) as idle:
        idle.associate([CT])
        begun = time.monotonic()
        receiver.stop.set()
        assert idle.aborted() == (0, 0)
        assert time.monotonic() - begun < 15


@contextmanager
def process(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`aenode receive` as a process of its own."""
    with (config.parent / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            [*RECEIVE, str(config)],
            stderr=log,
            cwd=ROOT,
        )
    try:
        wait_for(lambda: child.poll() is not None or listens(port), seconds=60, what="the receiver")
        assert child.poll() is None, (config.parent / "log.txt").read_text()
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait(60)


def configure(tmp_path: Path, receive: str = "") -> tuple[Path, int]:
    port, config = free_port(), tmp_path / "config.toml"
    config.write_text(
        f'[node]\nbind = "{LOOPBACK}:{port}"\ndata = "data"\n'
        f'[receive]\nmin_free = "1 MiB"\n{receive}\n[[peers]]\nname = "sender"\nae_title = "SENDER"\n'
    )
    return config, port


def test_killed_while_sending(tmp_path: Path) -> None:
    """After a kill every acknowledged instance is in the spool whole, and the next start lists it."""
    config, port = configure(tmp_path)
    images = series.series(200, 64)
    acknowledged = []
    with process(config, port) as child, Peer(port) as peer:
        peer.associate([CT])
        with pytest.raises((OSError, EOFError)):
            for number, ds in enumerate(images):
                assert peer.store(1, CTImageStorage, ds.SOPInstanceUID, encoded(ds)) == 0
                acknowledged.append(ds.SOPInstanceUID)
                if number == 25:
                    os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert len(acknowledged) >= 26
    _is_whole_and_listed(config, port, acknowledged)


def test_killed_while_a_request_is_under_way(tmp_path: Path) -> None:
    """After a kill what answers had named as stored is in the spool whole, and the next start lists it."""
    config, port = configure(tmp_path)
    web = free_port()
    token = 'name = "sender"\nreceive_token_file = "token"'
    text = config.read_text().replace('name = "sender"', token)
    config.write_text(f'{text}[dicomweb]\nbind = "{LOOPBACK}:{web}"\n')
    (tmp_path / "token").write_text(stowing.TOKEN)
    parts = [stowing.file_of(ds) for ds in series.series(60, 64)]
    acknowledged: list[str] = []
    with process(config, port) as child, requests.Session() as session:
        session.headers.update({"Authorization": f"Bearer {stowing.TOKEN}", "Content-Type": stowing.TYPE})

        def posted(body: object) -> None:
            answer = session.post(f"http://{LOOPBACK}:{web}/studies", data=body, timeout=30)  # type: ignore[arg-type]
            assert answer.status_code == 200
            acknowledged.extend(stowing.referenced(stowing.said(answer)))

        def cut_off() -> Iterator[bytes]:
            whole = stowing.multipart(parts[40:])
            yield whole[: len(whole) // 2]
            os.kill(child.pid, signal.SIGKILL)
            yield whole[len(whole) // 2 :]

        for at in range(0, 40, 4):
            posted(stowing.multipart(parts[at : at + 4]))
        with pytest.raises(requests.RequestException):
            posted(cut_off())
        child.wait()
    assert len(acknowledged) == 40
    _is_whole_and_listed(config, port, acknowledged)


def _is_whole_and_listed(config: Path, port: int, acknowledged: list[str]) -> None:
    """What was acknowledged before a kill lies in the spool, and the next start lists and closes it."""
    file = SettingsFile.open(config)
    kept = list(Spool(file.settings.node.data).walk())
    assert {i.sop_instance_uid for i in kept} >= set(acknowledged)
    assert all(not i.defect for i in kept)
    index = Index.open(file.settings)
    try:
        with process(config, port):
            paths = {i.path for i in kept}
            wait_for(lambda: index.known_paths(paths) == paths, what="the sweep")
            wait_for(lambda: _all_closed(index), what="what the kill left open to be closed")
    finally:
        index.close()
    assert list((file.settings.node.data / "spool" / "incoming").iterdir()) == []


def _all_closed(index: Index) -> bool:
    [revision] = index.series_in(SeriesState.RECEIVING)
    return index.arrival_of(revision).open_associations == 0


def test_several_processes(tmp_path: Path) -> None:
    """Several processes share the port, are started again when killed, and stop together."""
    config, port = configure(tmp_path, "processes = 3")
    web = free_port()
    with config.open("a") as more:
        more.write(f'receive_token_file = "token"\n[dicomweb]\nbind = "{LOOPBACK}:{web}"\n')
    (tmp_path / "token").write_text(stowing.TOKEN)
    for name in "abcd":
        series.write(tmp_path / "in" / name, series.series(4, 64, series=name))
    with process(config, port) as child:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        incoming = tmp_path / "data" / "spool" / "incoming"
        wait_for(lambda: len(list(incoming.glob("*/lock"))) == 3, what="three receivers")
        first = children.read_text().split()
        os.kill(int(first[-1]), signal.SIGKILL)
        wait_for(lambda: set(children.read_text().split()) - set(first), what="a new process")
        senders = [sender(port, tmp_path / "in" / name) for name in "abcd"]
        for running in senders:
            _, said = running.communicate(timeout=60)
            assert running.returncode == 0, said
        assert len(list(Spool(tmp_path / "data").walk())) == 16
        headers = {"Authorization": f"Bearer {stowing.TOKEN}"}
        for _ in range(9):  # the kernel deals them out
            assert requests.options(f"http://{LOOPBACK}:{web}/studies", headers=headers, timeout=10).ok
        child.terminate()
        assert child.wait(60) == 0
    assert not listens(port)


def test_taken_port(tmp_path: Path) -> None:
    """A port that another program holds is an error at once, not a receiver that hears nothing."""
    config, port = configure(tmp_path)
    with process(config, port):
        second = subprocess.run(
            [*RECEIVE, str(config)],
            capture_output=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        assert second.returncode != 0
        assert b"in use" in second.stderr

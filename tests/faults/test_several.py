"""Several machines, as processes that share PostgreSQL, one Redis and one folder."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from node.config import IndexSettings, Node, Settings
from node.config_file import load
from node.index import Index
from tests.faults.parts import Parts, store
from tests.peers import Orthanc, listens, wait_for
from tests.postgresql import PostgreSQL
from tests.series import series, uid, write
from tests.workers.models_made import denoiser_folder


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    """`index.url` of a database without tables."""
    return postgresql.new_url(empty=True)


def open_index(url: str, data: Path) -> Index:
    return Index.open(Settings(node=Node(data=data), index=IndexSettings(url=url)))


def test_a_turn_belongs_to_one_process_and_ends_with_it(url: str, tmp_path: Path) -> None:
    """What one router does to a peer or a job no other does at the same time."""
    first, second = open_index(url, tmp_path), open_index(url, tmp_path)
    turn = first.take_turn("deliver archive")
    assert turn is not None
    turn.check()
    assert second.take_turn("deliver archive") is None
    other = second.take_turn("deliver other")
    assert other is not None
    other.release()
    turn.release()
    again = second.take_turn("deliver archive")
    assert again is not None
    again.release()
    first.close()
    second.close()


@pytest.mark.timeout(170)
@pytest.mark.parametrize("routers", ["one", "several"])
def test_two_of_each_do_every_series_once(url: str, tmp_path: Path, routers: str) -> None:
    """Two receivers, two routers, two workers; one router is killed, and nothing is doubled."""
    with Orthanc(tmp_path / "orthanc") as archive:
        parts = Parts(tmp_path / "node", archive.address, denoiser_folder(tmp_path / "model"), index=url)
        text = parts.config.read_text().replace(
            "lease_seconds = 6", f'lease_seconds = 4\nrouters = "{routers}"'
        )
        text = text.replace("lost_seconds = 4", "lost_seconds = 60")  # longer than a worker takes to start
        parts.config.write_text(text.replace("[receive]", "[receive]\nprocesses = 2", 1))
        for name in parts.commands:
            parts.start(name)
        for name in ("route", "work"):
            parts.start(name, kind=f"{name}-2")
        try:
            wait_for(lambda: listens(parts.port), what="the receivers")
            names = [f"{routers}{n}" for n in range(4)]
            for name in names:
                files = write(tmp_path / name, series(3, 32, series=name, study=name))
                assert store(parts.port, files) == 3
            parts.kill("route")
            index = Index.open(load(parts.config))
            uids = {uid(name, name) for name in names}

            def settled() -> bool:
                reports = [report for one in uids for report in index.find(one)]
                jobs = [job for report in reports for job in report.jobs]
                states = {d.state for job in jobs for d in job.deliveries}
                return len(jobs) == len(names) and states == {"PROVEN"}

            wait_for(settled, seconds=120, every=0.3, what="every result to be proven")
            events = [event for one in uids for report in index.find(one) for event in report.events]
            index.close()
            done = Counter((e.entity, e.key) for e in events if e.entity == "job" and e.state == "DONE")
            assert set(done.values()) == {1}
            assert not [e for e in events if "handed to the broker again" in e.reason]
            returned = Counter(i["MainDicomTags"]["SOPInstanceUID"] for i in archive.instances())
            assert len(returned) == len(names) * 3
            assert set(returned.values()) == {1}
        except BaseException:
            print(parts.log.read_text()[-8000:])
            raise
        finally:
            parts.stop()


def test_a_sleeping_router_is_fenced_off_by_the_one_that_took_over(url: str, tmp_path: Path) -> None:
    """SIGSTOP is how a machine that swaps or migrates looks; it wakes to a higher token."""
    index = open_index(url, tmp_path)
    parts = Parts(tmp_path / "node", "127.0.0.1:9", tmp_path / "model", index=url)
    parts.config.write_text(parts.config.read_text().replace("lease_seconds = 6", "lease_seconds = 2"))
    before = index.lease("route")
    token = before.token if before else 0

    def holds(number: int) -> bool:
        lease = index.lease("route")
        return lease is not None and lease.token == number and lease.holder != ""

    parts.start("route")
    try:
        wait_for(lambda: holds(token + 1), what="the first router")
        os.kill(parts._children["route"].pid, signal.SIGSTOP)
        parts.start("route", kind="second")
        wait_for(lambda: holds(token + 2), what="the second router")
        os.kill(parts._children["route"].pid, signal.SIGCONT)
        wait_for(lambda: "another process has taken over" in parts.log.read_text(), what="the fence")
        assert holds(token + 2)
    finally:
        parts.stop()
        index.close()

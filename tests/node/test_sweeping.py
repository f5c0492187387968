"""What killed workers leave in the results folder, and what is not theirs to lose."""

import fcntl
from pathlib import Path

from node.job import HEARTBEAT, MANIFEST
from node.route.sweeping import sweep_results
from tests.node.records import index_in, queued_job


def left(results: Path, name: str) -> Path:
    """A folder that a worker began."""
    folder = results / name
    folder.mkdir(parents=True)
    (folder / HEARTBEAT).touch()
    (folder / "0001.dcm").write_bytes(b"half")
    return folder


def test_only_what_nobody_does_any_more_is_removed(tmp_path: Path) -> None:
    """Leftovers of unknown jobs go; a waiting job's, a living worker's and finished results stay."""
    index = index_in(tmp_path)
    waiting = queued_job(index)
    results = tmp_path / "results"
    gone = [left(results, f"{'0' * 32}.partial"), left(results, f"{'1' * 32}.abandoned")]
    resumed = left(results, f"{waiting.id}.partial")
    living = left(results, f"{'2' * 32}.partial")
    finished = left(results, "3" * 32)
    (finished / MANIFEST).touch()
    with (living / HEARTBEAT).open("ab") as heartbeat:
        fcntl.flock(heartbeat, fcntl.LOCK_EX)
        assert sweep_results(tmp_path, index) == len(gone)
    assert sorted(results.iterdir()) == sorted([resumed, living, finished])
    assert sweep_results(tmp_path, index) == 1  # its worker has ended meanwhile
    assert not living.exists()
    index.close()


def test_an_empty_data_folder_has_nothing_to_sweep(tmp_path: Path) -> None:
    """Before the first job there is no results folder."""
    index = index_in(tmp_path)
    assert sweep_results(tmp_path, index) == 0
    index.close()

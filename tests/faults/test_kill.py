"""kill -9 of receive, route, work and redis at random moments, while senders send by C-STORE and STOW-RS."""

import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config_file import load
from node.index import Index
from node.spool import Spool
from tests.faults.parts import Parts, store, stow
from tests.node.receiver import encoded
from tests.peers import Orthanc, listens, wait_for
from tests.series import series, write
from tests.workers.models_made import denoiser_folder

SLICES = 3


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc") as server:
        yield server


class Sender(threading.Thread):
    """A modality: series by C-STORE and STOW-RS in turn, each again until every slice is acknowledged."""

    def __init__(self, parts: Parts, folder: Path, rounds: int) -> None:
        super().__init__(daemon=True)
        self.parts = parts
        self.made = [series(SLICES, 32, series=f"s{n}", study=f"s{n}") for n in range(rounds)]
        self.files = [write(folder / str(n), images) for n, images in enumerate(self.made)]
        self.turns = threading.Semaphore(0)
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID, SHA-256 of its data set
        self.answers = 0
        self.sends = 0
        self.sent = 0  # series

    def run(self) -> None:
        ways = itertools.cycle(
            [lambda files: store(self.parts.port, files), lambda files: stow(self.parts.web, files)]
        )
        for images, files, send in zip(self.made, self.files, ways, strict=False):
            self.turns.acquire()
            done = 0
            while done < len(files):
                self.sends += len(files)
                done = send(files)
                self.answers += done
                for ds in images[:done]:
                    self.acknowledged[str(ds.SOPInstanceUID)] = hashlib.sha256(encoded(ds)).hexdigest()
                if done < len(files):
                    time.sleep(0.1)  # as a modality waits before it tries again
            self.sent += 1


@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(
    tmp_path: Path, archive: Orthanc, request: pytest.FixtureRequest
) -> None:
    """Every acknowledged instance is in the spool byte for byte; the archive has each result once."""
    rounds = int(request.config.getoption("--rounds"))
    chance = random.Random(int(request.config.getoption("--fault-seed")))
    parts = Parts(tmp_path / "node", archive.address, denoiser_folder(tmp_path / "model"))
    sender = Sender(parts, tmp_path / "sent", rounds)
    killed: Counter[str] = Counter()
    for name in parts.commands:
        parts.start(name)
    wait_for(lambda: listens(parts.port), what="the receiver")
    try:
        sender.start()
        for _ in range(rounds):
            sender.turns.release()
            time.sleep(chance.uniform(0.0, 1.2))  # the moment is the test's input
            # A worker takes seconds to start: killed every time, it would never get to work.
            name = chance.choice(["receive", "receive", "route", "route", "redis", "work"])
            parts.kill(name)
            parts.start(name)
            killed[name] += 1
        wait_for(lambda: sender.sent == rounds, seconds=120, what="every series to be acknowledged")
        settings = load(parts.config)
        index = Index.open(settings)

        def settled() -> bool:
            found = index.status()
            return found.deliveries.get("PROVEN", 0) >= rounds * SLICES and set(found.jobs) == {"DONE"}

        wait_for(settled, seconds=180, every=0.5, what="every result to be proven")
        found = index.status()
        index.close()
    except BaseException:
        print(parts.log.read_text()[-8000:])
        raise
    finally:
        parts.stop()
    held = {i.sop_instance_uid: i.sha256 for i in Spool(parts.data).walk()}
    assert {uid: held.get(uid) for uid in sender.acknowledged} == sender.acknowledged
    assert len(sender.acknowledged) == rounds * SLICES
    returned = Counter(i["MainDicomTags"]["SOPInstanceUID"] for i in archive.instances())
    assert set(returned.values()) == {1}
    expected = found.deliveries["PROVEN"]
    assert len(returned) == expected
    print(
        f"{rounds} rounds, killed {dict(killed)}: sent {sender.sends}, acknowledged {sender.answers}, "
        f"in the spool {len(held)}, results expected {expected}, found {len(returned)}, duplicates 0"
    )

"""When a series is complete: what the router asks its source, and what becomes of the answer."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.config import Peer
from node.dimse import scu
from node.errors import PeerError
from node.states import SeriesState
from tests.node.routing import ONE_PIPELINE, Bench, benches
from tests.peers import Orthanc, wait_for
from tests.series import series, uid, write


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a bench with other settings."""
    with benches(tmp_path) as make:
        yield make


def source_config(source: Orthanc) -> str:
    return ONE_PIPELINE.replace('ae_title = "CT1"', 'ae_title = "ORTHANC"').replace(
        "127.0.0.1:4243", source.address
    )


def listed(make: Callable[..., Bench], orthanc: Orthanc, folder: Path) -> tuple[Bench, list[Dataset]]:
    """A bench whose source has six images of a series, and those images."""
    images = series(6, 16)
    bench = make(source_config(orthanc), scu.count_instances)
    peer = bench.file.settings.peer("ct-1")
    assert peer is not None
    scu.store_batch(peer, "AENODE", write(folder / "files", images))
    return bench, images


def test_a_source_that_lists_what_came_completes_the_series(
    make: Callable[..., Bench], orthanc: Orthanc, tmp_path: Path
) -> None:
    """Two seconds after the release, with all instances here, the series is routed."""
    bench, images = listed(make, orthanc, tmp_path)
    bench.receive(images, calling_ae="ORTHANC")
    wait_for(lambda: bench.step(2) and bench.submitted)
    complete = next(e for e in bench.index.find(uid("study"))[0].events if e.state == "COMPLETE")
    assert complete.reason == "the source lists 6 instances, and all are here"


def test_a_source_that_lists_more_tells_how_many_are_missing(
    make: Callable[..., Bench], orthanc: Orthanc, tmp_path: Path
) -> None:
    """A series that stays short is frozen after the longer quiet, with the number missing."""
    bench, images = listed(make, orthanc, tmp_path)
    bench.receive(images[:4], calling_ae="ORTHANC")
    bench.step(2)
    source = bench.router._source
    wait_for(lambda: not source.is_asking(bench.revision()))
    bench.step(29)
    assert bench.states() == {SeriesState.RECEIVING: 1}
    bench.step(30)
    reasons = [e.reason for e in bench.index.find(uid("study"))[0].events]
    assert "missing 2 of 6, after 30 s of quiet" in reasons


def test_a_source_that_is_down_delays_nothing(make: Callable[..., Bench]) -> None:
    """Where the source cannot be asked, quiet decides, and it is left alone for a while."""
    bench = make(ONE_PIPELINE.replace("127.0.0.1:4243", "127.0.0.1:1"), scu.count_instances)
    bench.receive(series(3, 16))
    bench.step(1)
    wait_for(lambda: not bench.router._source.is_asking(bench.revision()))
    bench.step(5)
    assert bench.revision().state is SeriesState.ROUTED
    bench.receive(series(3, 16, series="next"), name="a2")
    bench.step(10)
    assert bench.router._source.asked_at(bench.revision(2)) is None
    assert bench.revision(2).state is SeriesState.ROUTED


def test_a_slow_source_does_not_stop_the_loop(make: Callable[..., Bench]) -> None:
    """While one source thinks, the series of others go on."""
    answer = threading.Event()

    def slow(
        peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
    ) -> int | None:
        assert timeout <= 10
        if peer.name == "ct-1":
            answer.wait(60)
            raise PeerError("ct-1: did not answer")
        return None

    bench = make(ONE_PIPELINE, slow)
    bench.receive(series(3, 16, series="slow"), name="a1")
    bench.receive(series(3, 16, series="other"), name="a2", calling_ae="OTHER")
    bench.step(1)
    bench.step(5)
    assert bench.revision(1).state is SeriesState.RECEIVING
    assert bench.revision(2).state is SeriesState.ROUTED
    answer.set()
    wait_for(lambda: not bench.router._source.is_asking(bench.revision(1)))
    bench.step(6)
    assert bench.revision(1).state is SeriesState.ROUTED

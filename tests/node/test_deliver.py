import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian, ParametricMapStorage

from node.config import Peer
from node.entities import Delivery
from node.index import DeliveryOutcome
from node.states import DeliveryState
from tests.node.delivering import CT, Bench
from tests.node.scripted import ScriptedSCP
from tests.peers import LOOPBACK, Orthanc, StoreSCP, free_port, wait_for
from tests.series import series


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, 5)
    yield bench
    assert bench.outbox.close(30)
    bench.index.close()


@pytest.fixture
def scp() -> Iterator[ScriptedSCP]:
    with ScriptedSCP(CT) as server:
        yield server


def test_results_reach_orthanc_and_are_sent(bench: Bench, orthanc: Orthanc) -> None:
    """PENDING becomes SENT with the peer's status, and the archive has the study's new series."""
    bench.configure(Peer(name="archive", ae_title="ORTHANC", address=orthanc.address))
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5
    assert {d.status for d in bench.deliveries()} == {0x0000}
    assert len(orthanc.get("/instances")) == 5
    bench.step(after=3600)
    assert bench.states() == ["SENT"] * 5


def test_an_archive_that_was_down_gets_everything_when_it_is_back(bench: Bench, tmp_path: Path) -> None:
    """The queue waits out its backoff, no longer, and then drains."""
    port = free_port()
    bench.configure(Peer(name="archive", ae_title="ORTHANC", address=f"{LOOPBACK}:{port}"))
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["PENDING"] * 5
    waiting = bench.deliveries()[0]
    assert (waiting.attempts, waiting.status) == (1, None)
    assert "no connection" in waiting.reason
    assert timedelta(seconds=2.5) <= waiting.next_attempt_at - bench.now <= timedelta(seconds=5)
    bench.step(after=1)
    assert bench.deliveries()[0].attempts == 1
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        bench.step(after=5)
        assert bench.states() == ["SENT"] * 5
        assert len(orthanc.get("/instances")) == 5


def test_after_a_partial_success_only_what_failed_is_sent_again(bench: Bench, scp: ScriptedSCP) -> None:
    """An archive out of resources for one instance gets that one again, and no other twice."""
    scp.answer = lambda number, _: 0xA700 if number == 3 else 0x0000
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT", "SENT", "PENDING", "SENT", "SENT"]
    assert bench.deliveries()[2].status == 0xA700
    bench.step(after=10)
    assert bench.states() == ["SENT"] * 5
    assert scp.uids == [d.artifact.sop_instance_uid for d in bench.deliveries()] + [scp.uids[2]]


def test_an_abort_costs_an_attempt_only_to_the_instance_that_was_under_way(
    bench: Bench, scp: ScriptedSCP
) -> None:
    """Those behind it go with the next association, so one bad instance cannot block a queue."""
    scp.aborts_at = 3
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT", "SENT", "PENDING", "PENDING", "PENDING"]
    assert [d.attempts for d in bench.deliveries()] == [1, 1, 1, 0, 0]
    bench.step()
    assert bench.states() == ["SENT", "SENT", "PENDING", "SENT", "SENT"]
    bench.step(after=10)
    assert bench.states() == ["SENT"] * 5


def test_a_refusal_for_good_is_dead_until_it_is_requeued(bench: Bench, scp: ScriptedSCP) -> None:
    """No attempt is wasted on what cannot succeed; a person may try again after the cure."""
    scp.answer = lambda number, _: 0xC000 if number == 2 else 0x0000
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    bench.step(after=86_400)
    assert bench.states() == ["SENT", "DEAD", "SENT", "SENT", "SENT"]
    assert len(scp.received) == 5
    assert "the peer cannot understand it (0xC000)" in bench.reasons()
    assert len(bench.index.requeue_deliveries(bench.now, peer="archive")) == 1
    bench.step()
    assert bench.states() == ["SENT"] * 5


def of_class(sop_class: UID) -> FileDataset:
    """A result of another SOP class; to an archive it is as good as a real one."""
    ds = series(1, 16, series=sop_class.keyword)[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    return ds


@pytest.mark.parametrize("batch", [500, 1])
def test_what_a_peer_does_not_take_is_left_out_and_told_and_holds_up_nothing(
    tmp_path: Path, scp: ScriptedSCP, batch: int
) -> None:
    """No attempt is wasted, nothing is DEAD; `requeue` sends it when the peer has learnt it."""
    report, map_ = of_class(Comprehensive3DSRStorage), of_class(ParametricMapStorage)
    bench = Bench(tmp_path, 2, report, map_)
    bench.configure(scp.peer(), batch=batch)
    bench.queue("archive")
    bench.step()
    bench.step(after=86_400)
    assert bench.states() == ["SENT", "SENT", "UNSUPPORTED", "UNSUPPORTED"]
    assert len(scp.received) == 2
    (found,) = bench.index.find(report.SOPInstanceUID)
    told = [event.reason for event in found.events if event.state == "UNSUPPORTED"]
    assert told[0].startswith("left out: archive accepts no Comprehensive 3D SR Storage in any transfer")
    assert found.sent_at is not None, "what was left out does not keep the series waiting"
    (peer,) = bench.index.status().peers
    assert peer.deliveries == {"SENT": 2, "UNSUPPORTED": 2}
    all_classes = {UID(d.artifact.sop_class_uid) for d in bench.deliveries()}
    with ScriptedSCP([(one, [ExplicitVRLittleEndian]) for one in all_classes]) as grown:
        bench.configure(grown.peer())
        assert len(bench.index.requeue_deliveries(bench.now, peer="archive")) == 2
        bench.step()
        assert bench.states() == ["SENT"] * 4
    assert bench.outbox.close(30)
    bench.index.close()


def test_a_peer_that_answers_that_it_does_not_know_the_class_is_spared_it_too(
    bench: Bench, scp: ScriptedSCP
) -> None:
    """0x0122 after an accepted context says the same as a refused one."""
    scp.answer = lambda number, _: 0x0122 if number == 2 else 0x0000
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    bench.step(after=86_400)
    assert bench.states() == ["SENT", "UNSUPPORTED", "SENT", "SENT", "SENT"]
    assert "left out: SOP class not supported (0x0122)" in bench.reasons()


def test_the_transfer_syntax_is_told(bench: Bench, scp: ScriptedSCP) -> None:
    """A person sees in the timeline how a result went, and why otherwise than the settings say."""
    bench.configure(scp.peer(transfer_syntax="jpeg-ls"))
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5
    said = "in Explicit VR Little Endian: archive accepts no CT Image Storage in JPEG-LS"
    assert f"stored (0x0000), {said}" in bench.reasons()


def test_a_warning_counts_as_stored_and_is_told(bench: Bench, scp: ScriptedSCP) -> None:
    """Coercion by the archive is no failure."""
    scp.answer = lambda _number, _uid: 0xB000
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5
    assert bench.reasons().count("stored, data elements were coerced (0xB000)") == 5


def test_attempts_are_used_up_in_the_end(bench: Bench) -> None:
    """A peer that never comes back leaves DEAD deliveries that say how often it was tried."""
    bench.configure(Peer(name="archive", ae_title="A", address=f"{LOOPBACK}:{free_port()}"), attempts=3)
    bench.queue("archive")
    for _ in range(3):
        bench.step(after=60)
    assert bench.states() == ["DEAD"] * 5
    assert bench.deliveries()[0].reason.endswith("given up after 3 attempts")
    told = [reason for reason in bench.reasons() if "no connection" in reason]
    assert len(told) == 10, "the first failure and the end have a line each, the same wait again has none"


def test_an_association_rejected_for_good_makes_its_deliveries_dead(bench: Bench, tmp_path: Path) -> None:
    """Knocking for eight days at a door that says never is no use; the reason is in the timeline."""
    with StoreSCP(tmp_path / "scp", "--refuse") as scp:
        bench.configure(Peer(name="archive", ae_title="A", address=f"{LOOPBACK}:{scp.port}"))
        bench.queue("archive")
        bench.step()
    assert bench.states() == ["DEAD"] * 5
    assert "Rejected Permanent" in bench.deliveries()[0].reason


def test_a_transient_rejection_is_waited_out(bench: Bench, scp: ScriptedSCP) -> None:
    """A congested archive is asked again."""
    scp.rejects = (2, 3, 1)
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["PENDING"] * 5
    scp.rejects = None
    bench.step(after=10)
    assert bench.states() == ["SENT"] * 5


def test_a_slow_peer_holds_up_no_other(bench: Bench, scp: ScriptedSCP) -> None:
    """Each peer has its own thread; a step does not wait for any."""
    go_on = threading.Event()

    def slowly(_number: int, _uid: str) -> int:
        assert go_on.wait(60)
        return 0x0000

    scp.answer = slowly
    with ScriptedSCP(CT) as quick:
        bench.configure(scp.peer("slow"), quick.peer("quick"), timeout_seconds=60)
        bench.queue("slow", "quick")
        bench.outbox.step(bench.now)
        try:
            wait_for(lambda: bench.states("quick") == ["SENT"] * 5)
            bench.outbox.step(bench.now)  # does not start a second thread for the slow one
            assert bench.states("slow") == ["PENDING"] * 5
        finally:
            go_on.set()
        assert bench.outbox.wait(30)
    assert bench.states("slow") == ["SENT"] * 5
    assert (scp.associations, len(scp.received)) == (1, 5)


def test_deliveries_wait_for_a_peer_that_left_the_settings_and_say_so_once(
    bench: Bench, scp: ScriptedSCP
) -> None:
    """Nothing is dropped with a peer's section; it goes out when the section is back."""
    bench.configure()
    bench.queue("archive")
    for _ in range(3):
        bench.step(after=61)
    assert bench.states() == ["PENDING"] * 5
    assert bench.reasons().count("waits: the settings have no peer archive with an address") == 5
    bench.configure(scp.peer())
    bench.step()
    assert bench.states() == ["SENT"] * 5


def test_a_result_file_that_is_gone_does_not_hold_up_the_others(bench: Bench, scp: ScriptedSCP) -> None:
    """It is tried again, for the shared file system may come back."""
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.files[1].rename(bench.files[1].with_suffix(".away"))
    bench.step()
    assert bench.states() == ["SENT", "PENDING", "SENT", "SENT", "SENT"]
    bench.files[1].with_suffix(".away").rename(bench.files[1])
    bench.step(after=10)
    assert bench.states() == ["SENT"] * 5


def test_batches_follow_one_another_until_the_queue_is_empty(bench: Bench, scp: ScriptedSCP) -> None:
    """deliver.batch bounds an association, not a step."""
    bench.configure(scp.peer(), batch=2)
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5
    assert scp.associations == 3


def test_closing_ends_after_the_instance_under_way_and_the_next_run_sends_the_rest(
    bench: Bench, scp: ScriptedSCP
) -> None:
    """A stop in the middle of a batch loses nothing and sends nothing twice."""

    def stop(number: int, _uid: str) -> int:
        if number == 2:
            bench.outbox._stopping.set()
        return 0x0000

    scp.answer = stop
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT", "SENT", "PENDING", "PENDING", "PENDING"]
    bench.step()
    assert len(scp.received) == 2, "a closed outbox begins nothing"
    scp.answer = lambda _number, _uid: 0x0000
    bench.new_outbox()
    bench.configure(scp.peer())
    bench.step()
    assert bench.states() == ["SENT"] * 5
    assert len(scp.received) == len(set(scp.uids)) == 5


def test_a_delivery_that_somebody_moved_meanwhile_spoils_no_other(bench: Bench, scp: ScriptedSCP) -> None:
    """Two outboxes on one index send twice at worst; both answers fit."""

    def meanwhile(number: int, _uid: str) -> int:
        if number == 4:
            first = bench.deliveries()[0]
            bench.index.record_delivery(first, DeliveryState.SENT, bench.now, status=0x0000)
        return 0x0000

    scp.answer = meanwhile
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5


def test_what_was_withdrawn_while_it_was_under_way_is_sent_if_the_peer_took_it(
    bench: Bench, scp: ScriptedSCP
) -> None:
    """The index says what the archive has, and the others suffer nothing."""

    def withdrawn(number: int, _uid: str) -> int:
        if number == 2:
            under_way = bench.deliveries()[1]
            bench.index.record_delivery(under_way, DeliveryState.WITHDRAWN, bench.now)
        return 0x0000

    scp.answer = withdrawn
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert bench.states() == ["SENT"] * 5
    assert "stored (0x0000); it was under way when it was withdrawn" in bench.reasons()


# --- seams ---


class _Held:
    """A proof that finds every second instance."""

    def ask(self, peer: Peer, own_ae: str, sent: Sequence[Delivery]) -> Sequence[DeliveryOutcome]:
        assert (peer.name, own_ae) == ("archive", "AENODE")
        return [DeliveryOutcome(delivery=d, state=DeliveryState.PROVEN) for d in sent[::2]]


@pytest.mark.parametrize(
    ("prove", "states"),
    [("find", ["PROVEN", "SENT", "PROVEN", "SENT", "PROVEN"]), ("none", ["SENT"] * 5)],
)
def test_only_what_a_proof_has_found_is_proven(
    bench: Bench, scp: ScriptedSCP, prove: str, states: list[str]
) -> None:
    """Without a proof a delivery stays SENT; "none" asks nothing."""
    bench.new_outbox(proofs={"find": _Held()})
    bench.configure(scp.peer(prove=prove))
    bench.queue("archive")
    bench.step()
    assert bench.states() == states


class _Switch:
    """A breaker that a test opens and closes."""

    def __init__(self) -> None:
        self.closed = False
        self.told: list[str] = []

    def permits(self, peer: str, now: datetime) -> bool:
        return self.closed

    def ready(self, peer: Peer, now: datetime) -> bool:
        return self.closed

    def succeeded(self, peer: str, now: datetime) -> None:
        self.told.append("succeeded")

    def failed(self, peer: str, now: datetime, reason: str = "") -> None:
        self.told.append("failed")


def test_an_open_breaker_keeps_a_peer_from_being_asked(bench: Bench, scp: ScriptedSCP) -> None:
    """No attempt is made or counted while it is open, and it learns how each association went."""
    switch = _Switch()
    bench.new_outbox(breaker=switch)
    bench.configure(scp.peer())
    bench.queue("archive")
    bench.step()
    assert (bench.states(), scp.associations) == (["PENDING"] * 5, 0)
    switch.closed, scp.rejects = True, (2, 3, 1)
    bench.step()
    scp.rejects = None
    bench.step(after=10)
    assert bench.states() == ["SENT"] * 5
    assert switch.told == ["failed", "succeeded"]

"""Proof of delivery by storage commitment and by C-FIND, with real peers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from node.config import Peer
from node.deliver.breaker import CircuitBreaker
from node.deliver.proof import CommitmentProof, FindProof
from node.dimse import scu
from node.index import Index
from tests.node.committing import CommittingSCP
from tests.node.delivering import Bench
from tests.node.receiver import Receiver
from tests.peers import LOOPBACK, Orthanc, free_port, wait_for


def with_proofs(bench: Bench) -> Bench:
    find = FindProof(bench.index, lambda: bench.deliver, lambda: bench.now)
    proofs = {
        "find": find,
        "commitment": CommitmentProof(bench.index, lambda: bench.deliver, lambda: bench.now, find),
    }
    bench.new_outbox(proofs=proofs)
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = with_proofs(Bench(tmp_path, 5))
    yield bench
    assert bench.outbox.close(30)
    bench.index.close()


def test_a_commitment_on_the_same_association_proves(bench: Bench) -> None:
    """SENT becomes PROVEN with the peer's word for each instance."""
    with CommittingSCP() as scp:
        bench.configure(scp.peer())
        bench.queue("archive")
        bench.step()
        assert bench.states() == ["PROVEN"] * 5
    (asked,) = scp.requests
    assert len(asked.ReferencedSOPSequence) == 5
    assert scp.answered == [0x0000]
    assert bench.reasons().count("storage committed") == 5


def test_what_is_not_committed_is_sent_again_and_given_up_in_the_end(bench: Bench) -> None:
    """A peer that forgets one instance gets it again, under a new transaction, and not for ever."""
    with CommittingSCP() as scp:
        bench.configure(scp.peer(), losses=3, retry_seconds=5)
        bench.queue("archive")
        third = bench.deliveries()[2].artifact.sop_instance_uid
        scp.lost = {third}
        bench.step()
        assert bench.states() == ["PROVEN", "PROVEN", "PENDING", "PROVEN", "PROVEN"]
        scp.lost = set()
        bench.step(after=6)
        assert bench.states() == ["PROVEN"] * 5
        assert scp.stored.count(third) == 2
        assert len({str(request.TransactionUID) for request in scp.requests}) == 2


def test_a_peer_that_never_keeps_an_instance_leaves_it_dead(bench: Bench) -> None:
    """Three times accepted and not kept is a matter for a person."""
    with CommittingSCP() as scp:
        bench.configure(scp.peer(), losses=2, retry_seconds=5)
        bench.queue("archive")
        scp.lost = {bench.deliveries()[0].artifact.sop_instance_uid}
        bench.step()
        bench.step(after=6)
        assert bench.states() == ["DEAD", "PROVEN", "PROVEN", "PROVEN", "PROVEN"]
    assert "accepted and not kept 2 times" in bench.deliveries()[0].reason


def test_a_report_on_a_new_association_comes_through_the_receiver(tmp_path: Path) -> None:
    """The roles are reversed there; the receiver writes the report before it answers."""
    receiver = Receiver(tmp_path / "node")
    bench = with_proofs(Bench(tmp_path, 5))
    bench.index.close()
    with CommittingSCP(same_association=False) as scp, receiver:
        peers = (*receiver.file.settings.peers, scp.peer())
        receiver.file.settings = receiver.file.settings.model_copy(update={"peers": peers})
        scp.report_to = ("AENODE", receiver.port)
        # One index for the outbox and the receiver, as on a real node.
        bench.index = Index.open(receiver.file.settings)
        with_proofs(bench)
        bench.configure(scp.peer(), proof_wait_seconds=0)
        bench.queue("archive")
        bench.step()
        wait_for(lambda: bench.states() == ["PROVEN"] * 5, what="the report")
        wait_for(lambda: scp.answered == [0x0000], what="its answer")
        ds, kind = scp.report(scp.requests[0])
        assert scp.send_report(ds, kind, "AENODE", receiver.port) == 0x0000, "a repeated report does no harm"
        assert scp.send_report(ds, kind, "AENODE", receiver.port, "MODALITY") == 0x0115
        ds.TransactionUID = "1.2.3"
        assert scp.send_report(ds, kind, "AENODE", receiver.port) == 0x0115
        assert bench.outbox.close(30)
        bench.index.close()


def test_without_a_report_the_question_is_asked_again_later(bench: Bench) -> None:
    """Nothing is PROVEN that was not answered, and nobody is asked in a loop."""
    with CommittingSCP() as scp:
        scp.reports = False
        bench.configure(scp.peer(), proof_wait_seconds=0, proof_seconds=30)
        bench.queue("archive")
        bench.step()
        bench.step(after=10)
        assert (bench.states(), len(scp.requests)) == (["SENT"] * 5, 1)
        scp.reports = True
        bench.configure(scp.peer(), proof_wait_seconds=5)
        bench.step(after=30)
        assert bench.states() == ["PROVEN"] * 5


def test_orthanc_commits_itself_on_an_association_of_its_own(tmp_path: Path) -> None:
    """A real archive, a real receiver: the report comes back to our port."""
    receiver = Receiver(tmp_path / "node")
    with receiver:
        modalities = {"aenode": {"AET": "AENODE", "Host": LOOPBACK, "Port": receiver.port}}
        with Orthanc(tmp_path / "orthanc", DicomModalities=modalities) as orthanc:
            peer = Peer(name="archive", ae_title="ORTHANC", address=orthanc.address, prove="commitment")
            peers = (*receiver.file.settings.peers, peer)
            receiver.file.settings = receiver.file.settings.model_copy(update={"peers": peers})
            bench = Bench(tmp_path, 5)
            bench.index.close()
            bench.index = Index.open(receiver.file.settings)
            with_proofs(bench)
            bench.configure(peer, proof_wait_seconds=0)
            bench.queue("archive")
            bench.step()
            wait_for(lambda: bench.states() == ["PROVEN"] * 5, what="Orthanc's report")
            assert bench.outbox.close(30)
            bench.index.close()


def test_orthanc_lists_what_it_holds_and_gets_again_what_it_lost(bench: Bench, orthanc: Orthanc) -> None:
    """C-FIND at IMAGE level; an instance that was deleted there is missed, and sent again."""
    peer = Peer(name="archive", ae_title="ORTHANC", address=orthanc.address, prove="none")
    bench.configure(peer)
    bench.queue("archive")
    bench.step()
    gone = orthanc.get("/instances")[0]
    requests.delete(f"http://{LOOPBACK}:{orthanc.http_port}/instances/{gone}", timeout=10).raise_for_status()
    bench.configure(peer.model_copy(update={"prove": "find"}), proof_questions=2, proof_seconds=10)
    bench.step()
    assert sorted(bench.states()) == ["PROVEN"] * 4 + ["SENT"], "one missing answer proves nothing"
    bench.step(after=11)
    assert sorted(bench.states()) == ["PENDING"] + ["PROVEN"] * 4
    bench.step(after=11)
    assert bench.states() == ["PROVEN"] * 5
    assert len(orthanc.get("/instances")) == 5


def test_a_peer_without_commitment_is_asked_by_find(bench: Bench) -> None:
    """The fallback needs no setting."""
    with CommittingSCP(commits=False) as scp:
        bench.configure(scp.peer())
        bench.queue("archive")
        bench.step()
        assert bench.states() == ["PROVEN"] * 5
    assert bench.reasons().count("listed by archive") == 5


def test_an_outage_of_days_costs_few_attempts(tmp_path: Path) -> None:
    """With the breaker open, deliveries wait; they are sent when the archive is back, in one go."""
    bench = Bench(tmp_path, 5)
    port = free_port()
    breaker = CircuitBreaker(
        lambda: bench.deliver, lambda peer: scu.echo(peer, "AENODE", timeout=5), lambda *_: None
    )
    bench.new_outbox(breaker=breaker)
    bench.configure(Peer(name="archive", ae_title="ORTHANC", address=f"{LOOPBACK}:{port}"), attempts=10)
    bench.queue("archive")
    for _ in range(7 * 24):
        bench.step(after=3600)
    assert bench.states() == ["PENDING"] * 5
    assert max(d.attempts for d in bench.deliveries()) == 3
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        bench.step(after=3600)
        assert bench.states() == ["SENT"] * 5
        assert len(orthanc.get("/instances")) == 5
    assert bench.outbox.close(30)
    bench.index.close()

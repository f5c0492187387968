import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.config import Deliver, Node, Peer, Settings
from node.config_file import SettingsFile
from node.deliver.outbox import Outbox
from node.entities import Artifact, Delivery, Instance
from node.index import DeliveryOutcome, Index, NewJob
from node.job import JobSpec, PipelineSpec, SourceInstance
from node.states import DeliveryState, JobState, SeriesState
from tests.node.scripted import ScriptedSCP
from tests.peers import LOOPBACK, Orthanc, StoreSCP, free_port, wait_for
from tests.series import series, uid, write

CT = [(CTImageStorage, [ExplicitVRLittleEndian])]
START = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Bench:
    """An index with one job's artifacts to deliver, an outbox, and a clock that is moved by hand."""

    def __init__(self, folder: Path, instances: int) -> None:
        self.data = folder / "data"
        self.now = START
        self.settings = Settings(node=Node(data=self.data))
        self.index = Index.open(self.settings)
        self.files = write(self.data / "results" / "job", series(instances, 16, series="derived"))
        self.peers: tuple[Peer, ...] = ()
        self.deliver = Deliver(timeout_seconds=5)
        self.outbox = self.new_outbox()

    def new_outbox(self, **seams: object) -> Outbox:
        file = SettingsFile(Path("config.toml"), self.settings)
        self.outbox = Outbox(file, self.index, lambda: self.now, **seams)  # type: ignore[arg-type]  # seams are its own
        self.file = file
        return self.outbox

    def configure(self, *peers: Peer, **deliver: float) -> None:
        self.peers = peers
        self.deliver = self.deliver.model_copy(update=deliver)
        self.file.settings = self.settings.model_copy(update={"peers": peers, "deliver": self.deliver})

    def queue(self, *peers: str) -> None:
        """List the files as results of a job, for these peers."""
        received = Instance(
            sop_instance_uid=uid("source", 1),
            sop_class_uid=CTImageStorage,
            series_instance_uid=uid("source"),
            study_instance_uid=uid("study"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            path=PurePosixPath("spool/00/source/1.dcm"),
            size=1,
            sha256="0" * 64,
            calling_ae="CT1",
            called_ae="AENODE",
            association="a1",
            received_at=START,
        )
        self.index.add_instances([received])
        (revision,) = self.index.series_in(SeriesState.RECEIVING)
        self.index.move(revision, SeriesState.COMPLETE, START)
        (revision,) = self.index.series_in(SeriesState.COMPLETE)
        pipeline = PipelineSpec(
            name="ct-denoise", model="ct-denoise", outputs=("derived",), strength=0.5, limit_sigma=3
        )
        spec = JobSpec(
            job_id="0" * 32,
            series_instance_uid=uid("source"),
            study_instance_uid=uid("study"),
            revision=1,
            pipeline=pipeline,
            instances=(SourceInstance(sop_instance_uid=uid("source", 1), path=str(received.path)),),
            created_at=START,
            time_limit_seconds=60,
        )
        self.index.create_jobs(revision, [NewJob(spec=spec, rule="CT", send_to=peers)], START)
        job = self.index.job(spec.job_id)
        assert job is not None
        produced = [
            Artifact(
                sop_instance_uid=uid("study", "derived", number + 1),
                sop_class_uid=CTImageStorage,
                series_instance_uid=uid("study", "derived"),
                transfer_syntax_uid=ExplicitVRLittleEndian,
                role="derived",
                path=PurePosixPath(path.relative_to(self.data)),
                job_id=spec.job_id,
            )
            for number, path in enumerate(self.files)
        ]
        self.index.finish_job(job, JobState.DONE, START, produced=produced, peers=peers)

    def step(self, after: float = 0) -> None:
        """Move the clock, step, and wait until the outbox is at rest."""
        self.now += timedelta(seconds=after)
        self.outbox.step(self.now)
        assert self.outbox.wait(30)

    def states(self, peer: str = "archive") -> list[str]:
        """The states of a peer's deliveries, in the order of the artifacts."""
        return [d.state.value for d in self.deliveries(peer)]

    def deliveries(self, peer: str = "archive") -> list[Delivery]:
        found = [d for state in DeliveryState for d in self.index.deliveries_in(state, peer=peer)]
        return sorted(found, key=lambda d: d.id)

    def reasons(self) -> list[str]:
        """What the timeline says of deliveries."""
        (report,) = self.index.find(uid("source"))
        return [event.reason for event in report.events if event.entity == "delivery"]


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

    def succeeded(self, peer: str, now: datetime) -> None:
        self.told.append("succeeded")

    def failed(self, peer: str, now: datetime) -> None:
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

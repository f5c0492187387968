"""An outbox at work in a folder, with time in the test's hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from pydicom import FileDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.config import Deliver, Node, Peer, Settings
from node.config_file import SettingsFile
from node.deliver.outbox import Outbox
from node.entities import Artifact, Delivery, Instance
from node.index import Index, NewJob
from node.job import JobSpec, PipelineSpec, SourceInstance
from node.states import DeliveryState, JobState, SeriesState
from tests.series import series, uid, write

CT = [(CTImageStorage, [ExplicitVRLittleEndian])]
START = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Bench:
    """An index with one job's artifacts to deliver, an outbox, and a clock that is moved by hand."""

    def __init__(self, folder: Path, instances: int, *others: FileDataset) -> None:
        """CT images, and after them the `others`, are what is to be delivered."""
        self.data = folder / "data"
        self.now = START
        self.settings = Settings(node=Node(data=self.data))
        self.index = Index.open(self.settings)
        results = [*series(instances, 16, series="derived"), *others]
        self.files = write(self.data / "results" / "job", results)
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
                sop_instance_uid=ds.SOPInstanceUID,
                sop_class_uid=ds.SOPClassUID,
                series_instance_uid=ds.SeriesInstanceUID,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                role="derived",
                path=PurePosixPath(path.relative_to(self.data)),
                job_id=spec.job_id,
            )
            for path, ds in ((path, dcmread(path, stop_before_pixels=True)) for path in self.files)
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

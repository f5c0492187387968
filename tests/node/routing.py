"""A router at work in a folder, with time in the test's hand."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydicom.dataset import FileDataset

from node.config import Peer
from node.entities import Job, SeriesRevision
from node.errors import BrokerUnavailable
from node.index import Index
from node.job import JobSpec, Manifest, ProducedArtifact, Role
from node.route.router import Router
from node.route.source import CountInstances
from node.states import JobState, SeriesState
from tests.node.records import CONFIG, after, settings_file, spooled

ONE_PIPELINE = CONFIG.replace('["ct-denoise", "ct-anomaly"]', '["ct-denoise"]')


def no_answer(
    peer: Peer, own_ae: str, series_uid: str, *, study_uid: str = "", timeout: float = 30
) -> int | None:
    """A source that does not say how many instances it has."""
    return None


class Bench:
    """An index, a spool and a router; jobs that it submits are kept in `submitted`."""

    def __init__(self, folder: Path, config: str = CONFIG, ask: CountInstances = no_answer) -> None:
        self.file = settings_file(folder, config)
        self.data = self.file.settings.node.data
        self.index = Index.open(self.file.settings)
        self.now = after(0)
        self.submitted: list[JobSpec] = []
        self.broker_is_down = False
        self.router = Router(self.file, self.index, self.submit, ask, lambda: self.now)

    def close(self) -> None:
        """Close the router and the index."""
        self.router.close()
        self.index.close()

    def submit(self, spec: JobSpec) -> None:
        """The broker."""
        if self.broker_is_down:
            raise BrokerUnavailable("the broker does not take jobs: ConnectionError")
        self.submitted.append(spec)

    def receive(self, images: Sequence[FileDataset], *, calling_ae: str = "CT1", name: str = "a1") -> None:
        """Keep and list images that came over one association, from now until now."""
        self.index.open_association(
            name, calling_ae=calling_ae, called_ae="AENODE", host="h", receiver="r", at=self.now
        )
        self.index.add_instances(spooled(self.data, images, calling_ae=calling_ae, association=name))
        self.index.close_association(name, self.now)

    def step(self, seconds: float) -> datetime:
        """The router's step at so many seconds after the start."""
        self.now = after(seconds)
        self.router.step(self.now)
        return self.now

    def settle(self, seconds: float) -> None:
        """Two steps: one asks the source, which does not say, and the next goes on."""
        self.step(seconds)
        self.step(seconds + 31)

    def revision(self, id: int = 1) -> SeriesRevision:
        """A revision as it is now."""
        return self.index.series_revision(id)

    def jobs(self) -> list[Job]:
        """All jobs, in the order of their pipelines' names."""
        return sorted(
            (job for state in JobState for job in self.index.jobs_in(state)), key=lambda j: j.pipeline
        )

    def job(self) -> Job:
        """The only job."""
        (job,) = self.jobs()
        return job

    def states(self) -> dict[SeriesState, int]:
        """How many revisions are in each state."""
        counts = {state: len(self.index.series_in(state)) for state in SeriesState}
        return {state: count for state, count in counts.items() if count}

    def beat(self, job_id: str, nanoseconds: int) -> None:
        """A worker's sign of life on a job."""
        folder = self.data / "results" / f"{job_id}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "heartbeat").touch()
        os.utime(folder / "heartbeat", ns=(nanoseconds, nanoseconds))

    def finish(self, job_id: str, *, files: int = 2, role: Role = "derived", **values: object) -> Manifest:
        """A worker's result folder for a job."""
        folder = self.data / "results" / job_id
        folder.mkdir(parents=True)
        artifacts = tuple(
            ProducedArtifact(
                path=f"{n}.dcm",
                role=role,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                sop_instance_uid=f"2.25.{int(job_id, 16)}.{len(role)}.{n}",
                series_instance_uid=f"2.25.{int(job_id, 16)}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
            )
            for n in range(files)
        )
        for artifact in artifacts:
            (folder / artifact.path).write_bytes(b"DICM")
        fields: dict[str, object] = {"job_id": job_id, "outcome": "done", "artifacts": artifacts}
        manifest = Manifest(**(fields | values))  # type: ignore[arg-type]  # the fields are Manifest's own
        (folder / "manifest.json").write_text(manifest.to_json())
        return manifest

    def fail(self, job_id: str, reason: str, *, retryable: bool = False) -> None:
        """A worker's result folder for a job that gave no result."""
        self.finish(job_id, files=0, outcome="failed", reason=reason, retryable=retryable)


@contextmanager
def benches(folder: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches with other settings, all in one folder, and closes them at the end."""
    made: list[Bench] = []

    def make(*args: object, **values: object) -> Bench:
        made.append(Bench(folder, *args, **values))  # type: ignore[arg-type]  # Bench's own
        return made[-1]

    yield make
    for bench in made:
        bench.close()

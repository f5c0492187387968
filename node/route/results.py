"""Reads result folders: `results/<job>.partial/` while a worker writes, `results/<job>/` when it is over."""

import shutil
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from node.entities import Artifact
from node.errors import AenodeError
from node.job import HEARTBEAT, MANIFEST, Manifest


class ManifestRefused(AenodeError):
    """A manifest that cannot be taken as what it says; the message is a sentence for a person."""


def heartbeat(data: Path, job_id: str) -> int:
    """Time of the last heartbeat of a job's worker in ns, 0 where there is none."""
    try:
        return (data / "results" / f"{job_id}.partial" / HEARTBEAT).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def read_manifest(data: Path, job_id: str) -> Manifest | None:
    """The manifest of a job that is over, None before. Raises ManifestRefused."""
    folder = data / "results" / job_id
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        # The folder appears by a rename, whole: one without a manifest will not get one.
        if folder.is_dir():
            raise ManifestRefused(f"the result folder has no {MANIFEST}") from None
        return None
    try:
        manifest = Manifest.from_json(text)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, e["loc"])) or "the text" for e in error.errors()}))
        raise ManifestRefused(f"the result folder's {MANIFEST} is broken at: {where}") from None
    if manifest.job_id != job_id:
        raise ManifestRefused(f"the result folder's {MANIFEST} is that of job {manifest.job_id}")
    return manifest


def artifacts_of(data: Path, manifest: Manifest) -> list[Artifact]:
    """The artifacts that a manifest lists, each of them there. Raises ManifestRefused."""
    folder = PurePosixPath("results") / manifest.job_id
    found = []
    for produced in manifest.artifacts:
        path = PurePosixPath(produced.path)
        if path.is_absolute() or ".." in path.parts:
            raise ManifestRefused(
                f"the manifest names a file outside of its folder for {produced.sop_instance_uid}"
            )
        if not (data / folder / path).is_file():
            raise ManifestRefused(f"the file of artifact {produced.sop_instance_uid} is missing")
        found.append(
            Artifact(
                sop_instance_uid=produced.sop_instance_uid,
                sop_class_uid=produced.sop_class_uid,
                series_instance_uid=produced.series_instance_uid,
                transfer_syntax_uid=produced.transfer_syntax_uid,
                role=produced.role,
                path=folder / path,
                job_id=manifest.job_id,
            )
        )
    return found


def aside(path: PurePosixPath) -> PurePosixPath:
    """Where `results/<job>/…` lies once its folder was set aside."""
    results, job_id, *rest = path.parts
    return PurePosixPath(results, f"{job_id}.failed", *rest)


def set_aside(data: Path, job_id: str) -> None:
    """Move a failed job's folder to `<job>.failed`, in place of an older one, so that it can run again."""
    folder = data / "results" / job_id
    failed = folder.with_name(f"{job_id}.failed")
    if folder.is_dir():
        shutil.rmtree(failed, ignore_errors=True)
        folder.rename(failed)

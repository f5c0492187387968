"""One job from its files to its result folder: read, model, write, gate, publish.

Whatever is the series' or the model's fault becomes a manifest that says so in one sentence. Nothing
is published before every object of the result has passed the gate.
"""

import logging
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath

import torch
from billiard.exceptions import SoftTimeLimitExceeded

from models import anomaly, denoiser, weights
from models.acceleration import Backend, Precision, accelerate
from models.weights import LoadedModel
from node.errors import ArtifactRefused, ModelRefused, SeriesRefused
from node.job import DEFAULT_OUTPUTS, JobSpec, Manifest, Output, ProducedArtifact
from workers.admission import judged
from workers.device import OPENVINO, torch_device
from workers.domain_gate import Verdict, admit
from workers.read import Volume, read_volumes
from workers.read.header import read_header, without_quotes
from workers.results import Claim, claimed, finished
from workers.write import gate
from workers.write.bundle import write_bundle
from workers.write.capture import write_comparison
from workers.write.derived import write_parts
from workers.write.notice import write_notice
from workers.write.provenance import Provenance

log = logging.getLogger("aenode.work")

# What a model can give, by its kind.
OUTPUTS_OF: dict[str, tuple[Output, ...]] = {
    "denoiser": ("derived", "capture"),
    "anomaly": ("capture", "segmentation", "report", "parametric", "presentation", "keys"),
}


@dataclass(slots=True)
class _Attempt:
    """What is known so far of a job that is being done."""

    spec: JobSpec
    step: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    model: str = ""
    weights_sha256: str = ""
    precision: Precision = "float32"

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure the wall time of a step, and know its name where it fails."""
        self.step = step
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0) + time.monotonic() - begun, 4)

    def done(self, artifacts: list[ProducedArtifact]) -> Manifest:
        """The manifest of a success."""
        return Manifest(
            job_id=self.spec.job_id,
            outcome="done",
            notes=tuple(self.notes),
            artifacts=tuple(artifacts),
            model=self.model,
            weights_sha256=self.weights_sha256,
            seconds=self.seconds,
        )

    def failed(self, reason: str, *, retryable: bool = False) -> Manifest:
        """The manifest of a failure."""
        return Manifest(
            job_id=self.spec.job_id,
            outcome="failed",
            reason=reason,
            retryable=retryable,
            notes=tuple(self.notes),
            model=self.model,
            weights_sha256=self.weights_sha256,
            seconds=self.seconds,
        )


def run(
    spec: JobSpec,
    data: Path,
    device: str,
    now: datetime,
    *,
    attempts: int = 3,
    precision: Precision = "float32",
) -> Manifest:
    """Do a job and publish results/<job_id>/ with its manifest; a finished job is returned as it is.

    `device` is a torch device or "openvino", `now` an aware time that dates the result. A job whose
    process died in `attempts` attempts is given up. Raises workers.results.AlreadyRunning where another
    process does it, and OSError where the result folder cannot be written.
    """
    if (manifest := finished(data, spec.job_id)) is not None:
        return manifest
    with claimed(data, spec.job_id) as claim:
        if (manifest := finished(data, spec.job_id)) is not None:
            claim.discard()
            return manifest
        attempt = _Attempt(spec, precision=precision)
        if claim.attempt > attempts:
            manifest = attempt.failed(f"the worker process died in each of {attempts} attempts")
        else:
            manifest = _outcome(attempt, data, device, now, claim)
        if manifest.outcome == "failed":
            claim.clear()
            if spec.notice and not manifest.retryable:
                manifest = _with_notice(attempt, manifest, data, now, claim.partial)
        return claim.publish(manifest)


def _outcome(attempt: _Attempt, data: Path, device: str, now: datetime, claim: Claim) -> Manifest:
    try:
        with without_quotes():
            return attempt.done(_produce(attempt, data, device, now, claim.partial))
    except Exception as error:  # noqa: BLE001 - also a fault of ours must end the job, with its place
        reason, retryable = _explain(attempt, error)
        return attempt.failed(reason, retryable=retryable)


def _with_notice(attempt: _Attempt, manifest: Manifest, data: Path, now: datetime, folder: Path) -> Manifest:
    """The manifest of a failure with a capture that says why; without it where none can be made."""
    spec = attempt.spec
    provenance = Provenance(
        pipeline=spec.pipeline.name,
        model=spec.pipeline.model.rpartition("/")[2] if not attempt.model else attempt.model.split()[0],
        version=attempt.model.rpartition(" ")[2],
        weights_sha256=attempt.weights_sha256 or "unknown",
        strength=spec.pipeline.strength or 0.0,
        limit_sigma=spec.pipeline.limit_sigma,
    )
    try:
        with without_quotes():
            source = read_header(data / _inside(spec.instances[0].path))
            uids = [instance.sop_instance_uid for instance in spec.instances]
            notice = write_notice(source, uids, manifest.reason, provenance, folder, now)
            gate.check_notice(folder, notice, source)
    except Exception as error:  # noqa: BLE001 - the reason is told either way
        log.warning("job %s: no notice: %s", spec.job_id, type(error).__name__)
        shutil.rmtree(folder / "notice", ignore_errors=True)
        return manifest
    return manifest.model_copy(update={"artifacts": (notice,)})


def _explain(attempt: _Attempt, error: Exception) -> tuple[str, bool]:
    """Why there is no result, in one sentence, and whether another attempt may cure it."""
    match error:
        case SoftTimeLimitExceeded():
            limit = attempt.spec.time_limit_seconds
            reason = f"took longer than {limit} s; stopped in step {attempt.step!r}"
        case SeriesRefused() | ModelRefused() | weights.WeightsError() | anomaly.OutsideDomain():
            reason = str(error)
        case ArtifactRefused():
            reason = f"the result did not pass the gate: {error}"
        case OSError():  # its message holds a path of ours, never a value of the patient's
            return f"step {attempt.step!r}: {type(error).__name__}: {error}", True
        case MemoryError() | torch.OutOfMemoryError():
            return f"not enough memory in step {attempt.step!r}", True
        case _:  # the message may quote a header, so only the kind and the place are told
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            reason = f"internal error in step {attempt.step!r}: {type(error).__name__} at {where}"
            log.error("job %s: %s", attempt.spec.job_id, reason)
    return reason, False


def _produce(
    attempt: _Attempt, data: Path, device: str, now: datetime, folder: Path
) -> list[ProducedArtifact]:
    spec = attempt.spec
    with attempt.timed("load"):
        model = load_model(spec.pipeline.model, device, attempt.precision)
        attempt.model, attempt.weights_sha256 = f"{model.name} {model.version}", model.weights_sha256
        outputs = _outputs(spec, model)
    with attempt.timed("read"):
        volumes = read_volumes([data / _inside(instance.path) for instance in spec.instances])
        attempt.notes += dict.fromkeys(note for volume in volumes for note in volume.notes)
        if len(volumes) > 1:
            attempt.notes.append(f"read as {len(volumes)} volumes: {_labels(volumes)}")
    with attempt.timed("domain"):
        if model.kind == "denoiser":
            parts = [(volume, volume.label, admit(volume, model)) for volume in volumes]
        else:
            parts = judged(volumes, model, attempt.notes)
        attempt.notes += dict.fromkeys(f"amber: {note}" for _, _, verdict in parts for note in verdict.notes)
    provenance = Provenance(
        pipeline=spec.pipeline.name,
        model=model.name,
        version=model.version,
        weights_sha256=model.weights_sha256,
        strength=_strength(model, spec),
        limit_sigma=spec.pipeline.limit_sigma,
        false_positive_rate=_false_positive_rate(model),
        marks={1: "brighter", -1: "darker"}.get(model.card.get("input", {}).get("sign"), "unlike"),
        supersedes=spec.supersedes,
        domain="; ".join(dict.fromkeys(verdict.tag for _, _, verdict in parts if verdict.tag)),
        computed=" ".join(word for word in (device, attempt.precision) if word in ("openvino", "bfloat16")),
    )
    if model.kind == "denoiser":
        return _derived(attempt, model, volumes, provenance, folder, now, outputs)
    return _bundles(attempt, model, parts, provenance, folder, now, outputs)


def _derived(
    attempt: _Attempt,
    model: LoadedModel,
    volumes: Sequence[Volume],
    provenance: Provenance,
    folder: Path,
    now: datetime,
    outputs: tuple[Output, ...],
) -> list[ProducedArtifact]:
    with attempt.timed("model"):
        parts = [(volume, _denoised(model, volume, attempt.spec)) for volume in volumes]
    artifacts: list[ProducedArtifact] = []
    with attempt.timed("write"):
        if "derived" in outputs:
            artifacts += write_parts(parts, provenance, folder, now, attempt.notes)
        if "capture" in outputs:
            artifacts += write_comparison(parts, provenance, folder, now, attempt.notes)
    with attempt.timed("gate"):
        bounded = parts if "derived" in outputs else [(volume, None) for volume in volumes]
        gate.check_parts(folder, artifacts, bounded)
    return artifacts


def _bundles(
    attempt: _Attempt,
    model: LoadedModel,
    parts: Sequence[tuple[Volume, str, Verdict]],
    provenance: Provenance,
    folder: Path,
    now: datetime,
    outputs: tuple[Output, ...],
) -> list[ProducedArtifact]:
    """The objects of each volume; those of several lie in a folder each."""
    artifacts: list[ProducedArtifact] = []
    for number, (volume, name, verdict) in enumerate(parts, start=1):
        own = replace(provenance, part=name, domain=verdict.tag)
        within, notes = str(number) if len(parts) > 1 else "", list[str]()
        try:
            with attempt.timed("model"):
                scores = anomaly.score(
                    model,
                    volume.voxels,
                    padding=volume.padding,
                    spacing=volume.spacing[1:],
                    slice_mm=None if volume.flat else volume.spacing[0],
                )
        except anomaly.OutsideDomain as outside:
            if number == len(parts) and not artifacts:
                raise
            attempt.notes.append(f"not judged: {name}: {outside}")
            continue
        with attempt.timed("write"):
            made = write_bundle(outputs, volume, scores, own, folder / within, now, notes)
        with attempt.timed("gate"):
            gate.check(folder / within, made, volume)
        artifacts += [a.model_copy(update={"path": str(PurePosixPath(within, a.path))}) for a in made]
        attempt.notes += [f"{name}: {note}" if within else note for note in notes]
    return artifacts


def _labels(volumes: Sequence[Volume]) -> str:
    """What tells volumes apart, the first few of many."""
    names = [volume.label or f"{'×'.join(map(str, volume.voxels.shape))}" for volume in volumes]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def load_model(name_or_path: str, device: str, precision: Precision = "float32") -> LoadedModel:
    """The model, loaded once a process and again when its folder changes. Raises WeightsError.

    `device` is a torch device or "openvino".
    """
    folder = weights.resolve(name_or_path)
    return _loaded(folder, (folder / weights.CARD).stat().st_mtime_ns, device, precision)


@lru_cache(maxsize=8)
def _loaded(folder: Path, _changed: int, device: str, precision: Precision) -> LoadedModel:
    model = weights.load(str(folder), torch_device(device))
    backend: Backend = "openvino" if device == OPENVINO else "torch"
    return accelerate(model, backend, precision, torch.get_num_threads())


def _inside(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise SeriesRefused("The job names a file outside of the data folder.")
    return relative


def _outputs(spec: JobSpec, model: LoadedModel) -> tuple[Output, ...]:
    """The outputs asked for that the model's kind gives; of the default ones those that it gives."""
    possible = OUTPUTS_OF.get(model.kind)
    if possible is None:
        raise ModelRefused(f"a model of kind {model.kind} gives nothing to send; see `aenode models encode`")
    asked = spec.pipeline.outputs
    given = tuple(output for output in asked if output in possible)
    if given == asked or (given and asked == DEFAULT_OUTPUTS):
        return given
    raise ModelRefused(
        f"pipeline {spec.pipeline.name!r} asks model {model.name!r} for "
        f"{', '.join(o for o in asked if o not in possible)}; "
        f"a model of kind {model.kind} gives {', '.join(possible)}"
    )


def _denoised(model: LoadedModel, volume: Volume, spec: JobSpec) -> denoiser.Denoised:
    try:
        return denoiser.denoise(
            model,
            volume.voxels,
            padding=volume.padding,
            neighbours=volume.neighbours,
            strength=_strength(model, spec),
            limit_sigma=spec.pipeline.limit_sigma,
        )
    except ValueError as error:  # settings above the model's ceiling, values that are not finite
        raise ModelRefused(f"model {model.name!r}: {error}") from error


def _strength(model: LoadedModel, spec: JobSpec) -> float:
    """The pipeline's, else the model's own; 0 for models that change no image."""
    asked = spec.pipeline.strength
    return float(model.card.get("strength", 0.0)) if asked is None else asked


def _false_positive_rate(model: LoadedModel) -> float | None:
    rate = model.calibration.get("false_positive_rate")
    return None if rate is None else float(rate[0])

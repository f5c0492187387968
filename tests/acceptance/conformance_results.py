"""What becomes of every file and series of the test data: a result, or the sentence that refuses it.

    python -m tests.acceptance.conformance_results > deploy/conformance-results.md

The results are written with a change that uses the whole bound of each slice, and with one round region
in every second slice: what is shown is reading, encoding, gate and validity, not a model.
"""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom

from node.errors import ArtifactRefused, SeriesRefused
from tests import validators
from tests.conftest import ROOT
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers.read import Volume, read_volumes
from workers.write import gate
from workers.write.bundle import write_bundle
from workers.write.derived import write_parts

TABLE = ROOT / "deploy" / "conformance-results.md"
HEAD = """\
# What becomes of the test data

One line for each file and series of `dicom-variety` and `dicom-series`: what it is read as and what is
written for it, or the sentence that refuses it. A result has passed the gate, and `dciodvfy` finds no error
in it that its source does not have. Written by
`python -m tests.acceptance.conformance_results > deploy/conformance-results.md`, held in sync by
`pytest tests/acceptance/test_conformance_results.py`.

| Source | Outcome |
|---|---|
"""


class Outcome(NamedTuple):
    """One line of the table."""

    source: str
    text: str
    new_errors: list[str]  # of dciodvfy, that the source does not have


def sources(data: Path) -> Iterator[tuple[str, list[Path]]]:
    """Every file of dicom-variety and every folder of dicom-series with its name."""
    for path in sorted((data / "dicom-variety").iterdir()):
        if path.suffix not in (".csv", ".md"):
            yield path.name, [path]
    for folder in sorted(p for p in (data / "dicom-series").iterdir() if p.is_dir()):
        yield f"{folder.name}/", sorted(folder.iterdir())


def outcomes(data: Path) -> list[Outcome]:
    """The lines in the order of their names. Anything that is raised but a refusal passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, over values of the sources
        return [_outcome(name, paths) for name, paths in sources(data)]


def _outcome(name: str, paths: Sequence[Path]) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="aenode-"))
    try:
        volumes = read_volumes(paths)
        parts = [(volume, denoised(volume)) for volume in volumes]
        artifacts = write_parts(parts, PROVENANCE, folder, NOW)
        gate.check_parts(folder, artifacts, parts)
        roles = _structured(volumes, folder)
        by_source = {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in paths}
        first = pydicom.dcmread(folder / artifacts[0].path, stop_before_pixels=True)
        source = by_source[str(first.SourceImageSequence[0].ReferencedSOPInstanceUID)]
        new = set(_errors(folder / artifacts[0].path)) - set(_errors(source))
        text = f"{_read_as(volumes)} → {len(artifacts)} derived{roles}"
        return Outcome(name, text, sorted(e for e in new if "Referenced SOP Instance UID" not in e))
    except (SeriesRefused, ArtifactRefused) as refused:
        return Outcome(name, f"refused: {refused}".replace("|", " "), [])
    finally:
        shutil.rmtree(folder)


def _structured(volumes: Sequence[Volume], folder: Path) -> str:
    """Which objects an anomaly result of each volume can have beside captures; each has passed the gate."""
    roles, found = ("segmentation", "report"), dict[str, None]()
    for number, volume in enumerate(volumes):
        if not np.isfinite(volume.spacing[1]):
            continue
        own = folder / str(number)
        artifacts = write_bundle(roles, volume, scores(volume, peak=9.0), PROVENANCE, own, NOW, [])
        gate.check(own, artifacts, volume)
        found |= dict.fromkeys(artifact.role for artifact in artifacts)
    return "".join(f", {role}" for role in found)


def _errors(path: Path) -> list[str]:
    return [line.split(": ", 1)[1] for line in validators.dciodvfy(path)]


def _read_as(volumes: Sequence[Volume]) -> str:
    shapes = sorted({"×".join(map(str, volume.voxels.shape)) for volume in volumes})
    many = f"{len(volumes)} volumes of " if len(volumes) > 1 else ""
    colour = ", colour" if volumes[0].colour is not None else ""
    return f"{volumes[0].modality} {many}{' and '.join(shapes)}{colour}"


def table(found: Sequence[Outcome]) -> str:
    """The document."""
    results = sum(not outcome.text.startswith("refused") for outcome in found)
    lines = "".join(f"| {outcome.source} | {outcome.text} |\n" for outcome in found)
    return f"{HEAD}{lines}\n{results} of {len(found)} give a result, {len(found) - results} a reason.\n"


def main() -> None:
    """Print the table for the data beside the checkout."""
    sys.stdout.write(table(outcomes(ROOT.parent / "shared" / "data")))


if __name__ == "__main__":
    main()

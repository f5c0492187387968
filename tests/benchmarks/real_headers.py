"""How many real headers become derived images and captures without an error of dciodvfy.

    python -m tests.benchmarks.real_headers [DATA]

The first image of every folder below DATA (default: ../shared/data), and every file of dicom-variety,
is read, written and gated; what the reader refuses is counted apart.
"""

import logging
import math
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from node.errors import AenodeError, SeriesRefused
from tests.conftest import ROOT
from tests.validators import dciodvfy
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers.read import read_series
from workers.write import gate
from workers.write.capture import write_captures
from workers.write.derived import write_derived


def images(data: Path) -> Iterator[Path]:
    """One file a folder, and all of the folder of odd ones."""
    for folder in sorted({path.parent for path in data.rglob("*.dcm")}):
        files = sorted(folder.glob("*.dcm"))
        yield from files if folder.name == "dicom-variety" else files[:1]


def errors_of(path: Path) -> list[str]:
    """What dciodvfy and the gate say of the results of one image. Raises SeriesRefused."""
    volume = read_series([path])
    result = denoised(volume)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            derived = write_derived(volume, result, PROVENANCE, folder, NOW)
            measured = math.isfinite(volume.spacing[1])  # else there is no map, and so no capture
            captures = write_captures(volume, scores(volume), PROVENANCE, folder, NOW) if measured else []
            gate.check(folder, derived, volume, result)
            gate.check(folder, captures, volume)
        except AenodeError as error:
            return [str(error)]
        return dciodvfy(*(folder / artifact.path for artifact in (*derived, *captures)))


def main(data: Path) -> None:
    """Print the errors, then the counts."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for path in images(data):
        try:
            found = errors_of(path)
        except SeriesRefused:
            counts["refused by the reader"] += 1
            continue
        counts["with errors" if found else "without an error"] += 1
        for error in found:
            print(f"{path.relative_to(data)}: {error}")
    print(dict(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data")

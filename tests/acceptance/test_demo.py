"""The demo: what a person sees first."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.timeout(170)
def test_the_demo_brings_every_kind_of_result_back(tmp_path: Path) -> None:
    """A phantom goes in; a derived series, captures, a segmentation, a report and a picture come back."""
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "node", "demo", "--slices", "8", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=160)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert {result["role"] for result in said["results"]} == {"derived", "capture", "segmentation", "report"}
    for result in said["results"]:
        assert len(list(Path(result["folder"]).iterdir())) == result["instances"]
    with Image.open(said["picture"]) as picture:
        assert min(picture.size) > 1000
    again = subprocess.run(
        [*command, "--slices", "0"], capture_output=True, text=True, check=False, timeout=60
    )
    assert again.returncode != 0
    assert "Traceback" not in again.stderr

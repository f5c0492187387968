"""The phantom as a CT series, and the picture of what was made of it."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from models.phantom import ct_series
from tests.workers.results_made import NOW, PROVENANCE, denoised, iod_errors, scores
from workers import picture
from workers.read import read_series
from workers.write.capture import write_captures
from workers.write.derived import write_derived
from workers.write.phantom import main, write_phantom_series


def test_the_phantom_is_a_valid_ct_series(tmp_path: Path) -> None:
    """Its files have no IOD error, hold the phantom's values rounded to 1 HU, and lie as it says."""
    paths = write_phantom_series(tmp_path, slices=3, size=96, seed=5, dose=0.3, now=NOW)
    assert iod_errors(*paths) == []
    volume = read_series(paths)
    truth = ct_series(slices=3, size=96, seed=5, dose=0.3)
    assert np.abs(volume.voxels - truth.noisy.clip(-1024, 3071)).max() <= 0.501
    assert np.allclose(volume.spacing, truth.spacing, atol=1e-4)
    assert volume.headers[0].PatientID == "PHANTOM-5"
    assert (volume.headers[0].StudyDate, volume.headers[0].TimezoneOffsetFromUTC) == ("20260304", "+0000")


def test_the_same_phantom_has_the_same_uids(tmp_path: Path) -> None:
    """Files depend on the arguments only; another seed or time is another study."""
    settings = {"slices": 1, "size": 64, "dose": 0.5}
    first = write_phantom_series(tmp_path / "a", seed=1, now=NOW, **settings)[0].read_bytes()
    assert write_phantom_series(tmp_path / "b", seed=1, now=NOW, **settings)[0].read_bytes() == first
    other = write_phantom_series(tmp_path / "c", seed=2, now=NOW, **settings)[0]
    later = write_phantom_series(tmp_path / "d", seed=1, now=datetime(2027, 1, 1, tzinfo=UTC), **settings)[0]
    studies = {pydicom.dcmread(p).StudyInstanceUID for p in (tmp_path / "a/0001.dcm", other, later)}
    assert len(studies) == 3


def test_the_picture_shows_all_four_panels(tmp_path: Path) -> None:
    """From the files alone: input, denoised, difference and anomaly map of a slice that a page shows."""
    main([str(tmp_path / "in"), "--slices", "3", "--size", "96", "--seed", "2"])
    volume = read_series(sorted((tmp_path / "in").iterdir()))
    write_derived(volume, denoised(volume), PROVENANCE, tmp_path / "results", NOW)
    write_captures(volume, scores(volume), PROVENANCE, tmp_path / "results", NOW)
    out = tmp_path / "side.png"
    arguments = [str(out), "--source", str(tmp_path / "in"), "--results", str(tmp_path / "results")]
    assert picture.main(arguments) == 0
    side = 2 * picture.PANEL + 3 * picture.GAP
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == (picture.HEAD + 2 * (picture.PANEL + picture.CAPTION + picture.GAP), side, 3)
    panels = [
        drawn[y + picture.CAPTION : y + picture.PANEL, x : x + picture.PANEL]
        for y in (picture.HEAD, picture.HEAD + picture.PANEL + picture.CAPTION + picture.GAP)
        for x in (picture.GAP, 2 * picture.GAP + picture.PANEL)
    ]
    assert all(panel.std() > 10 for panel in panels)
    heat = [np.ptp(panel.astype(int), axis=-1).max() > 60 for panel in panels]
    assert heat == [False, False, True, True]  # the difference has colours of its own


def test_results_without_their_source_give_no_picture(tmp_path: Path) -> None:
    """Folders that do not belong together are said to, and nothing is written."""
    for name in ("in", "results"):
        (tmp_path / name).mkdir()
    out = tmp_path / "side.png"
    assert picture.main([str(out), "--source", str(tmp_path / "in"), "--results", str(tmp_path)]) == 1
    assert not out.exists()

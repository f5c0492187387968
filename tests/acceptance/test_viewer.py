"""What a radiologist sees: the results of a real series in OHIF, opened one after another.

Screenshots are kept beside the test's temporary files for a look by eye.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from models.anomaly import AnomalyScores
from tests.acceptance import viewer
from tests.peers import LOOPBACK, Orthanc, wait_for
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers.read import Volume, read_series
from workers.write.bundle import write_bundle
from workers.write.derived import write_derived
from workers.write.findings import Marked, marked_of

STUDY = "services.displaySetService.activeDisplaySets"
VIEWPORT = (
    "services.cornerstoneViewportService.getCornerstoneViewport"
    "(services.viewportGridService.getActiveViewportId())"
)
SHOW = """uid => services.viewportGridService.setDisplaySetsForViewports(
    [{viewportId: services.viewportGridService.getActiveViewportId(), displaySetInstanceUIDs: [uid]}])"""
# Marked pixels of the overlay by the SOP Instance UID of the image that they lie on.
OVERLAY = """() => {
  const found = {};
  for (const id of services.segmentationService.getSegmentations()[0].representationData.Labelmap.imageIds) {
    const image = cornerstone.cache.getImage(id);
    if (!image) return null;
    const uid = image.referencedImageId.split('/instances/')[1].split('/')[0];
    found[uid] = image.voxelManager.getScalarData().reduce((sum, value) => sum + (value > 0), 0);
  }
  return found;
}"""
REGIONS = """uid => services.displaySetService.getDisplaySetByUID(uid).measurements.map(m => ({
  tracking: m.TrackingUniqueIdentifier, loaded: m.loaded,
  image: m.imageId ? m.imageId.split('/instances/')[1].split('/')[0] : '' }))"""


VIEW = (slice(160, 740), slice(290, 1220))  # the viewport below the viewer's questions


def amber(picture: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a picture has the colour of our label."""
    return (picture[..., 0] > 200) & (picture[..., 1] > 130) & (picture[..., 2] < 110)


class Opened:
    """A study that is open in the viewer."""

    def __init__(self, page: Page, volume: Volume, result: AnomalyScores, shots: Path) -> None:
        self.page = page
        self.volume = volume
        self.found: Marked = marked_of(volume, result, PROVENANCE)
        self.shots = shots
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def series(self, words: str) -> str:
        """The display set whose description holds these words."""
        found: list[str] = self.page.evaluate(
            f"words => {STUDY}.filter(d => d.SeriesDescription.includes(words))"
            ".map(d => d.displaySetInstanceUID)",
            words,
        )
        assert len(found) == 1, found
        return found[0]

    def show(self, words: str, until: str) -> str:
        """Open a series and wait until the JavaScript condition holds; its display set."""
        self.errors.clear()
        uid = self.series(words)
        self.page.evaluate(SHOW, uid)
        self.page.wait_for_function(until, arg=uid, timeout=30_000)
        return uid

    def shown_uid(self) -> str:
        """The SOP Instance UID of the image in the viewport."""
        image: str = self.page.evaluate(f"{VIEWPORT}.getCurrentImageId()")
        return image.split("/instances/")[1].split("/", maxsplit=1)[0]

    def looks(self, name: str, so: Callable[[NDArray[np.int64]], bool]) -> None:
        """Wait until the picture in the viewport (Y, X, 3) is so; the last one is kept under `name`."""
        path = self.shots / f"{name}.png"

        def seen() -> bool:
            self.page.screenshot(path=path)
            return so(np.asarray(Image.open(path).convert("RGB"), np.int64)[VIEW])

        wait_for(seen, seconds=15, what=f"the picture of the {name}")


@pytest.fixture(scope="module")
def opened(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The study with its source and results in Orthanc, open in OHIF."""
    folder = tmp_path_factory.mktemp("viewer")
    sources = sorted((data_dir / "dicom-series/mr_siemens_avanto_liver_haste_cor").iterdir())
    volume = read_series(sources)
    result = scores(volume)
    artifacts = write_derived(volume, denoised(volume, strength=0.1), PROVENANCE, folder, NOW)
    roles = ("capture", "segmentation", "report", "parametric")
    artifacts += write_bundle(roles, volume, result, PROVENANCE, folder, NOW, [])
    with Orthanc(folder / "orthanc") as archive:
        for path in (*sources, *(folder / artifact.path for artifact in artifacts)):
            requests.post(
                f"http://{LOOPBACK}:{archive.http_port}/instances", data=path.read_bytes(), timeout=30
            ).raise_for_status()
        with viewer.served(archive) as address, viewer.browser() as page:
            study = Opened(page, volume, result, folder)
            page.goto(f"{address}/viewer?StudyInstanceUIDs={volume.headers[0].StudyInstanceUID}")
            page.wait_for_function(f"window.services && {STUDY}.length === 6", timeout=60_000)
            page.wait_for_function(f"{VIEWPORT} && {VIEWPORT}.getCurrentImageId()", timeout=60_000)
            page.get_by_text("Skip all").click(timeout=20_000)
            yield study


ON_SCREEN = (
    "uid => services.viewportGridService.getDisplaySetsUIDsForViewport"
    "(services.viewportGridService.getActiveViewportId()).includes(uid)"
    f" && {VIEWPORT} && {VIEWPORT}.getCurrentImageId()"
    " && cornerstone.cache.getImage("
    f"{VIEWPORT}.getCurrentImageId())"
)


def test_the_derived_series_opens_as_a_stack(opened: Opened) -> None:
    """All of its images are there, and one is on the screen without an error."""
    uid = opened.show("AI denoised", ON_SCREEN)
    count = opened.page.evaluate(
        "uid => services.displaySetService.getDisplaySetByUID(uid).numImageFrames", uid
    )
    assert count == len(opened.volume.headers)
    assert opened.errors == []
    opened.looks("derived", lambda picture: bool(picture[150:450, 120:800].std() > 15))


def test_the_capture_opens_in_colour(opened: Opened) -> None:
    """The summary page is on the screen, with its amber label."""
    opened.show("AI anomaly", ON_SCREEN)
    assert opened.errors == []
    opened.looks("capture", lambda picture: bool(amber(picture).mean() > 0.002))


def test_the_overlay_lies_on_the_slices_it_was_made_from(opened: Opened) -> None:
    """The viewer's own label map has on each source image as many pixels as the result has on that slice."""
    opened.show(
        "AI regions",
        "uid => services.segmentationService.getSegmentations().length === 1"
        f" && ({OVERLAY})() !== null && Object.values(({OVERLAY})()).some(n => n > 0)",
    )
    overlay: dict[str, int] = opened.page.evaluate(OVERLAY)
    expected = {
        str(header.SOPInstanceUID): int((plane > 0).sum())
        for header, plane in zip(opened.volume.headers, opened.found.labels, strict=True)
    }
    assert overlay == expected
    assert opened.errors == []
    assert overlay[opened.shown_uid()] > 0  # it jumps to a slice with a region
    coloured = 0.01  # of the viewport; the source is grey
    opened.looks("segmentation", lambda p: bool((np.ptp(p, axis=-1) > 25).mean() > coloured))


def test_the_report_opens_with_its_regions_on_their_slices(opened: Opened) -> None:
    """Every finding is loaded on the image that it was found on, and the first one is shown."""
    uid = opened.show(
        "AI findings", f"uid => ({REGIONS})(uid).length && ({REGIONS})(uid).every(m => m.loaded)"
    )
    regions = opened.page.evaluate(REGIONS, uid)
    expected = {
        str(finding.tracking_uid): str(opened.volume.headers[finding.key].SOPInstanceUID)
        for finding in opened.found.findings
    }
    assert {region["tracking"]: region["image"] for region in regions} == expected
    opened.page.wait_for_function(ON_SCREEN.replace("includes(uid)", "length"), timeout=20_000)
    assert opened.errors == []
    assert opened.shown_uid() in expected.values()
    # the outline and its measurements
    opened.looks("report", lambda p: int(((p[..., 1] > 150) & (p[..., [0, 2]] < 100).all(-1)).sum()) > 200)


def test_the_parametric_map_opens_on_its_slices(opened: Opened) -> None:
    """The map is shown over its source without an error."""
    opened.show("AI score", f"uid => {VIEWPORT} && {VIEWPORT}.type === 'orthographic'")
    opened.looks("parametric", lambda p: bool((np.ptp(p, axis=-1) > 25).mean() > 0.01))
    assert opened.errors == []

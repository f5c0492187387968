"""Training and test data from disk: DICOM folders, NIfTI, npz and pictures, as cases grouped by person.

    DICOM   any folder; a series that makes one stack becomes one case, other slices stand alone.
            The person is PatientID, or the folder's name where it is empty.
    NIfTI   one volume a file, brought to DICOM's axial view (row 0 anterior, column 0 right). A file
            whose name holds "mask" or "lesion" is the truth of the other files in its folder. The
            person is that folder; of a folder with several volumes name the one, such as T1.nii.gz.
    JPEG, PNG, zip of them   see workers.training_pictures; for radiographs only.
    npz     "image" (N, Y, X); optional "person" (N,), "spacing" (2,) in mm and "modality". Without
            "person" a meta.csv beside it with the columns split, index, subject says whose each is.

Persons leave this module as hashes: a split needs to know that two slices are of one person, and
nobody needs to know who it is.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from models.cases import Case
from node.errors import SeriesRefused
from workers.read import read_series
from workers.training_pictures import DataRefused, is_picture, picture_cases

__all__ = ["DataRefused", "TrainingData", "read_cases"]

_IGNORED = frozenset({".md", ".txt", ".csv", ".tsv", ".json", ".png", ".toml"})
_PICTURED = frozenset({"DX", "CR"})  # modalities whose images may come as pictures


@dataclass
class TrainingData:
    """What was read, and a sentence for everything that was left out."""

    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def people(self) -> int:
        """How many different persons there are."""
        return len({case.person for case in self.cases})


def read_cases(
    sources: Sequence[Path],
    *,
    modality: str,
    pixel_mm: float | None = None,
    volume_name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Read all cases of `modality` under the given files and folders.

    `pixel_mm` is the pixel size of npz files that do not say it; `volume_name`, such as "T1.nii.gz",
    picks one volume of folders with several. Raises DataRefused where a source is absent, a file is
    damaged, or nothing is found.
    """
    files = [path for source in sources for path in _files(source)]
    found = TrainingData()
    dicom: list[tuple[pydicom.Dataset, Path]] = []
    ignored = 0
    for number, path in enumerate(files, start=1):
        name = path.name.lower()
        if name.endswith(".npz"):
            found.cases += _npz(path, modality, pixel_mm)
        elif name.endswith((".nii", ".nii.gz")):
            if _is_truth(path) or (volume_name is not None and path.name != volume_name):
                ignored += not _is_truth(path)
            else:
                found.cases.append(_nifti(path, modality))
        elif modality in _PICTURED and is_picture(path):
            found.cases += [
                replace(c, person=_person(c.person)) for c in picture_cases(path, modality, pixel_mm)
            ]
        elif path.suffix.lower() in _IGNORED or name.startswith("."):
            ignored += 1
        else:
            _collect_dicom(path, modality, dicom, found.notes)
        if progress is not None:
            progress(number, len(files))
    found.cases += _cases_of_dicom(dicom, found.notes)
    if ignored:
        found.notes.append(f"{ignored} files that are no images of this kind were left out")
    if not found.cases:
        listed = ", ".join(str(source) for source in sources)
        raise DataRefused(f"no {modality} image is found in {listed}")
    return found


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    raise DataRefused(f"{source} does not exist")


def _person(*words: str) -> str:
    return sha256("\0".join(words).encode()).hexdigest()[:16]


def _npz(path: Path, modality: str, pixel_mm: float | None) -> list[Case]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path} is not an archive of plain arrays: {error}") from error
    images = arrays.get("image")
    if images is None or images.ndim != 3:
        raise DataRefused(f'{path} has no array "image" of (N, Y, X)')
    if str(arrays.get("modality", modality)) != modality:
        raise DataRefused(f"{path} holds {arrays['modality']}, not {modality}")
    if "spacing" in arrays:
        spacing = (float(arrays["spacing"][0]), float(arrays["spacing"][1]))
    elif pixel_mm is not None:
        spacing = (pixel_mm, pixel_mm)
    else:
        raise DataRefused(f'{path} has no "spacing": give the pixel size with --pixel-mm')
    people = arrays["person"].astype(str) if "person" in arrays else _people_of_table(path, len(images))
    if len(people) != len(images):
        raise DataRefused(f"{path} has {len(images)} images and {len(people)} persons")
    slices: defaultdict[str, list[int]] = defaultdict(list)
    for index, person in enumerate(people):
        slices[str(person)].append(index)
    return [
        _case(_person(person), path.name, modality, images[chosen].astype(np.float32), spacing)
        for person, chosen in slices.items()
    ]


def _people_of_table(path: Path, count: int) -> NDArray[np.str_]:
    table = path.with_name("meta.csv")
    if not table.is_file():
        raise DataRefused(f'{path} has no "person" and no meta.csv beside it: whose is which slice?')
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("split") == path.stem]
    try:
        people = {int(row["index"]): row["subject"] for row in rows}
        return np.array([people[index] for index in range(count)])
    except (KeyError, ValueError) as error:
        raise DataRefused(f"{table} does not name the person of slice {error} of {path.name}") from error


def _is_truth(path: Path) -> bool:
    return "mask" in path.name.lower() or "lesion" in path.name.lower()


def _nifti(path: Path, modality: str) -> Case:
    volume, spacing, slice_mm = _axial(path)
    truths = [p for p in sorted(path.parent.glob("*.nii*")) if _is_truth(p)]
    lesion = _axial(truths[0])[0] > 0.5 if len(truths) == 1 else None
    if lesion is not None and lesion.shape != volume.shape:
        raise DataRefused(f"{truths[0]} has another shape than {path.name}")
    person = _person(path.parent.name if lesion is not None else path.name)
    return _case(person, path.name, modality, volume, spacing, slice_mm, lesion)


def _axial(path: Path) -> tuple[NDArray[np.float32], tuple[float, float], float]:
    """A volume (Z, Y, X) as DICOM shows axial slices, upwards; (y, x) and z spacing in mm."""
    canonical: Any = nibabel.as_closest_canonical
    try:
        image = canonical(nibabel.load(path))
        data = np.asarray(image.dataobj, np.float32)
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise DataRefused(f"{path} cannot be read as NIfTI: {error}") from error
    if data.ndim != 3:
        raise DataRefused(f"{path} has {data.ndim} dimensions; a volume has 3")
    x, y, z = (float(size) for size in image.header.get_zooms()[:3])
    return np.ascontiguousarray(data.transpose(2, 1, 0)[:, ::-1, ::-1]), (y, x), z


def _collect_dicom(
    path: Path, modality: str, found: list[tuple[pydicom.Dataset, Path]], notes: list[str]
) -> None:
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        notes.append(f"{path.name} is no DICOM file")
        return
    except (OSError, EOFError, ValueError) as error:
        raise DataRefused(f"{path} cannot be read: {error}") from error
    if ds.get("Modality") == modality:
        found.append((ds, path))
    else:
        notes.append(f"{path.name} is no {modality} image")


def _cases_of_dicom(found: list[tuple[pydicom.Dataset, Path]], notes: list[str]) -> list[Case]:
    series: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
    for ds, path in found:
        person = _person(str(ds.get("PatientID", "")).strip() or path.parent.name)
        series[(person, str(ds.get("SeriesInstanceUID", path)))].append(path)
    cases = []
    for (person, _), paths in series.items():
        try:
            cases.append(_read(person, paths))
        except SeriesRefused as error:
            # Slices that make no stack still show anatomy; each is read by the same rules, alone.
            if len(paths) > 1:
                notes.append(f"{len(paths)} slices are read one by one: {error}")
            for path in paths:
                try:
                    cases.append(_read(person, [path]))
                except SeriesRefused as reason:
                    notes.append(f"{path.name} is left out: {reason}")
    return cases


def _read(person: str, paths: Sequence[Path]) -> Case:
    volume = read_series(paths, missing="note", threads=1)
    near = len(volume.positions) > 2 and bool(
        np.all(volume.neighbours[1:-1, 0] != volume.neighbours[1:-1, 1])
    )
    return Case(
        person,
        f"{len(paths)} DICOM slices",
        volume.modality,
        volume.voxels,
        volume.padding,
        volume.spacing[1:],
        volume.spacing[0] if near else None,
        neighbours=volume.neighbours,
    )


def _case(
    person: str,
    source: str,
    modality: str,
    volume: NDArray[np.float32],
    spacing: tuple[float, float],
    slice_mm: float | None = None,
    lesion: NDArray[np.bool_] | None = None,
) -> Case:
    padding = np.zeros(volume.shape, np.bool_)
    return Case(person, source, modality, volume, padding, spacing, slice_mm, lesion)

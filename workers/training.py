"""Training and test data from disk: DICOM folders, NIfTI, npz and pictures, as cases grouped by person.

    DICOM   any folder; a series that makes one stack becomes one case, other slices stand alone.
            The person is PatientID, or the folder's name where it is empty.
    NIfTI   one volume a file, brought to DICOM's axial view (row 0 anterior, column 0 right). A file
            whose name holds "mask" or "lesion" is the truth of the other files in its folder, or, of
            several masks, of the file whose name it begins with. The person is the BIDS label sub-XXX,
            else the file's folder below the source, else the file's name: see workers.training_persons.
            Of a folder with several volumes name the one, such as T1.nii.gz.
    JPEG, PNG, zip of them   see workers.training_pictures; for radiographs only.
    npz     "image" (N, Y, X); optional "person" (N,), "spacing" (2,) in mm and "modality". Without
            "person" a meta.csv beside it with the columns split, index, subject says whose each is.

Values must be finite. Persons leave this module as hashes: a split needs to know that two slices are of
one person, and nobody needs to know who it is.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from workers.training_arrays import npz_cases
from workers.training_checks import DataRefused, require_finite, require_size
from workers.training_persons import hashed, named_by_place, stem_of
from workers.training_pictures import is_picture, picture_cases

__all__ = ["DataRefused", "TrainingData", "read_cases"]

_IGNORED = frozenset({".md", ".txt", ".csv", ".tsv", ".json", ".png", ".toml"})
_PICTURED = frozenset({"DX", "CR"})  # modalities whose images may come as pictures
_NO_NIFTI = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
)


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
    picks one volume of folders with several. A file that is named twice is read once. Raises DataRefused
    where a source is absent, a file is damaged or holds values that are not finite, or nothing is found.
    """
    if pixel_mm is not None:
        require_size((pixel_mm, pixel_mm), "--pixel-mm")
    found = TrainingData()
    files = _files(sources, found.notes)
    dicom: list[tuple[pydicom.Dataset, Path]] = []
    places: defaultdict[str, set[Path]] = defaultdict(set)
    ignored = 0
    for number, (path, source) in enumerate(files, start=1):
        name = path.name.lower()
        if name.endswith(".npz"):
            found.cases += npz_cases(path, modality, pixel_mm)
        elif name.endswith((".nii", ".nii.gz")):
            if _is_truth(path) or (volume_name is not None and path.name != volume_name):
                ignored += not _is_truth(path)
            else:
                found.cases.append(_nifti(path, source, modality, places))
        elif modality in _PICTURED and is_picture(path):
            found.cases += [
                replace(c, person=hashed(c.person)) for c in picture_cases(path, modality, pixel_mm)
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
    found.notes += _shared_names(places)
    if not found.cases:
        listed = ", ".join(str(source) for source in sources)
        raise DataRefused(f"no {modality} image is found in {listed}")
    return found


def _files(sources: Sequence[Path], notes: list[str]) -> list[tuple[Path, Path]]:
    """Each file once, and the folder in which the reading began, both resolved."""
    found: dict[Path, Path] = {}
    count = 0
    for source in sources:
        if source.is_dir():
            folder = source.resolve()
            files = sorted(path for path in folder.rglob("*") if path.is_file())
        elif source.is_file():
            # The folder is resolved and the name kept: a link may lead to a store of nameless files.
            folder = source.parent.resolve()
            files = [folder / source.name]
        else:
            raise DataRefused(f"{source} does not exist")
        count += len(files)
        for path in files:
            found.setdefault(path, folder)
    if count > len(found):
        notes.append(f"{count - len(found)} files were named twice and are read once")
    return list(found.items())


def _shared_names(places: Mapping[str, set[Path]]) -> list[str]:
    shared = [sorted(folders) for folders in places.values() if len(folders) > 1]
    if not shared:
        return []
    return [
        f"{len(shared)} names of people are in more than one place, such as {shared[0][0]} and "
        f"{shared[0][1]}: a name is taken as one person; give different people different names"
    ]


def _is_truth(path: Path) -> bool:
    return "mask" in path.name.lower() or "lesion" in path.name.lower()


def _nifti(path: Path, source: Path, modality: str, places: defaultdict[str, set[Path]]) -> Case:
    volume, spacing, slice_mm = _axial(path)
    truth, own = _truth_of(path)
    lesion = _axial(truth)[0] > 0.5 if truth is not None else None
    if lesion is not None and lesion.shape != volume.shape:
        raise DataRefused(f"{truth} has another shape than {path.name}")
    name, place = named_by_place(path, source, shared_mask=truth is not None and not own)
    places[name].add(place)
    padding = np.zeros(volume.shape, np.bool_)
    return Case(hashed(name), path.name, modality, volume, padding, spacing, slice_mm, lesion)


def _truth_of(path: Path) -> tuple[Path | None, bool]:
    """The mask of a volume, if there is one, and whether it is that volume's alone."""
    truths = [p for p in sorted(path.parent.glob("*.nii*")) if _is_truth(p)]
    begins = re.compile(re.escape(stem_of(path)) + r"(?![A-Za-z0-9])", re.IGNORECASE)
    own = [p for p in truths if begins.match(p.name)]
    if len(own) == 1:
        return own[0], True
    if len(truths) > 1:
        raise DataRefused(
            f"{path.parent} has {len(truths)} masks, and which is the truth of {path.name} cannot be told: "
            f"begin one mask's name with {stem_of(path)}"
        )
    return (truths[0] if truths else None), False


def _axial(path: Path) -> tuple[NDArray[np.float32], tuple[float, float], float]:
    """A volume (Z, Y, X) as DICOM shows axial slices, upwards; (y, x) and z spacing in mm."""
    canonical: Any = nibabel.as_closest_canonical
    try:
        image = canonical(nibabel.load(path))
        if image.get_data_dtype().kind not in "buif":
            raise DataRefused(f"{path} holds {image.get_data_dtype()}, not real numbers")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            data = np.asarray(image.dataobj, np.float32)
    except _NO_NIFTI as error:
        raise DataRefused(f"{path} cannot be read as NIfTI: {error}") from error
    if data.ndim != 3:
        raise DataRefused(f"{path} has {data.ndim} dimensions; a volume has 3")
    x, y, z = (float(size) for size in image.header.get_zooms()[:3])
    require_size((y, x), path)
    if not 0 < z < np.inf:
        raise DataRefused(f"{path}: a slice distance of {z:g} mm is none: it must be above 0")
    volume = np.ascontiguousarray(data.transpose(2, 1, 0)[:, ::-1, ::-1])
    require_finite(volume, path)
    return volume, (y, x), z


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
        person = hashed(str(ds.get("PatientID", "")).strip() or path.parent.name)
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
    for plane, path in zip(volume.voxels, volume.paths, strict=True):
        require_finite(plane[None], path)
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

"""Whose a NIfTI file is: it does not say, so its place and its name do.

One name is one person, as one PatientID is: wherever it is found, from whatever folder the reading
begins, on every machine. So a person in the training data is found again in the test data, and two people
must not have folders of one name. The name is, the first that there is:

1. a BIDS label, sub-XXX, of a folder on the way or of the file;
2. the nearest folder below the source that is not named after a scan (anat, ses-2, visit1, T1, 2024-05-01);
3. in the source itself, the file's name without its suffix and without such words at its end:
   IXI012-T1.nii.gz and IXI012-T2.nii.gz are of IXI012;
4. where nothing of that is left (T1.nii.gz), or one mask is the truth of all: the source's own folder.
"""

import re
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

_BIDS = re.compile(r"(?:^|_)(sub-[A-Za-z0-9]+)(?=_|\.|$)")
_SCAN = (
    r"(?:anat|func|dwi|fmap|perf|pet|nii|nifti|mri?|brain|derivatives|rawdata"
    r"|(?:ses|session|visit|study|exam|time|timepoint|tp|baseline|follow-?up|month)[-_]?\d*|ses-[a-z0-9]+"
    r"|(?:t1|t2|pd|flair|t2-?flair|swi|adc|mprage|t1map|t2star)(?:w|c|ce|gd|post|-?weighted)?"
    r"|\d{4}-\d{2}-\d{2})"
)
_NO_NAME = re.compile(rf"{_SCAN}|\d{{4}}-\d{{2}}-\d{{2}}[-_ \d:.T]*", re.IGNORECASE)
_AT_THE_END = re.compile(rf"(?:(?:^|[-_. ]){_SCAN})+$", re.IGNORECASE)


def hashed(name: str) -> str:
    """The hash by which a person is known outside of the readers."""
    return sha256(name.encode()).hexdigest()[:16]


def stem_of(path: Path) -> str:
    """The name of a NIfTI file without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def named_by_place(path: Path, source: Path, *, shared_mask: bool = False) -> tuple[str, Path]:
    """The person's name, and the folder in which that name stands.

    `source` is the folder in which the reading began, and holds `path`; both are resolved. `shared_mask`:
    a mask beside the file that is not the file's own alone.
    """
    below = [folder for folder in path.parents if source in folder.parents]
    above = _up_to_a_name(source)
    for folder in (*below, *above):
        if (label := _BIDS.search(folder.name)) is not None:
            return label[1], folder.parent
    if (label := _BIDS.search(path.name)) is not None:
        return label[1], path.parent
    for folder in below:
        if not _NO_NAME.fullmatch(folder.name):
            return folder.name, folder.parent
    own = _AT_THE_END.sub("", stem_of(path))
    if own and not shared_mask:
        return own, path.parent
    return above[-1].name or stem_of(path), above[-1].parent


def _up_to_a_name(source: Path) -> list[Path]:
    """The source and, as long as they are named after a scan, the folders above it."""
    found = [source]
    for inner, outer in pairwise((source, *source.parents)):
        if not _NO_NAME.fullmatch(inner.name):
            break
        found.append(outer)
    return found

"""Which files of a series make its stack: one series, one geometry, localizers left out."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from node.errors import SeriesRefused
from workers.read.decode import CODECS, NATIVE
from workers.read.header import read_header, require_sequences, syntax_of, text_of, uid_of
from workers.read.image import Image, image_of, is_localizer, named, require_identity

_SAME_COSINE = 2e-3  # 0.1 degrees: a pixel at the rim of a 512 matrix moves by half a pixel
_SAME_SPACING = 1e-3  # relative: half a pixel at the rim of a 512 matrix
_FEW_SCOUTS = 3
_ACROSS = np.radians(30)


def opened(paths: Sequence[Path]) -> list[tuple[Dataset, Path]]:
    """The headers of one series of one class that is read, in an order of their own."""
    if not paths:
        raise SeriesRefused("The series has no instances.")
    headers = [(read_header(Path(path)), Path(path)) for path in paths]
    for ds, path in headers:
        require_identity(ds, path)
        require_sequences(ds, named(ds))
    headers.sort(key=lambda found: text_of(found[0], "SOPInstanceUID"))
    _require_one_series([ds for ds, _ in headers])
    return headers


def images_of(headers: Sequence[tuple[Dataset, Path]]) -> tuple[list[Image], list[str]]:
    """The classic images of the stack; the order of the files changes nothing."""
    localizers = [ds for ds, _ in headers if is_localizer(ds)]
    if len(localizers) == len(headers):
        raise SeriesRefused(f"The series has localizers only ({len(localizers)}), no stack to work on.")
    images = [image_of(ds, path) for ds, path in headers if not is_localizer(ds)]
    for image in images:
        if syntax_of(image.header) not in NATIVE | CODECS.keys():
            raise SeriesRefused(
                f"Image {image.uid}: transfer syntax {syntax_of(image.header).name} is not decoded."
            )
    images, scouts = _without_scouts(images)
    left_out = [named(ds).removeprefix("Image ") for ds in localizers] + [image.uid for image in scouts]
    notes = [f"left out as localizer: {', '.join(left_out)}"] if left_out else []
    require_one_geometry(images)
    notes += _frame_notes(images)
    return images, notes


def _require_one_series(headers: Sequence[Dataset]) -> None:
    counts = Counter(uid_of(ds, "SOPInstanceUID") for ds in headers)
    uid, times = counts.most_common(1)[0]
    if times > 1:
        raise SeriesRefused(f"Image {uid} is there {times} times.")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"):
        _require_equal([(uid_of(ds, keyword), named(ds)) for ds in headers], keyword)
    patients = len({(text_of(ds, "PatientID"), text_of(ds, "IssuerOfPatientID")) for ds in headers})
    if patients > 1:  # whose they are is not told in a sentence
        raise SeriesRefused(f"Mixed series: its images have {patients} different PatientIDs.")


def _require_equal(values: Iterable[tuple[Hashable, str]], what: str) -> None:
    """Refuse where values differ, naming one image of the smaller part."""
    listed = list(values)
    counts = Counter(value for value, _ in listed).most_common()
    if len(counts) > 1:
        odd, odd_count = counts[-1]
        whose = next(name for value, name in listed if value == odd)
        raise SeriesRefused(
            f"Mixed series: {odd_count} of {len(listed)} images have {what} {odd or '(none)'} "
            f"({whose} is one), {counts[0][1]} have {counts[0][0] or '(none)'}."
        )


def _without_scouts(images: list[Image]) -> tuple[list[Image], list[Image]]:
    """Set apart the few images across a stack of one orientation: scouts that do not say LOCALIZER."""
    groups: list[list[Image]] = []
    for image in images:
        for group in groups:
            if _angle(group[0], image) < _ACROSS:
                group.append(image)
                break
        else:
            groups.append([image])
    groups.sort(key=len)
    scouts = [image for group in groups[:-1] for image in group]
    if len(scouts) > _FEW_SCOUTS or len(groups[-1]) < 5 * len(scouts):
        return images, []
    apart = {image.uid for image in scouts}
    return [image for image in images if image.uid not in apart], scouts


def _angle(one: Image, other: Image) -> float:
    cosine = np.cross(one.orientation[:3], one.orientation[3:]) @ np.cross(
        other.orientation[:3], other.orientation[3:]
    )
    return float(np.arccos(np.clip(cosine, -1, 1)))


def require_one_geometry(images: Sequence[Image]) -> None:
    """Refuse images of several sizes, orientations or pixel spacings."""
    _require_equal(((f"{i.rows}×{i.columns}", f"Image {i.uid}") for i in images), "Rows×Columns")
    orientation = np.median([image.orientation for image in images], axis=0)
    spacing = np.median([image.spacing for image in images], axis=0)
    for image in images:
        if np.abs(image.orientation - orientation).max() > _SAME_COSINE:
            cosines, usual = (
                "\\".join(f"{c:.4g}" for c in vector) for vector in (image.orientation, orientation)
            )
            raise SeriesRefused(
                f"Mixed series: Image {image.uid} has ImageOrientationPatient {cosines}, "
                f"most have about {usual}."
            )
        if np.abs(np.array(image.spacing) / spacing - 1).max() > _SAME_SPACING:
            raise SeriesRefused(
                f"Mixed series: Image {image.uid} has PixelSpacing "
                f"{image.spacing[0]:g}\\{image.spacing[1]:g}, most have {spacing[0]:g}\\{spacing[1]:g}."
            )


def _frame_notes(images: Sequence[Image]) -> list[str]:
    """Refuse two frames of reference; but a new one in every image is an anonymiser's work, and noted."""
    frames = [uid_of(image.header, "FrameOfReferenceUID") for image in images]
    if 2 < len(images) == len(set(frames)):
        return ["every image has a FrameOfReferenceUID of its own; their positions are taken as of one frame"]
    names = (f"Image {image.uid}" for image in images)
    _require_equal(zip(frames, names, strict=True), "FrameOfReferenceUID")
    return []

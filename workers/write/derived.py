"""The denoised series: the source's images with other pixel values, and nothing else moved.

Pixels are written back under the source's own slope, intercept and bits: the change is rounded to
stored values and added to what was stored, so an unchanged voxel stays bit for bit what it was.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from models.denoiser import Denoised
from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from workers.read import Volume
from workers.read.header import words_of
from workers.read.kinds import KINDS
from workers.write.findings import instance_names
from workers.write.frame_groups import put_frame_derivation
from workers.write.header import (
    fill_type_2,
    local_time,
    put_dates,
    series_description,
    series_number,
    taken_over,
)
from workers.write.history import put_lossy_history, put_references
from workers.write.part10 import save
from workers.write.provenance import (
    NOT_FOR_DIAGNOSIS,
    Provenance,
    code,
    contributing_equipment,
    put_superseded,
    result_uid,
    sources_key,
)

Part = tuple[Volume, Denoised]
SERIES_OFFSET = 1
_CODE = re.compile(r"[A-Z0-9 _]{0,16}")
_DESCRIPTION_LENGTH = 1024  # characters of an ST value


def write_derived(
    volume: Volume,
    denoised: Denoised,
    provenance: Provenance,
    folder: Path,
    now: datetime,
    notes: list[str] | None = None,
) -> list[ProducedArtifact]:
    """Write the denoised series of one volume to `folder`/derived. See `write_parts`."""
    return write_parts([(volume, denoised)], provenance, folder, now, notes)


def write_parts(
    parts: Sequence[Part],
    provenance: Provenance,
    folder: Path,
    now: datetime,
    notes: list[str] | None = None,
) -> list[ProducedArtifact]:
    """Write one derived object for each object of a series, all in one series, to `folder`/derived.

    `parts` are all volumes of the series with their results; single images come in the order of the
    volumes, a multi-frame object keeps the order of its frames. Attributes left out because their value
    is unlawful are named in `notes`. Raises ArtifactRefused where the source's kind cannot be written
    back.
    """
    for volume, denoised in parts:
        _require_derivable(volume, denoised.image)
    uid = uids_of("derived", parts, provenance)
    artifacts: list[ProducedArtifact] = []
    left_out: set[str] = set()
    for ds, faulty in _objects(parts, provenance, now):
        left_out.update(faulty)
        ds.SeriesInstanceUID = uid("series")
        source = str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID)
        ds.SOPInstanceUID = uid(source)
        path = Path("derived") / f"{len(artifacts) + 1:04}.dcm"
        artifacts.append(save(ds, folder, path, "derived"))
    if left_out and notes is not None:
        notes.append(f"left out of the derived images for unlawful values: {', '.join(sorted(left_out))}")
    return artifacts


def uids_of(role: str, parts: Sequence[Part], provenance: Provenance) -> Callable[[str], str]:
    """What names a denoised series' objects of a role: the same sources and settings give the same UIDs."""
    first = parts[0][1]
    settings = f"strength={first.strength!r} limit_sigma={first.limit_sigma!r}"
    key = sources_key(name for volume, _ in parts for name in instance_names(volume))
    return lambda what: result_uid(role, provenance, settings, key, what)


def _objects(
    parts: Sequence[Part], provenance: Provenance, now: datetime
) -> Iterator[tuple[Dataset, list[str]]]:
    """Every derived object with its pixels, and the keywords left out of it."""
    objects: dict[str, list[Part]] = {}
    for volume, denoised in parts:
        if volume.whole is not None:
            objects.setdefault(str(volume.whole.SOPInstanceUID), []).append((volume, denoised))
            continue
        for index, source in enumerate(volume.headers):
            ds, faulty = derived_header(source, provenance, denoised, [float(denoised.sigma[index])], now)
            put_references(ds, volume, [index])
            put_plane(ds, new_plane(volume, denoised, index))
            yield ds, faulty
    for own in objects.values():
        yield multi_frame(own, provenance, now)


def multi_frame(parts: Sequence[Part], provenance: Provenance, now: datetime) -> tuple[Dataset, list[str]]:
    """One multi-frame object from the volumes that its frames make, in the order of its frames."""
    volume, denoised = parts[0]
    whole = volume.whole
    assert whole is not None
    count = int(whole.get("NumberOfFrames") or 1)
    planes: list[NDArray[np.integer] | None] = [None] * count
    for part, result in parts:
        assert part.frames is not None
        for index, frame in enumerate(part.frames):
            planes[int(frame) - 1] = new_plane(part, result, index)
    there = [plane for plane in planes if plane is not None]
    if len(there) < count:
        raise ArtifactRefused([f"{count - len(there)} of {count} frames have no result"])
    sigma = [float(value) for _, result in parts for value in result.sigma]
    ds, faulty = derived_header(whole, provenance, denoised, sigma, now)
    put_references(ds, volume)
    for item in ds.SourceImageSequence:
        item.pop("ReferencedFrameNumber", None)  # all of them
    put_frame_derivation(ds, whole)
    put_plane(ds, np.stack(there))
    return ds, faulty


def new_plane(volume: Volume, denoised: Denoised, index: int) -> NDArray[np.integer]:
    """The new stored values of a slice, (Y, X), or (Y, X, 3) where it is colour."""
    change = denoised.image[index] - volume.voxels[index]
    if volume.colour is not None:
        return recoloured(volume.colour[index], change)
    header = volume.headers[index]
    return written_back(volume.stored[index], change, volume.padding[index], header)


def recoloured(rgb: NDArray[np.uint8], change: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGB (Y, X, 3) whose luminance changed by (Y, X): the same amount in each sample keeps the hue."""
    new = rgb.astype(np.int32) + np.rint(change).astype(np.int32)[..., None]
    return np.asarray(new.clip(0, 255), np.uint8)


def _require_derivable(volume: Volume, image: NDArray[np.float32]) -> None:
    faults = [
        f"images of SOP class {name} cannot be written back"
        for name in sorted({str(h.SOPClassUID) for h in volume.headers} - KINDS.keys())
    ]
    if any(h.get("ModalityLUTSequence") for h in volume.headers):
        faults.append("images with a modality lookup table cannot be written back")
    if image.shape != volume.voxels.shape:
        faults.append(f"the model returned shape {image.shape} for a volume of {volume.voxels.shape}")
    elif not np.isfinite(image[~volume.padding]).all():
        faults.append("the model returned values that are not finite")
    if faults:
        raise ArtifactRefused(faults)


def written_back(
    stored: NDArray[np.int32], change: NDArray[np.float32], padding: NDArray[np.bool_], source: Dataset
) -> NDArray[np.int32]:
    """Stored values (Y, X) after a change in modality units.

    Rounded to the nearest stored value, clipped to BitsStored; padding pixels are copied verbatim, and
    a computed value that would read as padding stops short of it on its source's side.
    """
    slope = float(source.get("RescaleSlope") or 1)
    safe = np.where(padding, 0, change).astype(np.float64)
    new = np.asarray(stored + np.rint(safe / slope), np.int64)
    low, high = stored_range(source)
    if source.get("Modality") in ("PT", "NM"):
        low = max(low, 0)  # neither activity nor a count is negative
    new = np.where(stored == new, new, new.clip(low, high))
    if (limits := padding_limits(source)) is not None:
        first, last = limits
        made = ~padding & (new >= first) & (new <= last)
        new = np.where(made & (stored > last), last + 1, new)
        new = np.where(made & (stored < first), first - 1, new)
        new = np.where(made & (stored >= first) & (stored <= last), stored, new)
    return np.asarray(np.where(padding, stored, new), np.int32)


def stored_range(ds: Dataset) -> tuple[int, int]:
    """Smallest and largest stored value that BitsStored and PixelRepresentation allow."""
    bits = int(ds.BitsStored)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if ds.PixelRepresentation else (0, (1 << bits) - 1)


def padding_limits(ds: Dataset) -> tuple[int, int] | None:
    """Smallest and largest stored value that means padding (PS3.3 C.7.5.1.1.2), or None."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    other = ds.get("PixelPaddingRangeLimit")
    return min(int(value), int(value if other is None else other)), max(
        int(value), int(value if other is None else other)
    )


def derived_header(
    source: Dataset, provenance: Provenance, denoised: Denoised, sigma: Sequence[float], now: datetime
) -> tuple[Dataset, list[str]]:
    """The header of a derived object without references and pixels, and the keywords left out.

    `sigma` is the noise of its frames.
    """
    ds, faulty = taken_over(source)
    local_now = local_time(source, now)
    # SOP Common, General Series
    put_dates(ds, local_now, series=source.Modality != "PT")
    if source.Modality == "PT":
        for keyword in ("SeriesDate", "SeriesTime"):  # decay correction refers to them
            if keyword in source:
                ds[keyword] = source[keyword]
    ds.SeriesNumber = series_number(source, SERIES_OFFSET)
    ds.SeriesDescription = series_description(source, f"AI denoised {provenance.algorithm}")
    # General Equipment stays the scanner's
    ds.ContributingEquipmentSequence = [
        *ds.get("ContributingEquipmentSequence", []),
        contributing_equipment(provenance, local_now, "Denoised"),
    ]
    put_superseded(ds, provenance)
    # General Image
    ds.ImageType = _image_type(source)
    ds.DerivationDescription = _derivation(source, provenance, denoised, sigma)
    ds.DerivationCodeSequence = [code("113087", "DCM", "Smoothing")]
    ds.BurnedInAnnotation = "YES" if source.get("BurnedInAnnotation") == "YES" else "NO"
    put_lossy_history(ds, source)
    fill_type_2(ds)
    return ds, faulty


def _image_type(source: Dataset) -> list[str]:
    old = [word if _CODE.fullmatch(word) else "" for word in words_of(source, "ImageType")]
    if source.SOPClassUID == CTImageStorage:
        return ["DERIVED", "SECONDARY", "AXIAL"]
    if source.SOPClassUID == MRImageStorage:
        return ["DERIVED", "SECONDARY", old[2] if len(old) > 2 and old[2] else "OTHER"]
    kind = KINDS[source.SOPClassUID]
    # value 2 of PET, NM and enhanced objects is enumerated (PS3.3 C.8.9.4.1.1, C.8.4.9.1.1, C.8.13.1.1.1.2)
    second = "SECONDARY" if kind.flat and kind.modality != "NM" else "PRIMARY"
    return ["DERIVED", second, *old[2:]]


def _derivation(source: Dataset, provenance: Provenance, denoised: Denoised, sigma: Sequence[float]) -> str:
    low, high = min(sigma), max(sigma)
    noise = f"{low:.2f} in this image" if len(sigma) == 1 else f"{low:.2f} to {high:.2f} in its frames"
    text = (
        f"AI denoised, {NOT_FOR_DIAGNOSIS}. {provenance.algorithm}, {provenance.program}, "
        f"{provenance.weights}, strength {denoised.strength:g}, no change beyond strength x "
        f"{denoised.limit_sigma:g} x noise, noise estimated {noise}."
    )
    if provenance.domain:
        text += f" {provenance.domain}."
    if before := str(source.get("DerivationDescription") or "").strip():
        text += f" Before that: {before}"
    return text[:_DESCRIPTION_LENGTH]


def put_plane(ds: Dataset, stored: NDArray[np.integer]) -> None:
    """PixelData of one image or of frames (F, ...), grey (Y, X) or RGB (Y, X, 3)."""
    if stored.shape[-1] == 3 and ds.get("PhotometricInterpretation") == "RGB":
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
    put_pixels(ds, stored)


def put_pixels(ds: Dataset, stored: NDArray[np.integer]) -> None:
    """PixelData from stored values under the BitsAllocated and PixelRepresentation of `ds`."""
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{int(ds.BitsAllocated) // 8}"
    ds.HighBit = int(ds.BitsStored) - 1
    raw = stored.astype(kind).tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW"

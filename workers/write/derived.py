"""The denoised series: the source's images with other pixel values, and nothing else moved.

Pixels are written back under the source's own slope, intercept and bits: the change is rounded to
stored values and added to what was stored, so an unchanged voxel stays bit for bit what it was.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from models.denoiser import Denoised
from node.errors import ArtifactRefused
from node.job import ProducedArtifact
from workers.read import Volume
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
    result_uid,
    sources_key,
)

DERIVABLE = frozenset({CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage})
SERIES_OFFSET = 1
_DESCRIPTION_LENGTH = 1024  # characters of an ST value


def write_derived(
    volume: Volume,
    denoised: Denoised,
    provenance: Provenance,
    folder: Path,
    now: datetime,
    notes: list[str] | None = None,
) -> list[ProducedArtifact]:
    """Write one derived image a slice to `folder`/derived, in the order of the volume.

    Attributes left out because their value is unlawful are named in `notes`. Raises ArtifactRefused
    where the source's kind cannot be written back.
    """
    _require_derivable(volume, denoised.image)
    sources = [str(header.SOPInstanceUID) for header in volume.headers]
    settings = f"strength={denoised.strength!r} limit_sigma={denoised.limit_sigma!r}"
    key = sources_key(sources)
    series_uid = result_uid("derived", provenance, settings, key, "series")
    artifacts = []
    left_out: set[str] = set()
    for index, source in enumerate(volume.headers):
        ds, faulty = _header(source, provenance, denoised, float(denoised.sigma[index]), now)
        left_out.update(faulty)
        ds.SeriesInstanceUID = series_uid
        ds.SOPInstanceUID = result_uid("derived", provenance, settings, key, sources[index])
        stored = written_back(
            volume.stored[index],
            denoised.image[index] - volume.voxels[index],
            volume.padding[index],
            source,
        )
        put_pixels(ds, stored)
        path = Path("derived") / f"{index + 1:04}.dcm"
        artifacts.append(save(ds, folder, path, "derived"))
    if left_out and notes is not None:
        notes.append(f"left out of the derived images for unlawful values: {', '.join(sorted(left_out))}")
    return artifacts


def _require_derivable(volume: Volume, image: NDArray[np.float32]) -> None:
    faults = [
        f"images of SOP class {name} cannot be written back"
        for name in sorted({str(h.SOPClassUID) for h in volume.headers} - DERIVABLE)
    ]
    if any("ModalityLUTSequence" in h for h in volume.headers):
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
    if source.get("Modality") == "PT":
        low = max(low, 0)  # activity is not negative
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


def _header(
    source: Dataset, provenance: Provenance, denoised: Denoised, sigma: float, now: datetime
) -> tuple[Dataset, list[str]]:
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
    # General Image
    ds.ImageType = _image_type(source)
    ds.DerivationDescription = _derivation(source, provenance, denoised, sigma)
    ds.DerivationCodeSequence = [code("113087", "DCM", "Smoothing")]
    put_references(ds, source)
    ds.BurnedInAnnotation = "YES" if source.get("BurnedInAnnotation") == "YES" else "NO"
    put_lossy_history(ds, source)
    fill_type_2(ds)
    return ds, faulty


def _image_type(source: Dataset) -> list[str]:
    old = [str(v) for v in source.get("ImageType") or []]
    if source.SOPClassUID == CTImageStorage:
        return ["DERIVED", "SECONDARY", "AXIAL"]
    if source.SOPClassUID == PositronEmissionTomographyImageStorage:
        return ["DERIVED", "PRIMARY", *old[2:]]  # value 2 is enumerated (PS3.3 C.8.9.4.1.1)
    return ["DERIVED", "SECONDARY", old[2] if len(old) > 2 and old[2] else "OTHER"]


def _derivation(source: Dataset, provenance: Provenance, denoised: Denoised, sigma: float) -> str:
    text = (
        f"AI denoised, {NOT_FOR_DIAGNOSIS}. {provenance.algorithm}, {provenance.program}, "
        f"{provenance.weights}, strength {denoised.strength:g}, no change beyond strength x "
        f"{denoised.limit_sigma:g} x noise, noise estimated {sigma:.2f} in this image."
    )
    if provenance.domain:
        text += f" {provenance.domain}."
    if before := str(source.get("DerivationDescription") or "").strip():
        text += f" Before that: {before}"
    return text[:_DESCRIPTION_LENGTH]


def put_pixels(ds: Dataset, stored: NDArray[np.int32]) -> None:
    """PixelData from stored values (Y, X) under the BitsAllocated and PixelRepresentation of `ds`."""
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{int(ds.BitsAllocated) // 8}"
    ds.HighBit = int(ds.BitsStored) - 1
    raw = stored.astype(kind).tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OW"

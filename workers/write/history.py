"""Where a result comes from: references to its source, and its lossy past."""

from collections.abc import Sequence

from pydicom import Dataset

from workers.read import Volume
from workers.write.provenance import code


def put_references(
    ds: Dataset, volume: Volume, indices: Sequence[int] | None = None, *, spatial: str = "YES"
) -> None:
    """SourceImageSequence and ReferencedSeriesSequence to slices of a volume (PS3.3 C.7.6.1, C.12.2).

    Without `indices` to all. `spatial` is SpatialLocationsPreserved: whether a pixel lies where it lay
    in the source. Frames of one multi-frame source make one item with their numbers.
    """
    chosen = range(len(volume.headers)) if indices is None else indices
    put_references_of(ds, [(volume, index) for index in chosen], spatial=spatial)


def put_references_of(ds: Dataset, places: Sequence[tuple[Volume, int]], *, spatial: str) -> None:
    """As `put_references`, to slices of several volumes of one series."""
    images = _references(places)
    for image in images:
        image.SpatialLocationsPreserved = spatial
        image.PurposeOfReferenceCodeSequence = [
            code("121322", "DCM", "Source image for image processing operation")
        ]
    ds.SourceImageSequence = images
    series = Dataset()
    series.SeriesInstanceUID = places[0][0].headers[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = _references(places)
    ds.ReferencedSeriesSequence = [series]


def _references(places: Sequence[tuple[Volume, int]]) -> list[Dataset]:
    items: dict[str, Dataset] = {}
    frames: dict[str, set[int]] = {}
    for volume, index in places:
        source = volume.headers[index]
        uid = str(source.SOPInstanceUID)
        items.setdefault(uid, reference_to(source))
        if volume.frames is not None:
            frames.setdefault(uid, set()).add(int(volume.frames[index]))
    for volume, _ in places:
        if volume.whole is None:
            continue
        uid = str(volume.whole.SOPInstanceUID)
        if len(numbers := sorted(frames[uid])) < int(volume.whole.get("NumberOfFrames") or 1):
            items[uid].ReferencedFrameNumber = numbers if len(numbers) > 1 else numbers[0]
    return list(items.values())


def reference_to(source: Dataset) -> Dataset:
    """An item that refers to an image (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


# What a lossy transfer syntax is called in LossyImageCompressionMethod (PS3.3 C.7.6.1.1.5.1).
_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}


def put_lossy_history(ds: Dataset, source: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5); ratio and method are kept as they are known."""
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if source.get(keyword) not in (None, ""):
            ds[keyword] = source[keyword]
    meta = getattr(source, "file_meta", None) or Dataset()
    syntax = str(meta.get("TransferSyntaxUID") or "")
    declared = str(source.get("LossyImageCompression") or "")
    # JPEG 2000's general syntax (.91) is used for lossless streams too: there the header's word counts.
    lossy = syntax in _LOSSY_METHODS and (declared != "00" if syntax.endswith((".91", ".203")) else True)
    if lossy and declared != "01":
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionMethod = _LOSSY_METHODS[syntax]

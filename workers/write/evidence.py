"""The source images as highdicom wants them: lawful, decoded, complete, without pixels.

highdicom refuses several character sets and copies what it finds; so it is given copies in UTF-8 that
hold the attributes of their IOD only.
"""

from collections.abc import Sequence

from pydicom import Dataset

from workers.read import Volume
from workers.write.header import fill_type_2, taken_over
from workers.write.repair import IDENTITY


def evidence_of(volume: Volume, indices: Sequence[int]) -> list[Dataset]:
    """Copies of the sources of some slices; the whole object, once, where they are its frames."""
    if volume.whole is not None:
        return [_copy(volume.whole)]
    return [_copy(volume.headers[index]) for index in indices]


def _copy(source: Dataset) -> Dataset:
    ds, _ = taken_over(source)
    fill_type_2(ds)
    # Put on afterwards, by dressing.py: highdicom refuses unlawful values, and quotes names in warnings.
    for keyword in IDENTITY - {"StudyInstanceUID"}:
        setattr(ds, keyword, None)
    if "SeriesNumber" not in ds:
        ds.SeriesNumber = None
    return ds

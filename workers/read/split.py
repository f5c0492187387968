"""A series of several stacks → one list of images a stack, told apart by the attribute that varies.

Time, echo, b-value, cardiac phase, image type: where every place in the patient has as many images,
and one attribute (or two together) numbers them alike everywhere, each value is a volume of its own.
Where that does not come out even, nothing is guessed, and the reader names the images in one place.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from workers.read.duplicates import SAME_PLACE, TELLING, called, value_of
from workers.read.image import Image
from workers.read.stack import gaps_of, normal_of

MOST_VOLUMES, MOST_ACQUISITIONS = 512, 8


def split(images: Sequence[Image]) -> list[tuple[str, list[Image]]]:
    """The stacks of a series with what each is called; one, without a name, where it is one stack."""
    places = _places(images)
    count = len(set(places))
    if count == len(images) or len(images) % count or len(images) // count > MOST_VOLUMES:
        return [("", list(images))]
    single = [(tag,) for tag in TELLING]
    values = {tag: [value_of(image.header, tag) for image in images] for tag in TELLING}
    telling = [tag for tag in TELLING if len(set(values[tag])) > 1]
    for tags in (*single, *combinations(telling, 2)):
        keys = [tuple(values[tag][k] for tag in tags) for k in range(len(images))]
        if _even(keys, places, count):
            return [
                (
                    ", ".join(_shown(tag, word) for tag, word in zip(tags, key, strict=True)),
                    [image for image, own in zip(images, keys, strict=True) if own == key],
                )
                for key in sorted(set(keys), key=_numeric)
            ]
    return [("", list(images))]


def acquisitions(images: Sequence[Image]) -> list[tuple[str, list[Image]]]:
    """The acquisitions of a series that is no regular stack, where each of them is one; else nothing.

    Two ranges of the body, or one scanned again between the slices of the first.
    """
    groups: dict[str, list[Image]] = {}
    for image in images:
        groups.setdefault(value_of(image.header, "AcquisitionNumber"), []).append(image)
    if not 1 < len(groups) <= MOST_ACQUISITIONS or _is_regular(images):
        return []
    if not all(len(group) > 1 and _is_regular(group) for group in groups.values()):
        return []
    return [(_shown("AcquisitionNumber", word), groups[word]) for word in sorted(groups, key=_by_number)]


def _by_number(word: str) -> tuple[tuple[int, float, str], ...]:
    return _numeric((word,))


def _is_regular(images: Sequence[Image]) -> bool:
    """Whether images lie in places of their own, as far apart as is common between them."""
    normal = normal_of(images)
    ordered = sorted(images, key=lambda image: float(normal @ image.position))
    gaps = gaps_of(
        np.array([float(normal @ image.position) for image in ordered]), [i.thickness for i in ordered]
    )
    return bool((gaps.width >= SAME_PLACE).all() and not gaps.missing.any() and gaps.is_even)


def _places(images: Sequence[Image]) -> list[int]:
    """The number of each image's place along the common normal."""
    normal = normal_of(images)
    heights = np.array([float(normal @ image.position) for image in images])
    order = np.argsort(heights, kind="stable")
    numbers = np.zeros(len(images), np.int64)
    numbers[order[1:]] = np.cumsum(np.diff(heights[order]) >= SAME_PLACE)
    return [int(number) for number in numbers]


def _even(keys: Sequence[tuple[str, ...]], places: Sequence[int], count: int) -> bool:
    """Whether each key is there once in every place."""
    if len(set(keys)) * count != len(keys):
        return False
    return max(Counter(zip(keys, places, strict=True)).values()) == 1


def _numeric(key: tuple[str, ...]) -> tuple[tuple[int, float, str], ...]:
    found: list[tuple[int, float, str]] = []
    for word in key:
        try:
            found.append((0, float(word), word))
        except ValueError:
            found.append((1, 0.0, word))
    return tuple(found)


def _shown(tag: str | tuple[int, int], word: str) -> str:
    try:
        return f"{called(tag)} {float(word):g}"
    except ValueError:
        kept = "".join(c if c.isalnum() or c in " ._-" else " " for c in word)
        return f"{called(tag)} {' '.join(kept.split())[:32]}".strip()

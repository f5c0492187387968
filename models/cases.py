"""Cases: the pixels of one person, as training and evaluation take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """Slices of one series of one person, or loose slices that share a pixel size."""

    person: str  # keeps a person on one side of every split
    source: str  # the folder or collection it came from, for the lineage
    modality: str  # "CT", "MR", …
    volume: NDArray[np.float32]  # (Z, Y, X), modality units
    padding: NDArray[np.bool_]  # (Z, Y, X), True where the scanner filled in
    spacing: tuple[float, float]  # (y, x), mm
    slice_mm: float | None = None  # distance of neighbouring slices; None for loose slices
    lesion: NDArray[np.bool_] | None = None  # (Z, Y, X), the truth, where it is known
    abnormal: bool | None = None  # of the whole image, where it is known
    neighbours: NDArray[np.int64] | None = None  # (Z, 3), slices below, itself, above; None for loose slices


def split(cases: Sequence[Case], shares: Sequence[float], seed: int) -> list[list[Case]]:
    """Divide cases by person into len(shares) parts, at least one person to each part.

    A person's place depends on the seed and that person's name, not on the order of reading.
    Raises ValueError where there are fewer people than parts.
    """
    people = sorted({c.person for c in cases}, key=lambda p: sha256(f"{seed}:{p}".encode()).digest())
    if len(people) < len(shares):
        raise ValueError(f"{len(people)} people cannot be divided into {len(shares)} parts; add data")
    total, placed = sum(shares), 0
    part_of: dict[str, int] = {}
    for part, share in enumerate(shares):
        left = len(shares) - part - 1
        wanted = max(1, round(len(people) * share / total))
        end = len(people) if left == 0 else min(placed + wanted, len(people) - left)
        part_of.update(dict.fromkeys(people[placed:end], part))
        placed = end
    return [[c for c in cases if part_of[c.person] == part] for part in range(len(shares))]


def kept_apart(cases: Sequence[Case], share: float, seed: int) -> set[str]:
    """The names of the people who only validate a training; none where the share rounds to none."""
    names = sorted({case.person for case in cases})
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[n] for n in order[: round(share * len(names))]}

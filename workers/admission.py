"""Which volumes of a series an anomaly model may judge, each on its own (decisions/0011-modalities.md).

Normal people were scanned once: without diffusion weighting, as magnitudes. So of a diffusion series the
volumes of the lowest b-value are left, and of every series those that the domain gate lets pass. A few are
all judged; of many the first, which is the one before contrast agent, of the shortest echo or phase 0.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.anomaly import OutsideDomain
from models.weights import LoadedModel
from node.errors import SeriesRefused
from workers.domain_gate import Verdict, admit
from workers.read import Volume
from workers.read.duplicates import value_of

MOST_JUDGED = 4  # volumes of one series that are all judged; of more the first stands for them
_B_VALUES: tuple[str | tuple[int, int], ...] = ("DiffusionBValue", (0x0019, 0x100C), (0x0043, 0x1039))
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_GE_OFFSET = 10**8  # GE adds multiples of it to a b-value


def names_of(volumes: Sequence[Volume]) -> list[str]:
    """What each of several volumes is called: what varies, else its image's number, else its size."""
    if len(volumes) == 1:
        return [volumes[0].label]
    names = [volume.label or _by_image(volume) for volume in volumes]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{name}, {k} of {len(names)}" if name in twice else name for k, name in enumerate(names, start=1)
    ]


def _by_image(volume: Volume) -> str:
    number = (volume.headers[0] if volume.whole is None else volume.whole).get("InstanceNumber")
    one = volume.whole is not None or len(volume.headers) == 1
    return f"image {number}" if one and number else "×".join(map(str, volume.voxels.shape))


def judged(
    volumes: Sequence[Volume], model: LoadedModel, notes: list[str]
) -> list[tuple[Volume, str, Verdict]]:
    """The volumes to judge with their names and verdicts; what is left out, and why, is put into `notes`.

    Raises SeriesRefused, or OutsideDomain, where no volume may be judged.
    """
    names = names_of(volumes)
    if len(volumes) == 1:
        return [(volumes[0], names[0], _admitted(volumes[0], model))]
    found: list[tuple[Volume, str, Verdict]] = []
    refusals: list[tuple[str, str]] = []
    for volume, name, weighted in zip(volumes, names, _diffusion_weighted(volumes), strict=True):
        try:
            if weighted:
                raise SeriesRefused("It is diffusion-weighted, and normal images are not.")
            found.append((volume, name, _admitted(volume, model)))
        except (SeriesRefused, OutsideDomain) as refused:
            refusals.append((name, str(refused)))
    if not found:
        first, reason = refusals[0]
        raise SeriesRefused(
            f"None of the {len(volumes)} volumes may be judged by model {model.name!r}; {first}: {reason}"
        )
    for reason in dict.fromkeys(reason for _, reason in refusals):
        whose = [name for name, given in refusals if given == reason]
        notes.append(f"not judged: {_listed(whose)}: {reason.rstrip('.')}")
    if len(found) > MOST_JUDGED and not volumes[0].flat:
        notes.append(
            f"of {len(found)} volumes that could be judged the first, {found[0][1]}, stands for the series: "
            f"at most {MOST_JUDGED} are judged one by one"
        )
        return found[:1]
    return found


def _admitted(volume: Volume, model: LoadedModel) -> Verdict:
    if not np.isfinite(volume.spacing[1:]).all():
        raise SeriesRefused("The images have no pixel spacing, so that no region of them could be measured.")
    return admit(volume, model)


def _diffusion_weighted(volumes: Sequence[Volume]) -> list[bool]:
    """Which volumes have a b-value above the lowest of the series; a volume without one has none."""
    values = [_b_value(volume) for volume in volumes]
    return [value > min(values) for value in values]


def _b_value(volume: Volume) -> float:
    for tag in _B_VALUES:
        if number := _NUMBER.search(value_of(volume.headers[0], tag)):
            value = abs(float(number[0]))
            return value % _GE_OFFSET if tag == _B_VALUES[-1] else value
    return 0.0


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

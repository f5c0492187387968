"""What every shipped denoiser holds at its default strength, measured on phantoms (models.evaluate_phantom).

The best PSNR erases small faint lesions while every mean looks perfect, so that these, and not PSNR, decide
whether a denoiser may be offered. `promises` tells each with its limit and what was measured; the card
prints them, and the tests hold every version of the zoo to them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SHIFT = {"hu": 1.0, "percent": 0.5}  # of the mean: HU, or % of an MR series' unit
INSERT_HU = 2.0  # that a known material's HU may move
TEXTURE = 0.15  # that the mean frequency of the noise may move, either way
SHARPNESS = 0.05  # of the half-value of the modulation transfer that may be lost
SHARP_HU = 120.0  # from this contrast on
AREA = 0.01  # of the observer's area that may be lost
KEPT = 0.45  # of the contrast of the smallest disc

_ROUNDING = 1e-3


@dataclass(frozen=True)
class Promise:
    """One thing that is promised, and whether it was measured so."""

    what: str
    limit: str
    measured: str
    held: bool


def promises(phantom: Mapping[str, Any], strength: float) -> list[Promise]:
    """Each promise at a strength, from the figures of evaluate_on_phantom.

    Raises KeyError where the figures have no row of that strength.
    """
    return list(_promises(phantom, strength))


def _promises(phantom: Mapping[str, Any], strength: float) -> Iterator[Promise]:
    noisy, row = (_row(phantom, wanted) for wanted in (0.0, strength))
    unit = "hu" if "shift_hu" in row else "percent"
    name = {"hu": "HU", "percent": "% of the unit"}[unit]
    shift = abs(row[f"shift_{unit}"])
    yield Promise("mean", f"moves by {SHIFT[unit]:g} {name} at most", f"{shift:.2f}", shift <= SHIFT[unit])
    texture = row["nps_mean_per_mm"] / noisy["nps_mean_per_mm"] - 1
    yield Promise(
        "mean frequency of the noise",
        f"moves by {100 * TEXTURE:g} % at most",
        f"{100 * texture:+.1f} %",
        abs(texture) <= TEXTURE,
    )
    blurs = {"clear edge": 1 - row["mtf50_per_mm"] / noisy["mtf50_per_mm"], **_blurs(phantom, strength)}
    most = max(blurs, key=lambda place: blurs[place])
    yield Promise(
        "MTF50 at clear edges",
        f"falls by {100 * SHARPNESS:g} % at most",
        f"{100 * blurs[most]:.1f} % ({most})",
        blurs[most] <= SHARPNESS,
    )
    drops = {size: noisy[size] - row[size] for size in row if size.startswith("auc_")}
    most = max(drops, key=lambda size: drops[size])
    yield Promise(
        "detectability of faint discs",
        f"AUC falls by {AREA:g} at most",
        f"{drops[most]:+.3f} ({most.removeprefix('auc_')})",
        drops[most] <= AREA + 1e-9,
    )
    # A card that was written has its names sorted: 10mm stands before 3mm.
    discs = [key for key in row if key.startswith("kept_")]
    kept = row[min(discs, key=lambda key: float(key.removeprefix("kept_").partition("mm")[0]))]
    yield Promise("contrast of the smallest disc", f"{KEPT:g} or more is left", f"{kept:.2f}", kept >= KEPT)
    bound = strength * phantom["limit_sigma"]
    largest = row["largest_change_sigma"]
    yield Promise(
        "largest change of a pixel",
        f"{bound:g} × the estimated noise at most",
        f"{largest:.2f}",
        largest <= bound + _ROUNDING,
    )
    moved = _moved(phantom, strength)
    if moved:
        most = max(moved, key=lambda material: abs(moved[material]))
        yield Promise(
            "HU of known materials",
            f"move by {INSERT_HU:g} HU at most",
            f"{moved[most]:+.2f} ({most})",
            abs(moved[most]) <= INSERT_HU,
        )


def _row(phantom: Mapping[str, Any], strength: float) -> Mapping[str, Any]:
    for row in phantom["rows"]:
        if row["strength"] == strength:
            return dict(row)
    raise KeyError(f"nothing was measured at a strength of {strength:g}")


def _rods(phantom: Mapping[str, Any], strength: float) -> dict[str, Mapping[str, Any]]:
    rows = phantom.get("inserts", {}).get("rows", [])
    return {row["material"]: row for row in rows if row["strength"] == strength}


def _blurs(phantom: Mapping[str, Any], strength: float) -> dict[str, float]:
    before = _rods(phantom, 0.0)
    return {
        material: 1 - row["mtf50_per_mm"] / before[material]["mtf50_per_mm"]
        for material, row in _rods(phantom, strength).items()
        if abs(row["hu"]) >= SHARP_HU
    }


def _moved(phantom: Mapping[str, Any], strength: float) -> dict[str, float]:
    before = _rods(phantom, 0.0)
    return {
        material: row["error_hu"] - before[material]["error_hu"]
        for material, row in _rods(phantom, strength).items()
    }

"""What a denoiser does to the HU and the edges of known materials: the rods of CTP404 in water.

A rod's error is the mean of its inner 8 mm less what the material has; its sharpness is where the
modulation transfer at its edge falls to a half, material by material, since what a denoiser does to an
edge depends on how far it stands out of the noise.
"""

from collections.abc import Sequence
from typing import Any

from models.denoiser import Model
from models.disc_phantoms import MATERIALS, ROD_RADIUS, sensitometry_phantom
from models.image_quality import sharpness
from models.scans import grain, scanned

_CORE = 4.0  # mm
_REACH = 4.5  # mm on both sides of a rod's edge


def evaluate_rods(
    model: Model,
    *,
    scans: int = 24,
    noise_hu: float = 17.0,
    strengths: Sequence[float],
    limit_sigma: float = 3.0,
    seed: int = 1,
) -> dict[str, Any]:
    """Figures as JSON: "scans", "noise_hu" and "rows", one for each strength (0: noisy) and material.

    A row has the material's "hu", the mean "error_hu" of its rod and "mtf50_per_mm".
    """
    phantom = sensitometry_phantom()
    noise = grain(phantom.filled, phantom.spacing, scans, noise_hu, seed)
    filled = scanned(model, phantom.filled + noise, limit_sigma)
    plain = scanned(model, phantom.plain + noise, limit_sigma)
    rows = []
    for strength in (0.0, *sorted(strengths)):
        mean = filled.at(strength).mean(0)
        response = mean - plain.at(strength).mean(0)
        for rod, (material, hu) in zip(phantom.discs, MATERIALS.items(), strict=True):
            core = phantom.inside(rod, _CORE)
            half = sharpness(response, (rod.y, rod.x), ROD_RADIUS, phantom.spacing, _REACH)
            rows.append(
                {
                    "strength": strength,
                    "material": material,
                    "hu": hu,
                    "error_hu": round(float((mean - phantom.filled)[core].mean()), 3),
                    "mtf50_per_mm": half,
                }
            )
    return {"scans": scans, "noise_hu": noise_hu, "rows": rows}

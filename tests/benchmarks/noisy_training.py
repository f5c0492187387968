"""What a denoiser learns from noisy neighbouring slices alone, on real people whom it never saw.

    python -m tests.benchmarks.noisy_training DATA/ct-denoise/val --run FOLDER [--steps 1200]

It is taught on four made bodies (models.phantom) of 12 slices at a quarter of the dose, each slice with
noise of its own and no clean image among them, and judged on routine-dose slices of people to which the
noise of a lower dose is added: beside the noisy slice, TV, and the shipped model, which was taught with
clean images. A finished run in FOLDER is used again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from models import weights
from models.cases import Case
from models.evaluate import WHOLE, evaluate_on_people
from models.phantom import SLICE_SPACING, ct_series
from models.train import TrainSettings
from models.train_noisy import train_noisy
from workers.training import read_cases

DOSES = (0.5, 0.25, 0.1)


def bodies(count: int = 4, slices: int = 12) -> list[Case]:
    """Made people, noisy."""
    here = np.arange(slices)
    neighbours = np.stack((np.maximum(here - 1, 0), here, np.minimum(here + 1, slices - 1)), 1)
    found = []
    for seed in range(1, count + 1):
        scan = ct_series(slices=slices, size=512, seed=seed, dose=0.25)
        outside = np.zeros(scan.noisy.shape, bool)
        spacing = scan.spacing[1:]
        found.append(
            Case(f"{seed}", "made", "CT", scan.noisy, outside, spacing, SLICE_SPACING, neighbours=neighbours)
        )
    return found


def main() -> None:
    """Train, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="People to be judged on.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    asked = parser.parse_args()
    settings = TrainSettings(steps=asked.steps, warmup=asked.steps // 4, ema_decay=0.9, precision="bfloat16")
    result = train_noisy(bodies(), "CT", settings, asked.run, architecture={})
    shipped = weights.load("ct-denoise")
    people = read_cases([asked.data], modality="CT").cases
    print("| dose | method | error, HU | PSNR, dB |\n|---|---|---|---|")
    for name, network in (("noisy neighbours", result.network), (f"{shipped.version}", shipped.network)):
        model = replace(shipped, network=network)
        found = evaluate_on_people(model, people, doses=DOSES, strengths=(0.5,), filters=("TV",))
        for row in found["rows"]:
            ours = row["method"].startswith(("strength", WHOLE))
            if ours or name == "noisy neighbours":
                method = f"{name}, {row['method']}" if ours else row["method"]
                print(f"| {row['dose']:g} | {method} | {row['rmse_hu']:.2f} | {row['psnr_db']:.2f} |")
        print(f"{name}: {found['people']} people, {found['slices']} slices, {found['against']}")


if __name__ == "__main__":
    main()

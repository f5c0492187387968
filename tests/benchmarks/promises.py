"""What a denoiser holds on phantoms at several strengths, and what it does not.

    python -m tests.benchmarks.promises [MODEL] [--scans 100]

The limits are those of models.promises; the same figures stand in the model's card, at its default strength
with the limits beside them.
"""

import argparse

from models import weights
from models.evaluate_phantom import evaluate_on_phantom
from models.promises import promises


def main() -> None:
    """Print the table; what is beyond its limit is bold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="ct-denoise")
    parser.add_argument("--scans", type=int, default=100)
    asked = parser.parse_args()
    model = weights.load(asked.model)
    figures = evaluate_on_phantom(model, scans=asked.scans)
    strengths = [row["strength"] for row in figures["rows"] if row["strength"] > 0]
    found = [promises(figures, strength) for strength in strengths]
    print("| what | limit | " + " | ".join(f"at {strength:g}" for strength in strengths) + " |")
    print("|---" * (2 + len(strengths)) + "|")
    for row in zip(*found, strict=True):
        limit = "strength × limit_sigma × noise" if "pixel" in row[0].what else row[0].limit
        cells = [one.measured if one.held else f"**{one.measured}**" for one in row]
        print(f"| {row[0].what} | {limit} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

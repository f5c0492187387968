"""Pack an anomaly model anew: with the baseline's principal components, and measured; the network stays.

    python -m tests.benchmarks.anomaly_again ct-anomaly --data data/ct-denoise/train \
        --test data/ct-denoise/val --version 0.1.2 --out packed/ct-anomaly

The components learn from the people that the network learned from: those whom `aenode train --seed SEED
--data DATA --test TEST` trains on. `aenode evaluate` gives the same figures afterwards.
"""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from models import pack_anomaly, train_anomaly, weights
from models.cases import split
from models.preparation import Contract
from workers.recipes import recipe_of
from workers.request import Watch, read, require_apart


def main() -> None:
    """Write the folder, and print the first line of its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    model = weights.load(asked.model)
    name = recipe_of(model)
    normals, test = (read([path], name, None, None, Watch()).cases for path in (asked.data, asked.test))
    require_apart(normals, test)
    trained, _ = split(normals, (0.8, 0.2), asked.seed)
    people = len({case.person for case in trained})
    if people != model.card["trained_people"]:
        raise SystemExit(f"{people} people, the model was trained on {model.card['trained_people']}")
    contract = Contract.of(model.card)
    ready, _ = train_anomaly.prepare_cases(trained, contract)
    about = (
        f"{asked.version}: weights, calibration and domain gate are those of {model.version}; principal "
        f"components were fitted on the {people} people of the training, and the model was measured again."
    )
    card = {
        **{key: value for key, value in model.card.items() if key not in ("files", "sha256", "format")},
        "version": asked.version,
        "lineage": {**model.card["lineage"], "repacked": about},
        "measured_by": shlex.join(["aenode", "evaluate", model.name, "--data", asked.test.name]),
    }
    calibration = {**model.calibration, **pack_anomaly.component_arrays(ready, contract)}
    packed = replace(model, version=asked.version, card=card, calibration=calibration)
    pack_anomaly.judge_and_save(packed, test, asked.out, seed=asked.seed)
    print((asked.out / weights.CARD_TEXT).read_text().splitlines()[0])


if __name__ == "__main__":
    main()

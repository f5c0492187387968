"""The first line of an anomaly model's card, and what may be on by default for it."""

from pathlib import Path
from typing import Any

import pytest

from models import weights
from models.card_anomaly import card_text
from models.evaluate_anomaly import beats_baseline
from node.config_file import load

ROOT = Path(__file__).parents[2]
SHIPPED = [folder for folder in weights.list_models() if folder.parent.name.endswith("-anomaly")]


def row(
    kind: str, interval: tuple[float, float] | None, *, found: int = 5, auroc: float = 0.9, people: int = 7
) -> dict[str, Any]:
    """A row of figures of which only what the test names is special."""
    one = {"ap": 0.5, "auroc": 0.8, "dice_fixed": 0.4, "dice_oracle": 0.5}
    gain = 0.1 if interval is None else sum(interval) / 2
    return {
        "kind": f"inserted: {kind}",
        "people": people,
        "slices": 9,
        "prevalence": 0.01,
        "model": {**one, "auroc": auroc},
        "intensity": one,
        "PCA": {**one, "auroc": 0.7},
        "against": {
            "best_baseline": "PCA",
            "people": people,
            "ap_gain": gain,
            "ap_gain_interval": interval,
        },
        "found": found,
        "lesions": 10,
    }


def images(interval: tuple[float, float] | None) -> dict[str, Any]:
    """Figures of whole images."""
    rows = [
        {"method": name, "auroc": 0.9, "auroc_interval": None, "ap": 0.9} for name in ("model", "intensity")
    ]
    return {
        "people": 2 if interval is None else 8,
        "images": 8,
        "prevalence": 0.5,
        "rows": rows,
        "best_baseline": "intensity",
        "auroc_gain": 0.02,
        "auroc_gain_interval": interval,
    }


def text(rows: list[dict[str, Any]], whole: dict[str, Any] | None = None) -> str:
    """CARD.md of a shipped model, had it these figures."""
    card = weights.read_card(SHIPPED[0])
    figures = {**card["metrics"], "lesions": rows, "recall": []}
    figures.pop("images", None)
    return card_text(card, figures if whole is None else {**figures, "images": whole})


@pytest.mark.parametrize(
    ("interval", "people", "told"),
    [
        ((0.02, 0.2), 7, "over principal components, 95 % +0.020 to +0.200; 5 of 10 marked)"),
        ((-0.02, 0.2), 7, "AP +0.090 over principal components, 95 % -0.020 to +0.200"),
        ((-0.3, -0.1), 7, "AP -0.200 over principal components, 95 % -0.300 to -0.100"),
        ((0.0, 0.2), 7, "95 % +0.000 to +0.200"),
        (None, 2, "AP +0.100 over principal components, 2 people, an interval needs 3"),
        (None, 1, "1 person, an interval needs 3"),
    ],
)
def test_only_an_interval_above_zero_beats_a_baseline(
    interval: tuple[float, float] | None, people: int, told: str
) -> None:
    """One across zero, below it, touching it, or none, is said in the first line; the table has it too."""
    rows = [row("spot", interval, people=people)]
    said = text(rows)
    first = said.splitlines()[0]
    beats = interval is not None and interval[0] > 0
    assert beats_baseline(rows, None) == beats
    assert first.startswith('**Beats its best baseline for "spot"') == beats
    assert first.startswith('**Not shown to beat its best baseline for "spot"') == (not beats)
    assert ("Do not rely on it; it is off by default." in first) == (not beats)
    assert told in first
    (line,) = [line for line in said.splitlines() if line.startswith("| inserted: spot")]
    assert line.split("|")[-2].strip() in first


def test_each_kind_of_lesion_has_its_own_verdict() -> None:
    """What is beaten, what is not, what is not found and what ranks worse stand in the first line."""
    rows = [row("nodule", (0.1, 0.3)), row("haze", (-0.1, 0.3), found=0, auroc=0.75)]
    first = text(rows).splitlines()[0]
    assert 'Not shown to beat its best baseline for "haze"' in first
    assert "Do not rely on it for that; it is off by default." in first
    assert 'Beats its best baseline for "nodule"' in first
    assert 'It does not find "haze".' in first
    assert 'By AUROC it is below plain intensity for "haze" (0.750 against 0.800).' in first
    assert 'find "nodule"' not in first
    faint = text([row("nodule", (0.1, 0.3)), row("faint", (0.1, 0.3), found=0)]).splitlines()[0]
    assert 'It does not find "faint": 0 of 10 marked, though by average precision' in faint
    assert "off by default" not in faint
    assert not beats_baseline(rows, None)
    assert beats_baseline(rows[:1], None)


def test_whole_images_are_compared_beside_lesions() -> None:
    """A model is on by default only where it tells images apart as surely as it finds lesions."""
    rows = [row("nodule", (0.1, 0.3))]
    assert beats_baseline(rows, images((0.01, 0.03)))
    for interval, told in (((-0.01, 0.03), "95 % -0.010 to +0.030"), (None, "2 people, an interval needs 3")):
        first = text(rows, images(interval)).splitlines()[0]
        assert "Not shown to beat its best baseline for telling abnormal images from normal ones" in first
        assert told in first
        assert 'Beats its best baseline for "nodule"' in first
        assert not beats_baseline(rows, images(interval))
    assert "Not shown" not in text(rows, images((0.01, 0.03))).splitlines()[0]


def test_without_lesions_nothing_is_claimed() -> None:
    """The first line says that nothing was measured."""
    assert text([]).startswith("**Not measured against its baselines")
    assert not beats_baseline([], None)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_a_shipped_card_says_what_its_figures_say(folder: Path) -> None:
    """CARD.md is made of model.json alone, every row has PCA, and the stored verdict is the interval's."""
    card = weights.read_card(folder)
    figures = card["metrics"]
    assert (folder / weights.CARD_TEXT).read_text() == card_text(card, figures)
    assert all("PCA" in one for one in figures["lesions"])
    assert figures["beats_baseline"] == beats_baseline(figures["lesions"], figures.get("images"))
    assert ("off by default" in card_text(card, figures).splitlines()[0]) == (not figures["beats_baseline"])


@pytest.mark.parametrize("name", ["config.toml", "deploy/container.toml"])
def test_only_what_beats_its_baselines_is_on_by_default(name: str) -> None:
    """A pipeline of the shipped settings names no anomaly model whose gain is not surely above zero."""
    used = {one.model.partition("/")[0] for one in load(ROOT / name).pipelines}
    for folder in (folder for folder in SHIPPED if folder.parent.name in used):
        assert weights.read_card(folder)["metrics"]["beats_baseline"], folder

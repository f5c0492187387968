"""The figures of a denoiser: they say what is so, for a network that does nothing and one that blurs."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from models import evaluate, evaluate_phantom, pack_denoiser
from models.cases import Case
from models.denoiser import BFRAE
from models.disc_phantoms import MATERIALS
from models.pack_anomaly import Lineage
from models.promises import promises
from models.weights import LoadedModel

LINEAGE = Lineage(
    description="A test.",
    training_data="None.",
    warning="",
    licence="CC0",
    command="aenode train …",
    git="unknown",
    steps=0,
)


class _Blur(nn.Module):
    """A network that answers with the mean of 5 × 5 pixels of the slice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x[:, 1:2], 5, 1, 2, count_include_pad=False)


def _model(network: nn.Module) -> LoadedModel:
    return pack_denoiser.make_denoiser(
        network,
        name="test",
        version="0.0.1",
        arguments={},
        noise=(4, 80),
        trained_people=0,
        lineage=LINEAGE,
    )


def _case() -> Case:
    """An even patient with 4 HU of noise of its own."""
    image = np.full((1, 192, 192), -1000, np.float32)
    away = np.hypot(*np.ogrid[-96:96, -96:96])
    image[0, away < 75] = 50
    image[0, away < 20] = -850
    image += np.random.default_rng(1).normal(0, 4, image.shape).astype(np.float32)
    return Case("one", "made", "CT", image, np.zeros(image.shape, bool), (1.2, 1.2))


def test_a_network_that_does_nothing_scores_as_the_noisy_image() -> None:
    """Its rows are those of the noisy image, whose error is the noise that a lower dose adds."""
    figures = evaluate.evaluate_on_people(_model(BFRAE()), [_case()], doses=(0.5, 0.1), filters=("NLM", "TV"))
    rows = {(row["dose"], row["method"]): row for row in figures["rows"]}
    own = figures["own_noise_hu"]
    assert figures["people"] == figures["slices"] == 1
    for dose in (0.5, 0.1):
        noisy = rows[dose, "noisy"]
        assert noisy["rmse_hu"] == pytest.approx(own * np.sqrt(1 / dose - 1), rel=0.03)
        assert rows[dose, "strength 0.5"]["rmse_hu"] == pytest.approx(noisy["rmse_hu"], abs=0.01)
        assert noisy["psnr_db"] < min(rows[dose, name]["psnr_db"] for name in ("NLM", "TV"))
        assert abs(noisy["shift_soft_hu"]) < 0.3
        assert noisy["shift_bone_hu"] is None
    assert (0.5, "strength 0.8") in rows
    against = {one["dose"]: one for one in figures["against"]}
    assert against[0.1]["gain_db"] < 0 and against[0.1]["gain_db_interval"] is None


def test_without_a_clean_slice_there_are_no_figures() -> None:
    """Cases too noisy to be a truth are refused."""
    case = _case()
    case.volume[:] += np.random.default_rng(2).normal(0, 60, case.volume.shape)
    with pytest.raises(ValueError, match="less than 16 HU"):
        evaluate.evaluate_on_people(_model(BFRAE()), [case])


@pytest.fixture(scope="module")
def blurred() -> evaluate_phantom.Figures:
    return evaluate_phantom.evaluate_on_phantom(_model(_Blur()), scans=10)


def test_phantom_figures_tell_what_a_blur_does(blurred: evaluate_phantom.Figures) -> None:
    """A blur removes noise, and the contrast of 3 mm more than that of 10 mm; strength 0 does nothing."""
    rows = {row["strength"]: row for row in blurred["rows"]}
    noisy, half = rows[0.0], rows[0.5]
    assert noisy["sd_removed"] == noisy["largest_change_hu"] == 0
    assert noisy["kept_3mm_14hu"] == pytest.approx(1, abs=1e-3)
    assert 0.25 < half["sd_removed"] < 0.5
    assert half["nps_mean_per_mm"] < noisy["nps_mean_per_mm"]
    assert half["mtf50_per_mm"] < 0.95 * noisy["mtf50_per_mm"]
    assert 0.5 < half["kept_3mm_14hu"] < 0.85 < half["kept_10mm_3hu"] < 1.05
    assert rows[1.0]["kept_3mm_14hu"] - 1 == pytest.approx(2 * (half["kept_3mm_14hu"] - 1), abs=0.01)
    assert abs(half["shift_hu"]) < 0.3
    assert half["largest_change_hu"] == pytest.approx(0.5 * 3 * 17, rel=0.3)
    assert half["largest_change_sigma"] == pytest.approx(0.5 * 3, abs=1e-3)
    assert abs(blurred["ghost"]) < 1e-3  # it looks at the neighbours for the level of noise only
    liver = next(row for row in blurred["organs"] if row["organ"] == "liver")
    assert liver["noise_hu"] > 10 and abs(liver["shift_hu"]) < 1


def test_a_blur_softens_every_rod_and_moves_none(blurred: evaluate_phantom.Figures) -> None:
    """The mean of each material stays within noise; faint and clear edges are half as sharp or less."""
    rows = {(row["strength"], row["material"]): row for row in blurred["inserts"]["rows"]}
    assert {material for _, material in rows} == set(MATERIALS)
    for material, hu in MATERIALS.items():
        noisy, blurry = rows[0.0, material], rows[1.0, material]
        assert noisy["hu"] == hu and abs(noisy["error_hu"]) < 3
        assert blurry["error_hu"] == pytest.approx(noisy["error_hu"], abs=3)
        if abs(hu) < 50:  # the bound holds back what a blur takes from clear edges
            assert blurry["mtf50_per_mm"] < 0.6 * noisy["mtf50_per_mm"], material


def test_promises_are_broken_by_a_blur(blurred: evaluate_phantom.Figures) -> None:
    """At half strength its means stay and its bound holds, and texture and edges do not."""
    held = {one.what: one.held for one in promises(blurred, 0.5)}
    assert held["mean"] and held["largest change of a pixel"] and held["HU of known materials"]
    assert not held["mean frequency of the noise"] and not held["MTF50 at clear edges"]
    assert all(one.held for one in promises(blurred, 0.0))
    with pytest.raises(KeyError, match=r"strength of 0\.7"):
        promises(blurred, 0.7)


def test_a_promise_of_the_smallest_disc_is_read_from_a_card_that_was_written(
    blurred: evaluate_phantom.Figures,
) -> None:
    """model.json sorts its names, 10mm before 3mm; the disc is the same."""
    said = [
        {one.what: one.measured for one in promises(figures, 0.5)}["contrast of the smallest disc"]
        for figures in (blurred, json.loads(json.dumps(blurred, sort_keys=True)))
    ]
    assert said[0] == said[1]


def test_promises_notice_each_figure(blurred: evaluate_phantom.Figures) -> None:
    """From figures that hold, one that is a little too far breaks its promise and no other."""
    noisy = next(row for row in blurred["rows"] if row["strength"] == 0)
    rods = [row for row in blurred["inserts"]["rows"] if row["strength"] == 0]
    wrong = {
        "mean": {"shift_hu": -1.1},
        "mean frequency of the noise": {"nps_mean_per_mm": 1.16 * noisy["nps_mean_per_mm"]},
        "MTF50 at clear edges": {"mtf50_per_mm": 0.94 * noisy["mtf50_per_mm"]},
        "detectability of faint discs": {"auc_7mm": noisy["auc_7mm"] - 0.011},
        "contrast of the smallest disc": {"kept_3mm_14hu": 0.44},
        "largest change of a pixel": {"largest_change_sigma": 1.51},
    }
    for what, change in wrong.items():
        figures = {
            "rows": [noisy, {**noisy, "strength": 0.5, **change}],
            "inserts": {"rows": [*rods, *({**row, "strength": 0.5} for row in rods)]},
            "limit_sigma": 3.0,
        }
        assert [one.what for one in promises(figures, 0.5) if not one.held] == [what]
    moved = [{**row, "strength": 0.5, "error_hu": row["error_hu"] + 2.1} for row in rods]
    figures = {
        "rows": [noisy, {**noisy, "strength": 0.5}],
        "inserts": {"rows": rods + moved},
        "limit_sigma": 3.0,
    }
    assert [one.what for one in promises(figures, 0.5) if not one.held] == ["HU of known materials"]


def test_a_phantom_of_mr_tells_the_same() -> None:
    """In % of the unit, under Rician noise: a blur takes noise, and more from small discs than from large."""
    blur = pack_denoiser.make_denoiser(
        _Blur(),
        name="test",
        version="0.0.1",
        arguments={},
        noise=(0.01, 0.2),
        trained_people=0,
        lineage=LINEAGE,
        modality="MR",
    )
    figures = evaluate_phantom.evaluate_on_phantom(blur, scans=12, strengths=(0.5, 1.0))
    rows = {row["strength"]: row for row in figures["rows"]}
    noisy, half = rows[0.0], rows[0.5]
    assert blur.card["strength"] in rows
    assert figures["noise_percent"] == 5 and "inserts" not in figures
    # Where the signal is strong, Rice's distribution leaves the contrast as it is.
    assert noisy["kept_3mm_6percent"] == pytest.approx(1, abs=0.02)
    assert 0.7 < noisy["auc_3mm"] < 0.99
    assert 0.1 < half["sd_removed"] < 0.5 and abs(half["shift_percent"]) < 0.1
    assert 0.4 < half["kept_3mm_6percent"] < half["kept_10mm_1.4percent"] < 1.05
    assert half["mtf50_per_mm"] < 0.98 * noisy["mtf50_per_mm"]
    assert not {one.what: one.held for one in promises(figures, 1.0)}["mean frequency of the noise"]


def test_the_card_says_what_was_measured(blurred: evaluate_phantom.Figures) -> None:
    """CARD.md carries the figures, the command that measures them and the loss of small lesions."""
    model = _model(_Blur())
    figures = {
        "people": evaluate.evaluate_on_people(model, [_case()], doses=(0.5,), filters=()),
        "phantom": blurred,
    }
    text = pack_denoiser.denoiser_card_text({**model.card, "measured_by": "aenode evaluate test"}, figures)
    rows = {row["strength"]: row for row in figures["phantom"]["rows"]}
    kept = rows[model.card["strength"]]["kept_3mm_14hu"]
    assert f"leaves {100 * kept:.0f} % of the contrast of a 3 mm" in text
    assert "aenode evaluate test" in text
    assert "| 0.5 | noisy |" in text and "| liver |" in text
    assert "| Teflon | 990 |" in text and "| MTF50 at clear edges |" in text and "| **no** |" in text

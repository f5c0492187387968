"""The figures of a denoiser: they say what is so, for a network that does nothing and one that blurs."""

import numpy as np
import pytest
import torch
from torch import nn

from models import evaluate, evaluate_phantom, pack_denoiser
from models.cases import Case
from models.denoiser import BFRAE
from models.pack_anomaly import Lineage
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
    return evaluate_phantom.evaluate_on_phantom(_model(_Blur()), scans=16)


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
    assert blurred["ghost"] == 0  # it does not look at the neighbours
    liver = next(row for row in blurred["organs"] if row["organ"] == "liver")
    assert liver["noise_hu"] > 10 and abs(liver["shift_hu"]) < 1


def test_the_observer_sees_what_is_there() -> None:
    """The observer's area is 1 for a plain disc, a half for nothing, and between for a faint one."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 10, (2, 200, 33, 33)).astype(np.float32)
    disc = (np.hypot(*np.ogrid[-16:17, -16:17]) < 5).astype(np.float32)
    areas = [evaluate_phantom._detectability(noise[0] + h * disc, noise[1]) for h in (0, 2, 20)]
    assert areas[0] == pytest.approx(0.5, abs=0.08)
    assert 0.7 < areas[1] < 0.98
    assert areas[2] > 0.999


def test_the_card_says_what_was_measured(blurred: evaluate_phantom.Figures) -> None:
    """CARD.md carries the figures, the command that measures them and the loss of small lesions."""
    model = _model(_Blur())
    figures = {
        "people": evaluate.evaluate_on_people(model, [_case()], doses=(0.5,), filters=()),
        "phantom": blurred,
    }
    text = pack_denoiser.denoiser_card_text({**model.card, "measured_by": "aenode evaluate test"}, figures)
    kept = figures["phantom"]["rows"][2]["kept_3mm_14hu"]
    assert f"leaves {100 * kept:.0f} % of the contrast of a 3 mm" in text
    assert "aenode evaluate test" in text
    assert "| 0.5 | noisy |" in text and "| liver |" in text


def test_sharpness_is_that_of_the_blur() -> None:
    """An edge blurred by a Gaussian of SD s has half its modulation at √(2 ln 2) / (2 π s)."""
    disc = evaluate_phantom._disc(0, 0, 15.0) * 120
    wider = evaluate_phantom.ndimage.gaussian_filter(disc, 1.5)
    nothing = np.zeros_like(disc)
    half = evaluate_phantom._sharpness(0.0, [(nothing, nothing)], [(wider, nothing)])
    # Blurred by the pixel (a box of 0.7 mm, SD 0.2 mm), the scanner (0.6 pixels) and by 1.5 pixels.
    sd = np.sqrt(0.7**2 / 12 + (0.6 * 0.7) ** 2 + (1.5 * 0.7) ** 2)
    assert half == pytest.approx(np.sqrt(2 * np.log(2)) / (2 * np.pi * sd), rel=0.08)

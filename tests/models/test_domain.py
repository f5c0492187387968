"""The domain gate's statistics: what is usual is green, what is not is amber or red, and by how much."""

import numpy as np
import pytest
import torch

from models.anomaly import CoarseDAE
from models.cases import Case
from models.denoiser import BFRAE
from models.domain import BRIGHTNESS, Domain, evenly, fit_domain
from models.domain_of import anomaly_domain, denoiser_domain, denoiser_features, series_features
from models.preparation import Contract
from models.weights import LoadedModel
from tests.models.test_evaluate_images import case, film
from tests.models.test_vae import WORDS
from tests.models.thorax_made import thorax


def _series(rng: np.random.Generator, shift: float = 0.0, off: float = 0.0) -> np.ndarray:
    """Slices whose 40 features vary along three directions only, and a little everywhere."""
    axes = np.random.default_rng(99).standard_normal((3, 40))
    stranger = np.random.default_rng(98).standard_normal(40)
    stranger -= axes.T @ np.linalg.lstsq(axes.T, stranger, rcond=None)[0]
    along = rng.standard_normal((6, 3)) + shift
    return 5 + along @ axes + 0.3 * rng.standard_normal((6, 40)) + off * stranger


@pytest.fixture(scope="module")
def domain() -> Domain:
    rng = np.random.default_rng(1)
    people = [f"p{n // 2}" for n in range(60)]
    found = fit_domain([_series(rng) for _ in people], people)
    assert found is not None
    return found


def test_people_of_the_same_kind_are_green(domain: Domain) -> None:
    """Others of the same distribution pass, nearly all of them, without a reason."""
    rng = np.random.default_rng(2)
    judged = [domain.judge(_series(rng)) for _ in range(100)]
    assert sum(one.light == "green" for one in judged) >= 95
    assert all(one.reason == "" for one in judged if one.light == "green")


def test_far_along_and_off_the_directions_are_told_apart(domain: Domain) -> None:
    """A large shift along known directions shows in the distance, a new direction in the residual."""
    rng = np.random.default_rng(3)
    along, off = domain.judge(_series(rng, shift=14)), domain.judge(_series(rng, off=3))
    assert along.light == "red" and along.distance > 3 > along.residual
    assert off.light == "red" and off.residual > 3
    between = domain.judge(_series(rng, shift=2.0))
    further = _series(np.random.default_rng(3), off=0.6)
    assert 2 < domain.judge(further).distance < 3
    assert (domain.judge(further, "anomaly").light, domain.judge(further, "denoiser").light) == (
        "red",
        "amber",
    )
    assert between.light == "amber" and "unlike" in between.reason
    assert "nothing like" in off.reason


def test_one_odd_brightness_is_not_hidden_by_what_is_usual(domain: Domain) -> None:
    """A percentile far off makes a series red, though all other features lie where they should."""
    series = _series(np.random.default_rng(6))
    assert domain.judge(series).light == "green"
    place = -BRIGHTNESS + int(np.argmin(domain.sd[-BRIGHTNESS:]))
    series[:, place] += 6.5 * domain.limits[2] * domain.sd[place] / np.sqrt(BRIGHTNESS / (40 - BRIGHTNESS))
    judged = domain.judge(series)
    assert judged.light == "red" and judged.brightness > 5
    assert "brightness" in judged.reason


def test_a_domain_survives_its_arrays_and_refuses_others(domain: Domain) -> None:
    """What calibration.npz holds is the same domain; other features are an error, NaN is red."""
    again = Domain.of(domain.to_arrays())
    series = _series(np.random.default_rng(4))
    assert again is not None and again.judge(series) == domain.judge(series)
    assert Domain.of({}) is None
    with pytest.raises(ValueError, match="not those of this model"):
        domain.judge(series[:, :7])
    assert domain.judge(np.full_like(series, np.nan)).light == "red"


def test_few_people_make_no_domain() -> None:
    """Four people cannot be left out fold by fold."""
    rng = np.random.default_rng(5)
    assert fit_domain([_series(rng) for _ in range(8)], ["a", "b", "c", "d"] * 2) is None
    assert evenly(3, 9) == [0, 1, 2] and len(set(evenly(40, 9))) == 9 and evenly(40, 9)[0] == 4


def _people(count: int) -> list[Case]:
    rng = np.random.default_rng(7)
    found = []
    for n in range(count):
        volume = np.roll(thorax(3, seed=n), rng.integers(-5, 6, 2), (1, 2)) + rng.normal(0, 8)
        found.append(
            Case(f"p{n}", "made", "CT", volume.astype(np.float32), np.zeros(volume.shape, bool), (3.0, 3.0))
        )
    return found


@pytest.fixture(scope="module")
def denoiser() -> LoadedModel:
    torch.manual_seed(2)
    network = BFRAE((8, 16, 16), 1).eval()
    domain = denoiser_domain(network, _people(12), "CT")
    assert domain is not None
    card = {"input": {"modality": "CT"}}
    return LoadedModel("x", "0.0.1", "denoiser", "0" * 64, card, network, "cpu", domain.to_arrays())


@pytest.mark.parametrize(
    ("change", "lights"),
    [
        (lambda v: v, {"green"}),
        (lambda v: np.clip(100 - v, -1024, 3000), {"red"}),  # inverted
        (lambda v: v + 1024, {"red"}),  # rescale missing
        (lambda v: np.where(v > -900, 700 + v / 10, -1000), {"red"}),  # another anatomy: no lungs, all bone
    ],
    ids=["usual", "inverted", "no rescale", "other anatomy"],
)
def test_what_a_denoiser_was_not_taught_on_is_refused(denoiser: LoadedModel, change, lights) -> None:  # type: ignore[no-untyped-def]
    """Even with an untaught encoder brightness and edges tell."""
    other = _people(14)[13]
    volume = change(other.volume).astype(np.float32)
    domain = Domain.of(denoiser.calibration)
    assert domain is not None
    features = series_features(denoiser, volume, other.padding, other.spacing)
    assert features.shape[1] == 2 * (8 + 16 + 16) + BRIGHTNESS
    assert domain.judge(features, "denoiser").light in lights


def test_features_do_not_depend_on_the_scanner_s_matrix(denoiser: LoadedModel) -> None:
    """Sides that are no multiples of 8 are filled at the edge, not refused."""
    volume = thorax(2)[:, :91, :123]
    found = denoiser_features(denoiser.network, volume, np.zeros(volume.shape, bool), "CT")
    assert np.isfinite(found).all() and len(found) == 2


def test_an_anomaly_model_knows_its_films_from_others() -> None:
    """Films like the training's pass; an inverted one and a plain ramp do not pass as usual."""
    torch.manual_seed(3)
    contract = Contract.of({"input": WORDS})
    network = CoarseDAE((4, 8), 2).eval()
    domain = anomaly_domain(network, [case(n) for n in range(40)], contract)
    assert domain is not None
    model = LoadedModel(
        "x", "0.0.1", "anomaly", "0" * 64, {"input": WORDS}, network, "cpu", domain.to_arrays()
    )

    def light(volume: np.ndarray) -> str:
        nothing = np.zeros(volume.shape, bool)
        return domain.judge(series_features(model, volume, nothing, (1.0, 1.0))).light

    assert [light(film(100 + n)) for n in range(8)].count("green") >= 7
    assert light(255 - film(100)) == "red"
    assert light(np.indices((96, 96)).sum(0)[None].astype(np.float32)) == "red"

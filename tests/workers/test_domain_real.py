"""The shipped models' gates on real people: those like the training pass, everything else is refused.

A model that was packed without statistics gets some here, from a few people of its training data.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import weights
from models.cases import Case
from models.domain import Domain
from models.domain_of import anomaly_domain, denoiser_domain
from models.phantom import ct_series
from models.preparation import Contract, OutsideDomain
from models.weights import LoadedModel
from node.errors import SeriesRefused
from workers.domain_gate import look
from workers.training import read_cases

FEW = 24  # people


def _light(model: LoadedModel, case: Case, voxels: np.ndarray | None = None) -> str:
    """What the second stage makes of a case, or of it with other values."""
    volume = np.asarray(case.volume if voxels is None else voxels, np.float32)
    try:
        note = look(model, model.card["input"]["modality"], volume, case.padding, case.spacing)
    except (SeriesRefused, OutsideDomain):
        return "red"
    return "amber" if note else "green"


def _gated(model: LoadedModel, cases: Callable[[], list[Case]]) -> LoadedModel:
    if Domain.of(model.calibration) is not None:
        return model
    modality = model.card["input"]["modality"]
    if model.kind == "denoiser":
        domain = denoiser_domain(model.network, cases()[:16], modality)
    else:
        domain = anomaly_domain(model.network, cases(), Contract.of(model.card))
    assert domain is not None
    return replace(model, calibration={**model.calibration, **domain.to_arrays()})


def _ct(folder: Path, most: int) -> list[Case]:
    """One slice of each of some people."""
    people = sorted(path for path in folder.iterdir() if path.is_dir())
    return read_cases([sorted(person.iterdir())[0] for person in people[:most]], modality="CT").cases


def _t1(path: Path) -> list[Case]:
    return read_cases([path], modality="MR", pixel_mm=0.868).cases


def _phantom(size: int = 320) -> Case:
    scan = ct_series(slices=3, size=size, seed=1, dose=0.25)
    return Case("phantom", "made", "CT", scan.noisy, np.zeros(scan.noisy.shape, bool), scan.spacing[1:])


@pytest.fixture(scope="module")
def ct_people(data_dir: Path) -> list[Case]:
    """People whom no shipped model has seen."""
    return _ct(data_dir / "ct-denoise" / "val", 7)


@pytest.fixture(scope="module", params=["ct-denoise", "ct-anomaly"])
def ct_model(request: pytest.FixtureRequest, data_dir: Path) -> LoadedModel:
    return _gated(weights.load(request.param), lambda: _ct(data_dir / "ct-denoise" / "train", FEW))


@pytest.fixture(scope="module")
def brain_model(data_dir: Path) -> LoadedModel:
    train = data_dir / "mr-brain-t1-normal" / "train.npz"
    return _gated(weights.load("brain-mr-anomaly"), lambda: _t1(train)[:FEW])


def test_people_and_the_demo_s_phantom_are_not_refused(ct_model: LoadedModel, ct_people: list[Case]) -> None:
    """Nearly all of them are green, and none red."""
    lights = [_light(ct_model, case) for case in (*ct_people, _phantom())]
    assert "red" not in lights and lights.count("green") >= len(lights) - 2, lights


@pytest.mark.parametrize("wrong", ["inverted", "no rescale"])
def test_people_turned_over_or_without_rescale_are_refused(
    ct_model: LoadedModel, ct_people: list[Case], wrong: str
) -> None:
    """Every one of them, whatever the header says."""
    for case in (*ct_people[:3], _phantom(256)):
        volume = np.clip(100 - case.volume, -1024, 3000) if wrong == "inverted" else case.volume + 1024
        assert _light(ct_model, case, volume) == "red"


def test_mr_whose_header_says_ct_is_refused(ct_model: LoadedModel, data_dir: Path) -> None:
    """Each series of the data, of six scanners."""
    cases = read_cases([data_dir / "dicom-series"], modality="MR").cases
    assert len(cases) >= 6
    for case in cases:
        assert _light(ct_model, case) == "red"


def test_a_head_is_no_trunk(ct_model: LoadedModel, data_dir: Path) -> None:
    """A plastic head is refused in both kernels; in a stereotaxic frame it is told at least."""
    cases = _ct(data_dir / "ct-phantom-dose", 5)
    lights = [_light(ct_model, case) for case in cases]
    assert lights.count("red") >= 2 and "green" not in lights, lights


def test_brains_pass_and_others_do_not(brain_model: LoadedModel, data_dir: Path) -> None:
    """Extracted T1 brains are not refused; turned over, other body parts and CT are."""
    people = _t1(data_dir / "mr-brain-t1-normal" / "val.npz")
    assert len(people) == 6
    assert "red" not in [_light(brain_model, case) for case in people]
    for case in people[:2]:
        inside = case.volume > 20
        assert _light(brain_model, case, np.where(inside, case.volume.max() - case.volume, 0)) == "red"
    for case in read_cases([data_dir / "dicom-series"], modality="MR").cases:
        assert _light(brain_model, case) == "red"
    for case in (_phantom(128), _ct(data_dir / "ct-denoise" / "val", 1)[0]):
        assert _light(brain_model, case) == "red"


def test_a_real_lesion_is_no_reason_to_refuse(brain_model: LoadedModel, data_dir: Path) -> None:
    """T1 of people with multiple sclerosis from another scanner is not refused: it is what is looked for."""
    folder = data_dir / "mr-ms-lesions" / "cross_sectional_mni"
    for case in read_cases([folder], modality="MR", volume_name="T1.nii.gz").cases:
        assert _light(brain_model, case) in ("green", "amber")

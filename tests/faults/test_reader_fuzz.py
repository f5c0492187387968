"""Damaged series: the reader gives a volume or a sentence, never anything else."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.errors import SeriesRefused
from tests.series import series, write
from workers.read import read_series

CORPUS = Path(__file__).with_name("corpus.json")  # [offset, bytes in hexadecimal] of earlier finds and edges


def read_damaged(folder: Path, at: int, flip: bytes, cut: int) -> None:
    files = write(folder, series(3, 16))
    raw = bytearray(files[1].read_bytes())
    at %= len(raw)
    raw[at : at + len(flip)] = flip
    files[1].write_bytes(bytes(raw[: len(raw) - cut % len(raw)]))
    try:
        volume = read_series(files)
    except SeriesRefused:
        return
    assert volume.voxels.ndim == 3
    assert np.isfinite(volume.voxels[~volume.padding]).all()


@pytest.mark.filterwarnings("ignore:::pydicom")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(132, 2500), flip=st.binary(max_size=6), cut=st.integers(0, 600))
def test_bytes_overwritten_or_cut_off_give_a_sentence(tmp_path: Path, at: int, flip: bytes, cut: int) -> None:
    """A worker never dies of one slice."""
    read_damaged(tmp_path / "s", at, flip, cut)


@pytest.mark.filterwarnings("ignore:::pydicom")
@pytest.mark.parametrize(("at", "flip", "cut"), json.loads(CORPUS.read_text()))
def test_the_corpus_gives_a_sentence(tmp_path: Path, at: int, flip: str, cut: int) -> None:
    """What once was, or is likely to be, a fault."""
    read_damaged(tmp_path, at, bytes.fromhex(flip), cut)

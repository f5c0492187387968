"""Volumes and model results for the tests of what is written, and the validator that judges it."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from models.anomaly import AnomalyScores
from models.denoiser import Denoised
from tests import series as made
from workers.read import Volume, read_series
from workers.write.provenance import Provenance

NOW = datetime(2026, 3, 4, 22, 30, 15, 250000, tzinfo=UTC)
PROVENANCE = Provenance(
    pipeline="ct-denoise",
    model="ct-denoise",
    version="0.1.0",
    weights_sha256="5f" * 32,
    strength=0.5,
    limit_sigma=3.0,
)


def volume_of(folder: Path, images: Sequence[FileDataset]) -> Volume:
    """The images written to `folder` and read back as the worker does."""
    return read_series(made.write(folder, images))


def denoised(volume: Volume, *, strength: float = 0.5, limit_sigma: float = 3.0) -> Denoised:
    """A result that uses the bound of every slice up, up and down; padding is nonsense on purpose."""
    sigma = np.linspace(8, 12, len(volume.voxels)).astype(np.float32)
    limit = strength * limit_sigma * sigma[:, None, None]
    sign = np.where(np.indices(volume.voxels.shape).sum(axis=0) % 2, 1, -1)
    image = np.where(volume.padding, np.float32(3e4), volume.voxels + sign * limit * 0.9999)
    return Denoised(image.astype(np.float32), sigma, strength, limit_sigma)


def scores(volume: Volume, *, threshold: float = 3.0, peak: float = 6.0) -> AnomalyScores:
    """Scores with one round region of height `peak` in every second slice; nothing else."""
    depth, height, width = volume.voxels.shape
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (width / 10) ** 2
    score = np.zeros(volume.voxels.shape, np.float32)
    score[::2] = disc * np.float32(peak)
    per_slice = score.max(axis=(1, 2)) + np.linspace(0, 0.5, depth).astype(np.float32)
    return AnomalyScores(
        score=score,
        evaluated=np.ones(score.shape, bool),
        threshold=threshold,
        per_slice=per_slice,
        series_score=float(per_slice.max()),
        rarer_than=None,
        normals=40,
        normal_scores=np.sort(np.random.default_rng(2).gamma(4, 0.5, 40)).astype(np.float32),
    )


def iod_errors(*paths: Path) -> list[str]:
    """The lines of dciodvfy that begin with Error; its exit code is 0 even then."""
    found = []
    for path in paths:
        lines = _said("dciodvfy", path)
        assert any(line.endswith("Image") for line in lines), f"dciodvfy said nothing of {path}: {lines}"
        found += [f"{path.name}: {line}" for line in lines if line.startswith("Error")]
    return found


def set_errors(*paths: Path) -> list[str]:
    """The lines of dcentvfy that begin with Error: entities that differ between the files of a set."""
    lines = _said("dcentvfy", *paths)
    return [line for line in lines if line.startswith("Error")]


def _said(tool: str, *paths: Path) -> list[str]:
    command = [Path(sys.executable).parent / tool, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()

"""Instances of one series → `Volume`, or `SeriesRefused` with one sentence for a person."""

from workers.read.series import read_series, read_volumes
from workers.read.volume import Volume

__all__ = ["Volume", "read_series", "read_volumes"]

"""Computes quantiles of samples."""

from collections.abc import Sequence
from math import ceil


def share(samples: Sequence[float], percent: float) -> float:
    """Returns the smallest sample that is no smaller than `percent` percent of the samples."""
    return sorted(samples)[max(ceil(len(samples) * percent / 100) - 1, 0)]

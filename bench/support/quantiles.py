"""Computes quantiles of samples."""

from collections.abc import Sequence
from math import ceil


def share(samples: Sequence[float], percent: float) -> float:
    """Returns a percentile by the nearest-rank method: the smallest sample for which at least
    `percent` percent of all samples are as small or smaller."""
    return sorted(samples)[max(ceil(len(samples) * percent / 100) - 1, 0)]

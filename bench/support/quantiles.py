"""Computes quantiles of samples."""

from collections.abc import Sequence
from math import ceil


def share(samples: Sequence[float], percent: float) -> float:
    """Returns the nearest-rank percentile: the sample at `percent` percent of the sorted list."""
    return sorted(samples)[max(ceil(len(samples) * percent / 100) - 1, 0)]

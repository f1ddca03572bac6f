"""Modules that the benchmarks share: a run and its result, comparisons, and peers."""

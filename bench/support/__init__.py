"""Contains the modules that the benchmarks share: for runs, results, comparisons and peers."""

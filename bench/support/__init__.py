"""Contains the modules for runs, results, comparisons and peers that the benchmarks share."""

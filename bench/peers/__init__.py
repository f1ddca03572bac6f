"""Contains the applications with which benchmarks compare the realm server. Each runs in a process
of its own."""

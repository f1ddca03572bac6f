"""Contains the applications that benchmarks compare with the realm server. Each application runs in
a process of its own."""

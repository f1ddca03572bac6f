"""Finds out which part of a large fleet saturates first. A fleet is all replicas and workers of an
installation, with their Postgres and broker. docs/scale.md shows the results.

`script/bench fleet NAME` runs one measurement. Each measurement is a module that measures one part
of a fleet on a new Postgres, and prints the module's docstring and tables of figures.
"""

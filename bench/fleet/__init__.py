"""Finds out which part of a large fleet saturates first. docs/scale.md shows the results.

Each module measures one part on a Postgres of its own, and prints its docstring and tables.
`script/bench fleet NAME` runs one of them.
"""

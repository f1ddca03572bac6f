"""Measurements for docs/scale.md: which part of a large fleet saturates first.

Each module measures one part on a Postgres of its own, and prints its docstring and tables.
`script/bench fleet NAME` runs one of them.
"""

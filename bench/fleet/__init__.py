"""Measurements for docs/scale.md: what saturates first when one machine no longer does.

Each module measures one thing on a Postgres of its own, prints tables, and says how it measured.
`script/bench fleet NAME` runs one of them.
"""

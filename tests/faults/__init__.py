"""Fault campaigns: a real fleet under seeded faults, with clients at work, and a judge of it all.

Clients write, publish and read while processes are killed and connections stall; every read goes
into a history, and the database keeps an account of every commit. Afterwards the history is held
against the account: `script/faults --help` tells how to run one.
"""

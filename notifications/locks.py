"""Computes the names and keys of Postgres advisory locks. A lock's name is a text, usually a URL.
The lock's key is the number that Postgres locks.
"""

import hashlib


def lock_key(url: str) -> int:
    """Returns the key of the advisory lock with the name `url`. The key is the first 8 bytes of the
    SHA-256 of the name, as a big-endian signed integer."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big", signed=True)


def address_lock(realm_url: str) -> str:
    """Returns the name of a source realm's address lock. An operation that can change the URL at
    which the source realm is published takes this lock first."""
    return f"{realm_url}#published"

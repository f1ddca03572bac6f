"""Computes the keys and names of Postgres advisory locks."""

import hashlib


def lock_key(url: str) -> int:
    """Returns the advisory lock's key for a URL: the first 8 bytes of the URL's SHA-256, as a
    big-endian signed integer."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big", signed=True)


def address_lock(realm_url: str) -> str:
    """Returns the name of the lock that protects the published URL of a source realm. `lock_key`
    computes a lock's key from this name in the same way as from a URL."""
    return f"{realm_url}#published"

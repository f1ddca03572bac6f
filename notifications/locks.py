"""How a URL is spelt as the key of a Postgres advisory lock, and what else is locked by name."""

import hashlib


def lock_key(url: str) -> int:
    """The first 8 bytes of the URL's SHA-256 as a big-endian signed integer."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big", signed=True)


def address_lock(realm_url: str) -> str:
    """What is locked, like a URL, by who changes where a source realm is published."""
    return f"{realm_url}#published"

"""How a URL is spelt as the key of a Postgres advisory lock."""

import hashlib


def lock_key(url: str) -> int:
    """The first 8 bytes of the URL's SHA-256 as a big-endian signed integer."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big", signed=True)

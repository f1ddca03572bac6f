"""Computes the renderer's version, which is a hash of the code that renders cards."""

import hashlib
from functools import cache
from pathlib import Path

from django.conf import settings

#: The folders and file patterns of the code that renders cards. The card library is not listed,
#: because it is a realm. Jobs notice its changes like the changes of any other realm. In a clone of
#: the repository and in an installed package, the files have the same names and the same order. So
#: the hash is the same in both.
_RENDERER = (
    (settings.TYPESCRIPT_DIR, "reindex/deno/*.ts"),
    (settings.TYPESCRIPT_DIR, "reindex/deno/*.json"),
    (settings.BASE_DIR, "reindex/index/words.py"),
    (settings.TYPESCRIPT_DIR, "deno.json"),
    (settings.TYPESCRIPT_DIR, "deno.lock"),
    (settings.BASE_DIR, "reindex/reading/references.py"),
    (settings.BASE_DIR, "reindex/reading/documents.py"),
)


@cache
def renderer() -> str:
    """Returns the hash of the code that renders cards. After the hash has changed, the next job of
    each realm renders all cards of the realm again."""
    digest = hashlib.sha256()
    for root, pattern in _RENDERER:
        for path in sorted(Path(root).glob(pattern)):
            if not path.name.endswith("_test.ts"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

"""What renders, as a hash of its code."""

import hashlib
from functools import cache
from pathlib import Path

from django.conf import settings

#: Sources of the prerenderer, besides the card library, which is a realm like any other.
_RENDERER = (
    "reindex/deno/*.ts", "reindex/deno/*.json", "reindex/index/words.py", "deno.json", "deno.lock",
    "reindex/reading/references.py", "reindex/reading/documents.py",
)  # fmt: skip


@cache
def renderer() -> str:
    """The hash of the code that renders: another release renders every card anew."""
    digest = hashlib.sha256()
    for pattern in _RENDERER:
        for path in sorted(Path(settings.BASE_DIR).glob(pattern)):
            if not path.name.endswith("_test.ts"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

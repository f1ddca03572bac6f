"""The renderer's version: a hash of the code that renders cards."""

import hashlib
from functools import cache
from pathlib import Path

from django.conf import settings

#: Sources of the prerenderer. The card library is not among them: it is a realm of its own.
_RENDERER = (
    "reindex/deno/*.ts", "reindex/deno/*.json", "reindex/index/words.py", "deno.json", "deno.lock",
    "reindex/reading/references.py", "reindex/reading/documents.py",
)  # fmt: skip


@cache
def renderer() -> str:
    """The hash of the code that renders. If it changes, jobs render every card again."""
    digest = hashlib.sha256()
    for pattern in _RENDERER:
        for path in sorted(Path(settings.BASE_DIR).glob(pattern)):
            if not path.name.endswith("_test.ts"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

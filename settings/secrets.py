"""The default realm secret seed of an installation, and the keys derived from a seed."""

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

from django.utils.functional import SimpleLazyObject


@cache
def secret_seed(data_dir: Path) -> str:
    """The seed in `<data_dir>/secret-seed`, created on first use and readable by its owner only.

    Replicas on several hosts need the same seed: set REALM_SECRET_SEED there instead.
    """
    path = data_dir / "secret-seed"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # mkstemp: threads of one process may come here at the same time too.
        handle, draft = tempfile.mkstemp(dir=data_dir, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            # `link` fails if the name exists: two processes that start first agree on one seed.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    return path.read_text()


def derived_key(seed: str, purpose: str) -> str:
    """A key for one purpose. It reveals neither the seed nor the key of another purpose."""
    return hmac.new(seed.encode(), f"realm server: {purpose}".encode(), hashlib.sha256).hexdigest()


def lazy_text(make: Callable[[], str]) -> str:
    """A string that is made when it is first used (docs/decisions/settings-write-nothing.md).

    Unlike Django's `lazystr` it passes for a `str` in `isinstance`, which PyJWT asks of a key.
    """
    return cast(str, SimpleLazyObject(make))

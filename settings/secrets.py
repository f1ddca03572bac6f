"""Makes the default secret seed of an installation, and derives keys from a seed."""

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
    """Returns the seed in `<data_dir>/secret-seed`. The file is created on first use, and only its
    owner can read it.

    If replicas run on several hosts, set REALM_SECRET_SEED instead, because all replicas need the
    same seed.
    """
    path = data_dir / "secret-seed"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Several threads or processes may create the seed at the same time, so each of them writes
        # a file of its own.
        handle, draft = tempfile.mkstemp(dir=data_dir, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            # `link` fails if `path` exists. So processes that make a seed at the same time all use
            # the seed of the first process.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    return path.read_text()


def derived_key(seed: str, purpose: str) -> str:
    """Returns a key for one purpose. The key reveals neither the seed nor the key of another
    purpose."""
    return hmac.new(seed.encode(), f"realm server: {purpose}".encode(), hashlib.sha256).hexdigest()


def lazy_text(make: Callable[[], str]) -> str:
    """Returns a string that calls `make` for its value when the string is first used
    (docs/decisions/settings-write-nothing.md).

    PyJWT accepts a key only if `isinstance(key, str)` is true. This is true of the returned string,
    but not of a string that Django's `lazystr` returns.
    """
    return cast(str, SimpleLazyObject(make))

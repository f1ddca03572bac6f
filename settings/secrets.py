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

    Replicas on several hosts need the same seed, so they need REALM_SECRET_SEED instead.
    """
    path = data_dir / "secret-seed"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # mkstemp makes a new file each time, because several threads or processes may run this at
        # the same time.
        handle, draft = tempfile.mkstemp(dir=data_dir, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            # `link` fails if the name exists, so two processes that start at the same time use one
            # seed.
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
    """A string that `make` computes when it is first used
    (docs/decisions/settings-write-nothing.md).

    Unlike Django's `lazystr`, it is a `str` for `isinstance`, which PyJWT requires of a key.
    """
    return cast(str, SimpleLazyObject(make))

"""The default realm secret seed of an installation, and the keys derived from a seed."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path


def secret_seed(data_dir: Path) -> str:
    """The seed in `<data_dir>/secret-seed`, created on first use and readable by its owner only.

    Replicas on several hosts need the same seed: set REALM_SECRET_SEED there instead.
    """
    path = data_dir / "secret-seed"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        try:
            # `link` fails if the name exists: two processes that start first agree on one seed.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()


def derived_key(seed: str, purpose: str) -> str:
    """A key for one purpose. It reveals neither the seed nor the key of another purpose."""
    return hmac.new(seed.encode(), f"realm server: {purpose}".encode(), hashlib.sha256).hexdigest()

"""The realm secret seed of an installation that was given none, and the keys made from a seed."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path


def secret_seed(data_dir: Path) -> str:
    """The seed kept in `<data_dir>/secret-seed`, made on first use and readable by its owner only.

    Replicas on several hosts share one seed, so they are given REALM_SECRET_SEED instead.
    """
    path = data_dir / "secret-seed"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        try:
            # A link fails where the name exists: of two first processes, one seed wins for both.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()


def derived_key(seed: str, purpose: str) -> str:
    """A key for one purpose. Neither the seed nor another purpose's key can be had from it."""
    return hmac.new(seed.encode(), f"realm server: {purpose}".encode(), hashlib.sha256).hexdigest()

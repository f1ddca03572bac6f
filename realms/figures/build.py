"""Identifies the build that this process runs, by the server's version and its rendering code."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from django.conf import settings

from reindex.prerender.renderer import renderer


@cache
def build() -> str:
    """Returns the server's version and the start of a hash, for example `0.1.0+1a2b3c4d`. The hash
    is made from the code that renders cards. It distinguishes unreleased builds that have the same
    version but render cards differently."""
    return f"{_version()}+{renderer()[:8]}"


def _version() -> str:
    try:
        project = tomllib.loads((Path(settings.BASE_DIR) / "pyproject.toml").read_text())
        return str(project["project"]["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return version("realm-server")
    except PackageNotFoundError:
        return "unknown"

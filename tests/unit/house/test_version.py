"""Tests that the newest release in the changelog has the project's version."""

import re
import tomllib

from settings.environment import BASE_DIR


def test_the_changelogs_newest_release_is_the_projects_version() -> None:
    version = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
    parts = re.findall(r"^## (.+)$", (BASE_DIR / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [part.split()[0] for part in parts if part != "Unreleased"]
    assert released[0] == version

"""A release has one number, and the changelog's newest part tells what is in it."""

import re
import tomllib

from settings.environment import BASE_DIR


def test_the_changelog_tells_of_the_projects_version() -> None:
    version = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
    parts = re.findall(r"^## (.+)$", (BASE_DIR / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [part.split()[0] for part in parts if part != "Unreleased"]
    assert released[0] == version

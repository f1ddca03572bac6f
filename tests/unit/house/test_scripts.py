"""Tests the scripts that can be run in a fresh clone, before any package is installed. With a help
option, such a script only prints its help."""

import shutil
import subprocess
from pathlib import Path

import pytest

from settings.environment import BASE_DIR

SCRIPTS = ("demo", "test", "lint", "faults", "bench hostile", "bench fleet", "bootstrap")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_scripts_help_option_installs_nothing(script: str, option: str, tmp_path: Path) -> None:
    for folder in ("script", "bench"):
        shutil.copytree(BASE_DIR / folder, tmp_path / folder)
    name, *arguments = script.split()
    before = {*tmp_path.rglob("*")}
    done = subprocess.run(
        [tmp_path / "script" / name, *arguments, option],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/bin/false"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout or len(done.stdout.split()) > 5
    assert {*tmp_path.rglob("*")} == before

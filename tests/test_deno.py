"""The TypeScript has tests and types of its own: Deno is asked about both."""

import os
import subprocess
from pathlib import Path

import pytest
from deno import find_deno_bin

from settings.processes import BASE_DIR

pytestmark = pytest.mark.cluster

SECONDS = 180


def deno(folder: Path, *arguments: str) -> None:
    """Runs Deno in the clone with empty caches; fails with what it printed."""
    ran = subprocess.run(
        [find_deno_bin(), *arguments],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "DENO_DIR": str(folder),
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, f"deno {' '.join(arguments)}\n{ran.stdout}"


def test_the_tests_of_the_prerenderer_pass(tmp_path: Path) -> None:
    deno(tmp_path, "test", "-A", "reindex/deno")


def test_the_types_of_the_prerenderer_and_of_the_base_module_are_right(tmp_path: Path) -> None:
    deno(tmp_path, "check", "reindex/deno/host.ts", "reindex/deno/worker.ts", "realms/base/mod.ts")

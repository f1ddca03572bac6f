"""Runs Python code in new Linux namespaces, for example with a separate disk or clock."""

import os
import shutil
import subprocess
import sys

import pytest

from settings.environment import BASE_DIR


def in_a_namespace(*arguments: str, kind: str, code: str) -> str:
    """Runs Python code in new namespaces and returns its output. `kind` contains the options of
    unshare(1), which choose the namespaces. If the code exits with status 77, the test is skipped,
    and the output is the reason."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1) here")
    rootless = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [unshare, *rootless, *kind.split()]
    allowed = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"no namespaces here: {allowed.stderr.strip()}")
    ran = subprocess.run(
        [*command, sys.executable, "-c", code, *arguments],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ran.returncode == 77:
        pytest.skip(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout

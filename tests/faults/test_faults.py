"""A short campaign, for what only chance finds. Longer ones: `script/faults --seconds 600`."""

import subprocess
import sys

import pytest

from settings.environment import BASE_DIR

pytestmark = pytest.mark.cluster

SECONDS = 25


@pytest.mark.timeout(240)
def test_a_fleet_that_is_broken_at_random_keeps_its_promises() -> None:
    """Clients write, publish and read while processes, connections and messages are lost; every
    answer is held against what was committed, and in the end all replicas hold the newest."""
    command = [sys.executable, "-m", "tests.faults", "--seconds", str(SECONDS), "--replicas", "2"]
    ran = subprocess.run(
        command, cwd=BASE_DIR, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=220
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "no promise was broken" in ran.stdout

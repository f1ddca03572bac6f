"""Runs a short fault campaign. For a longer campaign, run `script/faults --seconds 600`."""

import subprocess
import sys

import pytest

from settings.environment import BASE_DIR

pytestmark = pytest.mark.cluster

SECONDS = 25


@pytest.mark.timeout(240)
def test_a_fleet_under_random_faults_keeps_its_promises() -> None:
    """Clients write, publish and read while processes, connections and messages are lost. The
    campaign's judge compares every answer with the commits. At the end all replicas must be up to
    date."""
    command = [sys.executable, "-m", "tests.faults", "--seconds", str(SECONDS), "--replicas", "2"]
    ran = subprocess.run(
        command, cwd=BASE_DIR, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=220
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "no promise was broken" in ran.stdout

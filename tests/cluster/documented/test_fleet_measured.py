"""Runs some measurements of docs/scale.md at their smallest size and checks the printed results."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fleet.__main__ import NAMES
from settings.environment import BASE_DIR
from tests.support.minutes import takes_minutes

pytestmark = [pytest.mark.cluster]


def measured(name: str) -> str:
    """Runs a measurement and returns its output."""
    left = {k: v for k, v in os.environ.items() if not k.startswith(("REALM_", "DATABASE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "bench.fleet", name, "--quick"],
        cwd=BASE_DIR,
        env=left,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@takes_minutes
@pytest.mark.parametrize(
    ("name", "heading"),
    [("notify", "pings of all sidecars"), ("budget", "balancer's readiness checks")],
)
def test_a_measurement_prints_its_results(name: str, heading: str) -> None:
    assert heading in measured(name)


@takes_minutes
def test_reads_by_lsn_or_pin_from_a_standby_are_never_wrong() -> None:
    """A standby, a copy of the database, returns old bytes while its replay of changes is paused.
    So a read that accepts any row of the standby is wrong. The other two reads first check that the
    standby has the wanted change, by an LSN (a position in the log of changes) or by a generation.
    So these two reads are never wrong."""
    rows = [re.split(r"\s*│\s*", line) for line in measured("standby").splitlines() if "│" in line]
    wrong = {(row[1], row[2]): row[3] for row in rows}
    assert wrong["paused", "whatever it has"] == "5 of 5"
    for lag in ("streaming", "paused"):
        assert wrong[lag, "by LSN"] == wrong[lag, "pinned, by generation"] == "0 of 5"


@takes_minutes
@pytest.mark.services
def test_a_worker_renders_from_a_quorum_queue() -> None:
    if os.geteuid() != 0 or shutil.which("rabbitmqctl") is None:
        pytest.skip("only root can make virtual hosts with rabbitmqctl")
    running = subprocess.run(["rabbitmqctl", "ping"], capture_output=True, check=False)
    if running.returncode != 0:
        pytest.skip("no RabbitMQ runs here")
    assert "quorum" in measured("quorum")


@pytest.mark.unit
def test_the_scale_page_names_every_measurement() -> None:
    page = (BASE_DIR / "docs" / "scale.md").read_text()
    assert [name for name in NAMES if f"script/bench fleet {name}" not in page] == []
    folder = Path(BASE_DIR) / "bench" / "fleet"
    assert [name for name in NAMES if not (folder / f"{name}.py").is_file()] == []

"""Tests how the sidecar, the process of `manage.py listen_file_changes`, starts, reports its state,
refuses to run and ends.

The sidecar receives notifications of changes from Postgres. It keeps its replica's board live while
no notification is missing. The board is a file that the replica's web workers use too.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from notifications.models import Replica as Row
from realms.figures.files import folder_of
from settings.environment import BASE_DIR
from tests.support.cluster import Cluster, Replica, free_ports, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

#: How long a test waits for a process, which may first have to start Python and Django.
SECONDS = 20
BOUND_SECONDS = 2


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Yields a replica without starting its processes."""
    fleet = Cluster(tmp_path, 1, {})
    try:
        yield fleet.replicas[0]
    finally:
        fleet.stop()


@pytest.fixture
def live(replica: Replica) -> Replica:
    replica.start("sidecar")
    replica.wait_live()
    return replica


def run(
    replica: Replica, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Runs another `listen_file_changes` process until it ends. It uses the replica's board unless
    `environment` names another board."""
    sidecar = replica.commands["sidecar"]
    return subprocess.run(
        [*sidecar.command, *arguments],
        cwd=BASE_DIR,
        env={**replica.cluster.environment, **sidecar.environment, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def told(replica: Replica) -> str:
    """Returns what the sidecar has logged so far."""
    return (replica.cluster.folder / "sidecar-a.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_sidecar_properly_and_the_board_is_not_live(
    live: Replica, number: signal.Signals
) -> None:
    process = live.running["sidecar"]
    wait_until(lambda: Row.objects.filter(name="a", state="live").exists(), "the first report")
    os.kill(process.pid, number)
    assert process.wait(SECONDS) == 0
    assert live.board.live_until == 0
    assert Row.objects.get(name="a").state == "stopped", "the last report is missing"
    assert "Traceback" not in told(live)


def test_a_killed_sidecars_board_expires_and_another_can_start(
    live: Replica,
) -> None:
    first = live.board.sidecar_pid
    assert first == live.running["sidecar"].pid
    live.kill("sidecar")
    wait_until(lambda: not live.board.live(), "the board expires", BOUND_SECONDS + 1)
    live.start("sidecar")
    live.wait_live()
    assert live.board.sidecar_pid == live.running["sidecar"].pid != first


def test_a_second_sidecar_on_the_same_board_is_refused(live: Replica) -> None:
    first = live.running["sidecar"].pid
    refused = run(live)
    assert refused.returncode == 1
    assert f"another listen_file_changes serves the board {live.board.path}" in refused.stderr
    assert f"(process {first})" in refused.stderr
    assert "REALM_BOARD of its own" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert live.board.live(), "the first sidecar goes on"
    assert live.board.sidecar_pid == first


def test_check_prints_the_state_as_json_and_sets_the_exit_status(replica: Replica) -> None:
    before = run(replica, "--check")
    assert before.returncode == 1
    assert (json.loads(before.stdout)["live"], json.loads(before.stdout)["state"]) == (False, None)
    assert "Traceback" not in before.stderr

    replica.start("sidecar")
    replica.wait_live()
    wait_until(lambda: Row.objects.filter(name="a").exists(), "the first report")
    during = run(replica, "--check")
    assert during.returncode == 0, during.stderr
    state = json.loads(during.stdout)
    assert state["replica"] == "a"
    assert (state["live"], state["state"]) == (True, "live")
    # The sidecar is suspended, so its last report is out of date and its board isn't live.
    replica.kill("sidecar", signal.SIGSTOP)
    replica.wait_not_live()
    assert Row.objects.get(name="a").state == "live"
    stopped = json.loads(run(replica, "--check").stdout)
    assert (stopped["live"], stopped["state"]) == (False, "not live")
    replica.kill("sidecar", signal.SIGCONT)
    replica.wait_live()
    assert 0 < state["vouches_for_seconds"] <= BOUND_SECONDS
    assert state["sidecar_pid"] == replica.running["sidecar"].pid
    assert state["missed"] == 0

    replica.running["sidecar"].terminate()
    replica.running["sidecar"].wait(SECONDS)
    after = run(replica, "--check")
    assert after.returncode == 1
    assert json.loads(after.stdout)["vouches_for_seconds"] == 0


def test_a_database_that_stays_away_ends_the_sidecar_with_a_message(
    replica: Replica,
) -> None:
    [closed] = free_ports(1)
    ended = run(
        replica,
        "--give-up-after",
        "1",
        DATABASE_URL=f"postgresql://nobody@127.0.0.1:{closed}/nothing",
    )
    assert ended.returncode == 1
    assert re.search(r"CommandError: no database for \d+ s, the last error was: ", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert not replica.board.live()


def test_an_unusable_board_ends_the_sidecar_with_a_message(
    replica: Replica, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ended = run(replica, REALM_BOARD=str(tmp_path / "file" / "board"))
    assert ended.returncode == 1
    assert f"CommandError: the board {tmp_path}/file/board can't be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_sidecar_sums_the_figures_of_web_workers_even_killed_ones(
    live: Replica,
) -> None:
    live.start("web")
    live.wait_web()

    def figures() -> dict[str, Any]:
        return dict(Row.objects.get(name="a").figures)

    wait_until(lambda: figures().get("web_workers") == 2, "two web workers run", SECONDS)
    live.each_worker("http://localhost:4201/nowhere/")
    wait_until(lambda: figures()["requests"] >= 2, "requests are counted", SECONDS)
    before = figures()["requests"]
    killed = next(iter(folder_of(live.board.path).glob("*.json"))).name.partition("-")[0]
    os.kill(int(killed), signal.SIGKILL)
    # The web service starts a new web worker, which writes a third file of figures. The file of the
    # killed web worker stays.
    wait_until(
        lambda: len(list(folder_of(live.board.path).glob("*.json"))) == 3, "a third file", SECONDS
    )
    wait_until(lambda: figures()["web_workers"] == 2, "two web workers run again", SECONDS)
    assert figures()["requests"] >= before
    assert figures()["build"] in figures()["web_builds"]

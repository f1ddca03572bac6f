"""Tests that no stale content is served after the wall clock is set or the machine has slept."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from notifications.board import Board, now_ns
from notifications.emit import local_board
from notifications.listener import SECOND
from notifications.models import Replica as Row
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from settings.environment import BASE_DIR
from tests.support.clients.counting import count, shown, wait_for_hits
from tests.support.cluster import Replica, wait_until
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import connect
from tests.support.listening.sidecar import listening
from tests.support.servers.namespaces import in_a_namespace
from tests.support.web import Web

URL = "http://localhost:4201/ada/site/count.ts"

processes = pytest.mark.cluster
database = pytest.mark.django_db(transaction=True)

AWAKE = "import sys; from notifications.board import *; print(Board(Path(sys.argv[1])).live())"


@pytest.mark.parametrize(
    ("option", "live"), [("--boottime", "False"), ("--monotonic", "True")], ids=str
)
def test_a_board_is_not_live_after_the_machine_has_slept(
    tmp_path: Path, option: str, live: str
) -> None:
    """The board uses CLOCK_BOOTTIME, which continues during sleep. The option `--boottime` of
    unshare(1) sets this clock a minute ahead, as if the machine had slept for a minute. The option
    `--monotonic` sets CLOCK_MONOTONIC ahead, which the board doesn't use."""
    path = tmp_path / "board"
    Board(path).go_live(now_ns() + 30 * SECOND)
    told = in_a_namespace(str(path), kind=f"--time {option} 60 --fork", code=AWAKE)
    assert told.strip() == live


@processes
@database
def test_a_replica_that_slept_beyond_the_bound_serves_no_stale_byte(
    replica: Replica, source: Realm
) -> None:
    """Requests that were waiting when the machine woke get no stale byte either."""
    replica.start("web")
    replica.start("sidecar")
    replica.wait_web()
    replica.wait_live()
    wait_for_hits(replica, 1)
    parents = [psutil.Process(process.pid) for process in replica.running.values()]
    everything = [each for p in parents for each in (p, *p.children(recursive=True))]
    for each in everything:
        each.suspend()
    try:
        count(source, 2)
        board = replica.board
        wait_until(lambda: not board.live(), "the board is no longer live")
        waiting = [in_thread(replica.get, URL) for _ in range(8)]
    finally:
        # The web service resumes before the sidecar, so it must notice the sleep by itself.
        for each in everything:
            each.resume()
    assert {shown(answer.result(PATIENCE)) for answer in waiting} == {2}
    replica.wait_live()
    wait_for_hits(replica, 2)


@pytest.mark.parametrize("hours", [-30, 30])
@pytest.mark.usefixtures("hurry")
def test_a_step_of_the_wall_clock_neither_stales_nor_bypasses_caches(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    step = timedelta(hours=hours)
    now, seconds, nanoseconds = timezone.now, time.time, time.time_ns
    count(source, 1)
    with listening(local_board(), connect) as listener:
        assert shown(web.get(URL)) == 1
        assert web.get(URL).cache == "hit"
        monkeypatch.setattr(timezone, "now", lambda: now() + step)
        monkeypatch.setattr(time, "time", lambda: seconds() + step.total_seconds())
        monkeypatch.setattr(
            time, "time_ns", lambda: nanoseconds() + int(step.total_seconds()) * SECOND
        )
        assert web.get(URL).cache == "hit"
        _count_elsewhere(source, 2)
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert shown(web.get(URL)) == 2
        assert web.get(URL).cache == "hit"
        address = f"http://127.0.0.1:{web.port}"
        Reporter(listener, address, committed_generations).report()
        assert Row.live_addresses() == [address]


def _count_elsewhere(source: Realm, number: int) -> None:
    """Writes the number as `count` does, but in another process. The other process has the right
    clock. It also has another board, so the write moves no slot of this process's board."""
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(number), str(source.pk)],
        cwd=BASE_DIR,
        env={**os.environ, "REALM_TEST_NAME": connection.settings_dict["NAME"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


ELSEWHERE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = os.environ["REALM_TEST_NAME"]
django.setup()
from realms.models import Realm
from tests.support import make
text = b"export const n = %d;" % int(sys.argv[1])
make.write(Realm.objects.get(pk=sys.argv[2]), count__ts=text)
"""


def test_modules_that_decide_freshness_never_use_the_wall_clock() -> None:
    """The listed modules use only the clock of `now_ns`. Nobody can set this clock, and it
    continues while the machine sleeps."""
    for name in (
        "notifications/board.py",
        "notifications/stamped_cache.py",
        "notifications/single_flight.py",
        "notifications/listener.py",
        "realms/front.py",
        "realms/serving/answers.py",
    ):
        text = (BASE_DIR / name).read_text()
        for wall in ("time.time", "datetime.now", "timezone.now", "time.monotonic"):
            assert wall not in text, f"{name} uses {wall}"

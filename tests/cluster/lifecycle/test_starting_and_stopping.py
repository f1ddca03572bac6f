"""Tests that the web service and the sidecar can start, stop and be replaced in any order.

Also tests that a second sidecar does no harm, and that the database row of a replica that has been
silent for a day is removed. A sidecar is the process of a replica that receives notifications of
changes, and keeps the replica's board live. While the board isn't live, the web service bypasses
its caches.
"""

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from notifications.board import Board, Slots, now_ns
from notifications.channels import REALM_FILE_CHANGES
from notifications.listener import Listener
from notifications.models import Replica as Row
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from tests.support.clients.counting import Reader, count, end, shown, wait_for_hits
from tests.support.cluster import Replica, wait_until
from tests.support.gates import PATIENCE
from tests.support.listening.hearing import connect, notify
from tests.support.listening.sidecar import listening
from tests.support.servers.proxy import proxy

URL = "http://localhost:4201/ada/site/count.ts"

processes = pytest.mark.cluster
database = pytest.mark.django_db(transaction=True)


@processes
@database
def test_the_sidecar_may_start_before_the_web_service(replica: Replica, source: Realm) -> None:
    replica.start("sidecar")
    replica.wait_live()
    count(source, 2)
    replica.start("web")
    replica.wait_web()
    wait_for_hits(replica, 2)


@processes
@database
def test_the_web_service_may_start_first_and_the_sidecar_be_replaced(
    replica: Replica, source: Realm
) -> None:
    """Without a sidecar the web service bypasses its caches. Its answers are slower, but no older
    than the staleness bound (2 s) allows."""
    replica.start("web")
    replica.wait_web()
    for number in (2, 3):
        count(source, number)
        answers = replica.each_worker(URL).values()
        assert {(shown(answer), answer.cache) for answer in answers} == {(number, "miss")}
    replica.start("sidecar")
    replica.wait_live()
    wait_for_hits(replica, 3)

    with Reader(replica).at_work() as reader:
        for number in range(4, 8):
            if number == 5:
                end(replica, "sidecar")
                assert not replica.board.live()
            count(source, number)
            reader.wrote(number)
            if number == 6:
                replica.start("sidecar")
                replica.wait_live()
            wait_until(lambda n=number: shown(replica.get(URL)) == n, "the new bytes", 2)  # type: ignore[misc]
    wait_for_hits(replica, 7)


@pytest.mark.usefixtures("django_db_setup", "hurry")
def test_two_sidecars_on_one_board_are_harmless(tmp_path: Path) -> None:
    """A second sidecar of a replica normally refuses to start (`test_listen_command.py`), but it
    starts if the sidecars' lock file was deleted.

    A sidecar keeps the board live only while its pings return. A ping is a notification that a
    sidecar sends to itself. So a deaf sidecar, which receives nothing, can't keep the board live.
    If a sidecar receives a notification late, it only makes cached entries stale once more.
    """
    slots = Slots([f"path|{URL}"])
    change = REALM_FILE_CHANGES, "http://localhost:4201/ada/site/:count.ts"
    with proxy() as network:
        deafened, other = Board(tmp_path / "board"), Board(tmp_path / "board")
        with listening(deafened, network.connect) as deaf, listening(other, connect) as hearing:
            network.stall()
            stalled = now_ns()
            stamp = other.stamp(slots)
            notify(*change)
            assert hearing.wait_for_watermark(now_ns(), PATIENCE)
            assert not other.unchanged(slots, stamp)
            assert other.live()
            assert deaf.watermark < stalled
            stamp = other.stamp(slots)
            network.flow()
            wait_until(lambda: deaf.watermark > stalled, "the deaf sidecar hears", PATIENCE)
            assert not other.unchanged(slots, stamp)
            assert other.live()


@database
def test_a_replica_that_has_been_silent_for_a_day_is_forgotten(tmp_path: Path) -> None:
    now = timezone.now()
    for name, hours in (("gone", 25), ("away", 23)):
        Row.objects.create(
            name=name,
            address="http://127.0.0.1:1",
            state="live",
            sidecar_pid=1,
            reported_at=now - timedelta(hours=hours),
        )
    listener = Listener("a", Board(tmp_path / "board"), connect, 1.0)
    listener.stop()
    listener.run()
    Reporter(listener, "http://127.0.0.1:2", committed_generations).report()
    assert set(Row.objects.values_list("name", flat=True)) == {"a", "away"}

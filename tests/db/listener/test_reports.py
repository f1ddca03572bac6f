"""Tests that a replica reports the generations that it has provably applied, and detects changes
without a notification.

A ping, which the listener sends to itself as a notification, is the proof. When a ping returns, the
listener has received all notifications of changes that were committed before the ping was sent.
"""

import socket
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from django.db import Error as DatabaseError
from django.utils import timezone

from notifications import listener as listener_module
from notifications import reporter as reporter_module
from notifications.board import Board, Slots, now_ns
from notifications.listener import SECOND, Listener, State
from notifications.models import Replica, ReplicaGeneration
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from tests.support import make
from tests.support.cluster import free_ports, wait_until
from tests.support.gates import PATIENCE, Gate
from tests.support.listening.hearing import connect
from tests.support.listening.overheard import Lines, terminate, wait_applied, wait_live
from tests.support.web import Web

# This fixture creates the test database, but doesn't empty it. Each test also uses the fixture
# `source`, which empties the database after the test.
pytestmark = pytest.mark.usefixtures("django_db_setup")


@pytest.fixture
def reporter(live: Listener, source: Realm) -> Reporter:
    """Returns a reporter that isn't started, so that each test makes the reports one by one."""
    return Reporter(live, "http://127.0.0.1:1", committed_generations)


def test_a_report_has_the_generations_that_were_provably_applied(
    live: Listener, reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    replica = Replica.objects.get(name="a")
    assert replica.state == State.LIVE
    assert replica.watermark_at is not None
    applied = dict(replica.generations.values_list("realm_url", "generation"))
    assert applied == committed_generations()
    generation = make.write(source, new__ts=b"export {};")

    def told() -> bool:
        # The listener may not have received the write's notification when the first report is made.
        reporter.report()
        return bool(replica.generations.get(realm_url=source.url).generation == generation)

    wait_until(told, "the new generation in the report", PATIENCE)


def test_a_report_has_the_lag_of_pings_and_the_figures(live: Listener, source: Realm) -> None:
    wait_until(lambda: live.lags, "a ping", PATIENCE)
    reporter = Reporter(live, "http://127.0.0.1:1", committed_generations, lambda: {"hits": 3})
    live.lags.clear()
    live.lags.extend(range(SECOND, 101 * SECOND, SECOND))
    reporter.report()
    figures = Replica.objects.get(name="a").figures
    assert figures["hits"] == 3
    assert figures["host"] == socket.gethostname()
    assert 40 <= figures["lag_p50_seconds"] <= 60
    assert 95 <= figures["lag_p99_seconds"] <= 100
    assert (live.lags.maxlen or 0) * listener_module.PING_SECONDS == 60


def test_a_report_is_written_even_if_the_figures_raise_an_error(
    live: Listener, source: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> Mapping[str, Any]:
        raise ZeroDivisionError

    reporter = Reporter(live, "http://127.0.0.1:1", committed_generations, failing)
    reporter.report()
    first = Replica.objects.get(name="a")
    reporter.report()
    assert Replica.objects.get(name="a").reported_at > first.reported_at
    assert first.figures["host"] == socket.gethostname()
    assert caplog.text.count("omits the figures") == 1


def test_a_row_of_the_previous_release_has_empty_figures(source: Realm) -> None:
    """The previous release doesn't set the column `figures`, so the row gets the column's
    default."""
    with connect() as hand:
        hand.execute(
            "INSERT INTO notifications_replica (name, address, state, sidecar_pid, reported_at,"
            " notifications, malformed, reconnects, missed)"
            " VALUES ('old', '', 'live', 1, now(), 0, 0, 0, 0)"
        )
    assert Replica.objects.get(name="old").figures == {}


def test_a_deleted_realm_disappears_from_the_report(reporter: Reporter, source: Realm) -> None:
    reporter.report()
    source.delete()
    replica = Replica.objects.get(name="a")

    def gone() -> bool:
        # The listener may not have received the deletion's notification when the first report is
        # made.
        reporter.report()
        return not replica.generations.filter(realm_url=source.url).exists()

    wait_until(gone, "the realm gone from the report", 10)


def test_nothing_is_reported_as_applied_without_proof(
    lines: Lines, reporter: Reporter, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter.report()
    monkeypatch.setattr(reporter_module, "WATERMARK_SECONDS", 0.2)
    lines.muted = True
    before = source.generation
    make.write(source, new__ts=b"export {};")
    reporter.report()
    replica = Replica.objects.get(name="a")
    assert replica.generations.get(realm_url=source.url).generation == before


def test_a_ping_sent_before_the_generations_were_read_proves_nothing(
    live: Listener, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a change commits after a ping was sent and before the generations are read, the change is
    in the read. But the ping can return before the change's notification arrives. So the reporter
    must wait for a ping that was sent after the read."""
    read_at: list[int] = []
    waited_for: list[int] = []

    def committed(urls: Collection[str] | None) -> Mapping[str, int]:
        read = committed_generations(urls)
        read_at.append(now_ns())
        return read

    def wait(moment: int, timeout: float) -> bool:
        waited_for.append(moment)
        return Listener.wait_for_watermark(live, moment, timeout)

    monkeypatch.setattr(live, "wait_for_watermark", wait)
    Reporter(live, "http://127.0.0.1:1", committed).report()
    assert waited_for[0] >= read_at[0]


def test_announced_changes_are_not_counted_as_missed(
    live: Listener, reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    for number in range(3):
        make.write(source, new__ts=b"export const n = %d;" % number)
        reporter.report()
    assert live.counts.missed == 0
    assert Replica.objects.get(name="a").missed == 0


def test_an_unannounced_change_counts_as_missed_and_moves_its_realm(
    live: Listener,
    reporter: Reporter,
    source: Realm,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporter_module, "WHOLE_SECONDS", 0)
    slots = Slots([f"realm|{source.url}"])
    wait_applied(board)
    reporter.report()
    stamp = board.stamp(slots)
    with connect() as hand:
        hand.execute(
            "UPDATE realms_realm SET generation = generation + 1 WHERE id = %s", [source.pk]
        )
    assert board.unchanged(slots, stamp)
    reporter.report()
    assert live.counts.missed == 1
    assert not board.unchanged(slots, stamp)
    reporter.report()
    assert live.counts.missed == 1, "the missed change is counted twice"
    assert Replica.objects.get(name="a").missed == 1


def test_changes_during_a_reconnect_are_not_counted_as_missed(
    live: Listener, lines: Lines, reporter: Reporter, source: Realm
) -> None:
    """These changes do no harm, because the listener makes all cached values stale when it connects
    again."""
    reporter.report()
    lines.gate = Gate()
    terminate(lines.opened[0])
    lines.gate.wait_for_arrival()
    make.write(source, new__ts=b"export {};")
    lines.gate.open()
    wait_live(live)
    reporter.report()
    assert live.counts.missed == 0


def test_a_report_reads_only_realms_that_the_listener_heard_of(
    live: Listener, owner: Any, source: Realm
) -> None:
    make.source("http://localhost:4201/ada/other/", owner, {})
    read: list[set[str] | None] = []

    def committed(urls: Collection[str] | None) -> Mapping[str, int]:
        read.append(None if urls is None else set(urls))
        return committed_generations(urls)

    reporter = Reporter(live, "http://127.0.0.1:1", committed)
    reporter.report()
    live.heard.clear()
    reporter.report()
    make.write(source, new__ts=b"export {};")
    wait_until(lambda: source.url in live.heard, "heard of the write", PATIENCE)
    reporter.report()
    assert read == [None, set(), {source.url}]
    applied = dict(ReplicaGeneration.objects.values_list("realm_url", "generation"))
    assert applied == committed_generations()


def test_a_report_is_complete_after_a_peer_has_removed_its_row(
    reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    Replica.objects.all().delete()
    reporter.report()
    applied = dict(ReplicaGeneration.objects.values_list("realm_url", "generation"))
    assert applied == committed_generations()


def test_a_report_that_fails_loses_no_change(
    live: Listener, reporter: Reporter, owner: Any, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make.source("http://localhost:4201/ada/other/", owner, {})
    reporter.report()
    replica = Replica.objects.get(name="a")

    def failing(*_: object) -> None:
        raise DatabaseError("the connection is lost")

    live.wait_for_watermark(now_ns(), PATIENCE)
    live.heard.clear()
    make.write(source, new__ts=b"export {};")
    other.delete()
    wait_until(lambda: {source.url, other.url} <= live.heard.keys(), "heard of both", PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "_write_generations", failing)
        reporter.report()
    reporter.report()
    applied = dict(replica.generations.values_list("realm_url", "generation"))
    assert applied == committed_generations()


def test_the_first_report_removes_rows_that_an_earlier_sidecar_left(
    reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    replica = Replica.objects.get(name="a")
    gone = "http://localhost:4201/ada/gone/"
    replica.generations.create(realm_url=gone, generation=3, applied_at=timezone.now())
    Reporter(reporter._listener, "http://127.0.0.1:1", committed_generations).report()
    applied = dict(replica.generations.values_list("realm_url", "generation"))
    assert applied == committed_generations()


def test_a_replica_whose_web_service_is_gone_is_not_live(
    web: Web, live: Listener, source: Realm
) -> None:
    address = f"http://127.0.0.1:{web.port}"
    Reporter(live, address, committed_generations).report()
    assert Replica.live_addresses() == [address]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone = f"http://127.0.0.1:{free_ports(1)[0]}"
        for where in (gone, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            Reporter(live, where, committed_generations).report()
            assert Replica.live_addresses() == []
            assert Replica.objects.get().fresh

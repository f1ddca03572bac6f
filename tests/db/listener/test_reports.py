"""A replica reports what it has provably applied, and notices changes that were never announced."""

import socket
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from notifications import listener as listener_module
from notifications import reporter as reporter_module
from notifications.board import Board, Slots
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

# The database is there for all; only what writes rows (through `source`) has it emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")


@pytest.fixture
def reporter(live: Listener, source: Realm) -> Reporter:
    """Not started: a test asks for its reports one by one."""
    return Reporter(live, "http://127.0.0.1:1", committed_generations)


def test_a_report_says_what_has_provably_been_applied(
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
        # The first report may be made before the listener has heard of it.
        reporter.report()
        return bool(replica.generations.get(realm_url=source.url).generation == generation)

    wait_until(told, "the new generation in the report", PATIENCE)


def test_a_report_tells_the_lag_of_pings_and_the_figures(live: Listener, source: Realm) -> None:
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


def test_figures_that_fail_do_not_keep_a_report_from_being_written(
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
    assert caplog.text.count("goes without the figures") == 1


def test_a_row_of_the_previous_release_has_no_figures(source: Realm) -> None:
    """It doesn't name the column, so the database fills it."""
    with connect() as hand:
        hand.execute(
            "INSERT INTO notifications_replica (name, address, state, sidecar_pid, reported_at,"
            " notifications, malformed, reconnects, missed)"
            " VALUES ('old', '', 'live', 1, now(), 0, 0, 0, 0)"
        )
    assert Replica.objects.get(name="old").figures == {}


def test_a_realm_that_is_gone_is_gone_from_the_report(reporter: Reporter, source: Realm) -> None:
    reporter.report()
    source.delete()
    replica = Replica.objects.get(name="a")

    def gone() -> bool:
        # The first report may be made before the listener has heard of it.
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


def test_changes_that_were_announced_are_not_taken_for_missed(
    live: Listener, reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    for number in range(3):
        make.write(source, new__ts=b"export const n = %d;" % number)
        reporter.report()
    assert live.counts.missed == 0
    assert Replica.objects.get(name="a").missed == 0


def test_an_unannounced_generation_is_counted_and_its_realm_is_dropped(
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
    assert live.counts.missed == 1, "it is missed once"
    assert Replica.objects.get(name="a").missed == 1


def test_what_changed_while_it_was_not_listening_is_not_taken_for_missed(
    live: Listener, lines: Lines, reporter: Reporter, source: Realm
) -> None:
    """The new epoch has dropped it already."""
    reporter.report()
    lines.gate = Gate()
    terminate(lines.opened[0])
    lines.gate.wait_for_arrival()
    make.write(source, new__ts=b"export {};")
    lines.gate.open()
    wait_live(live)
    reporter.report()
    assert live.counts.missed == 0


def test_a_report_reads_only_the_realms_that_were_heard_of(
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
    wait_until(lambda: source.url in live.heard, "heard of", PATIENCE)
    reporter.report()
    assert read == [None, set(), {source.url}]
    applied = dict(ReplicaGeneration.objects.values_list("realm_url", "generation"))
    assert applied == committed_generations()


def test_a_report_is_whole_again_after_a_peer_has_removed_its_row(
    reporter: Reporter, source: Realm
) -> None:
    reporter.report()
    Replica.objects.all().delete()
    reporter.report()
    applied = dict(ReplicaGeneration.objects.values_list("realm_url", "generation"))
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

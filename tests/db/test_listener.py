"""The listener on a real connection: what moves the board, what makes it live, what it survives."""

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as django_connection

from notifications import listener as listener_module
from notifications import reporter as reporter_module
from notifications.board import Board, Slots, now_ns
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    INVALIDATION_CHANNELS,
    MODULE_CACHE_INVALIDATED,
    REALM_FILE_CHANGES,
    REALM_HEARTBEAT,
    REALM_INDEX_SWAPPED,
    REALM_REGISTRY,
    Heartbeat,
    heartbeat,
)
from notifications.listener import SECOND, Listener, ListenerGaveUp, State
from notifications.models import Replica, ReplicaGeneration
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from tests.support import make
from tests.support.cluster import free_ports, wait_until
from tests.support.gates import PATIENCE, Gate, in_thread
from tests.support.hearing import connect, notify
from tests.support.proxy import proxy
from tests.support.web import Web

# The database is there for all; only what writes rows (through `source`) has it emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")

REALM = "http://localhost:4201/ada/site/"
BOUND_SECONDS = 1.0
#: Something that every test can send to know that what was sent before has been applied.
MARK = "http://localhost:4201/mark/"
MARK_SLOTS = Slots([f"index|{MARK}"])


class Line(psycopg.Connection[tuple[object, ...]]):
    """A listener's connection, overheard by the test."""

    lines: "Lines"

    def execute(self, query: Any, params: Any = None, **more: Any) -> Any:
        text = query if isinstance(query, str) else query.as_string(self)
        ping = "pg_notify" in text
        self.lines.log.append("ping" if ping else text)
        if ping and self.lines.muted:
            return self.cursor()
        if ping:
            self.lines.before_ping()
        return super().execute(query, params, **more)


class Lines:
    """Opens a listener's connections: a test can hold them back, overhear and mute them."""

    def __init__(self, open_line: "Callable[[], dict[str, Any]] | None" = None) -> None:
        self._parameters = open_line or _straight
        self.opened: list[Line] = []
        self.log: list[str] = []
        self.gate: Gate | None = None
        #: While it is true, pings get lost on their way.
        self.muted = False
        self.before_ping: Callable[[], None] = lambda: None

    def __call__(self) -> Line:
        if self.gate is not None:
            self.gate.hold()
        line = Line.connect(**self._parameters(), autocommit=True)
        line.lines = self
        self.opened.append(line)
        return line


def _straight() -> dict[str, Any]:
    own = django_connection.get_connection_params()
    return {k: own[k] for k in ("dbname", "user", "password", "host", "port") if k in own}


class WatchedBoard(Board):
    """Writes down what is done to it, in a log that it shares with the lines."""

    log: list[str]

    def bump(self, keys: Any) -> None:
        named = list(keys)
        self.log += [f"bump {key}" for key in named]
        super().bump(named)

    def bump_epoch(self) -> None:
        self.log.append("new epoch")
        super().bump_epoch()

    def go_live(self, until: int) -> None:
        self.log.append("live" if until else "not live")
        super().go_live(until)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as many pings as in life."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def board(tmp_path: Path, lines: Lines) -> WatchedBoard:
    board = WatchedBoard(tmp_path / "board")
    board.log = lines.log
    return board


@pytest.fixture
def listener(board: WatchedBoard, lines: Lines) -> Listener:
    return Listener("a", board, lines, BOUND_SECONDS)


@contextmanager
def running(listener: Listener) -> "Iterator[Future[None]]":
    """The listener at work in a thread; afterwards it has ended as it should."""
    ending = in_thread(listener.run)
    try:
        yield ending
    finally:
        listener.stop()
        ending.result(PATIENCE)


@pytest.fixture
def live(listener: Listener) -> Iterator[Listener]:
    with running(listener):
        wait_live(listener)
        yield listener


def wait_live(listener: Listener) -> None:
    """Waits until the listener vouches for its board, by a ping sent from now on."""
    assert listener.wait_for_watermark(now_ns(), PATIENCE), "never live"
    assert listener.board.live()


def wait_applied(board: Board) -> None:
    """Waits until everything that was sent before has moved the board."""
    stamp = board.stamp(MARK_SLOTS)
    notify(REALM_INDEX_SWAPPED, MARK)
    wait_until(lambda: not board.unchanged(MARK_SLOTS, stamp), "the mark applied", PATIENCE)


def terminate(line: Line) -> None:
    """Ends a connection as an administrator does."""
    with connect() as hand:
        hand.execute("SELECT pg_terminate_backend(%s)", [line.info.backend_pid])


# --- Going live --------------------------------------------------------------------------------


def test_it_listens_then_begins_an_epoch_then_goes_live_with_its_ping(
    live: Listener, lines: Lines
) -> None:
    listens = [f'LISTEN "{channel}"' for channel in (*INVALIDATION_CHANNELS, REALM_HEARTBEAT)]
    assert lines.log[: len(listens) + 2] == [*listens, "new epoch", "ping"]
    assert "live" in lines.log
    assert live.state is State.LIVE


def test_it_is_not_live_while_it_connects_nor_while_no_ping_comes_back(
    listener: Listener, lines: Lines, board: Board
) -> None:
    lines.gate, lines.muted = Gate(), True
    with running(listener):
        lines.gate.wait_for_arrival()
        assert listener.state is State.CONNECTING
        assert not board.live()
        lines.gate.open()
        wait_until(lambda: listener.state is State.LISTENING, "listening", PATIENCE)
        wait_applied(board)
        assert not board.live(), "it hears, but nothing proves that it hears in time"
        lines.muted = False
        wait_live(listener)


def test_what_was_stamped_before_it_listened_is_stale(listener: Listener, board: Board) -> None:
    """Whatever was cached before LISTEN could have missed its invalidation."""
    slots = Slots(["a"])
    stamp = board.stamp(slots)
    with running(listener):
        wait_live(listener)
        assert not board.unchanged(slots, stamp)


def test_the_board_is_live_for_one_bound_after_a_ping_was_sent(
    live: Listener, board: Board
) -> None:
    for _ in range(3):
        wait_live(live)
        assert board.live_until <= now_ns() + BOUND_SECONDS * SECOND
        assert live.watermark <= now_ns()


# --- Being told --------------------------------------------------------------------------------

_MOVED = [
    (REALM_FILE_CHANGES, f"{REALM}:a.ts", f"path|{REALM}a.ts"),
    (REALM_FILE_CHANGES, f"{REALM}:*", f"realm|{REALM}"),
    (REALM_FILE_CHANGES, "http://nobody.example/:*", "realm|http://nobody.example/"),
    (REALM_REGISTRY, f"upsert:{REALM}", f"realm|{REALM}"),
    (REALM_REGISTRY, f"delete:{REALM}", "registry"),
    (REALM_INDEX_SWAPPED, REALM, f"index|{REALM}"),
    (DEFINITION_CACHE_INVALIDATED, '{"k":"global"}', "definitions|global|"),
    (DEFINITION_CACHE_INVALIDATED, f'{{"k":"realm","r":"{REALM}"}}', f"definitions|realm|{REALM}"),
    (MODULE_CACHE_INVALIDATED, f'{{"k":"module","r":"{REALM}","m":["{REALM}a.ts"]}}',
     f"definitions|module|{REALM}a.ts"),
]  # fmt: skip


@pytest.mark.parametrize(("channel", "payload", "key"), _MOVED)
def test_a_manual_notification_moves_its_own_keys_only(
    live: Listener, board: WatchedBoard, channel: str, payload: str, key: str
) -> None:
    """Also for a realm that this replica has never served, and on the channel of older fleets."""
    slots, other = Slots([key]), Slots([f"path|{REALM}b.ts", "realm|http://localhost:4201/b/"])
    stamp, others = board.stamp(slots), board.stamp(other)
    notify(channel, payload)
    wait_until(lambda: not board.unchanged(slots, stamp), f"{key} moved", PATIENCE)
    wait_applied(board)
    assert board.unchanged(other, others)
    expected = {"registry", f"realm|{REALM}"} if channel == REALM_REGISTRY else {key}
    assert _bumped(board) == expected
    assert live.counts.notifications == 2, "this one and the mark"


def test_a_thousand_notifications_of_one_transaction_all_arrive(
    live: Listener, board: WatchedBoard
) -> None:
    with connect() as hand:
        hand.execute(
            "SELECT pg_notify('realm_file_changes', %s || n) FROM generate_series(1, 1000) n",
            [f"{REALM}:"],
        )
    # Among so many keys one may share the mark's slot: the count, and not the mark, tells the end.
    wait_until(lambda: live.counts.notifications == 1000, "all of them counted", PATIENCE)
    wait_applied(board)
    assert _bumped(board) == {f"path|{REALM}{n}" for n in range(1, 1001)}


def test_malformed_payloads_are_counted_and_change_nothing(
    live: Listener, board: WatchedBoard
) -> None:
    """No key is looked up for them, and the connection stays."""
    malformed = [
        (REALM_FILE_CHANGES, ""),
        (REALM_FILE_CHANGES, "no realm"),
        (REALM_FILE_CHANGES, f"{REALM}:"),
        (REALM_REGISTRY, "explode:everything"),
        (REALM_INDEX_SWAPPED, ""),
        (DEFINITION_CACHE_INVALIDATED, "{"),
        (DEFINITION_CACHE_INVALIDATED, "[" * 7_900),
        (MODULE_CACHE_INVALIDATED, '{"k":"module","r":"","m":[]}'),
        (REALM_HEARTBEAT, "hardly a heartbeat"),
    ]
    for channel, payload in malformed:
        notify(channel, payload)
    wait_applied(board)
    assert live.counts.malformed == len(malformed) - 1, "nobody counts heartbeats"
    assert _bumped(board) == set()
    wait_live(live)
    assert live.counts.reconnects == 0


def test_half_a_character_in_a_payload_does_not_end_it(live: Listener, board: Board) -> None:
    notify(DEFINITION_CACHE_INVALIDATED, '{"k":"realm","r":"\\ud800"}')
    wait_applied(board)
    wait_live(live)


def test_notifications_during_a_ping_are_applied_before_it_counts(
    live: Listener, lines: Lines, board: WatchedBoard
) -> None:
    """It comes in with the answer to the ping's own statement."""

    def interpose() -> None:
        lines.before_ping = lambda: None
        notify(REALM_FILE_CHANGES, f"{REALM}:meanwhile.ts")
        board.log.append("sent")

    slots = Slots([f"path|{REALM}meanwhile.ts"])
    stamp = board.stamp(slots)
    lines.before_ping = interpose
    wait_until(lambda: not board.unchanged(slots, stamp), "the path moved", PATIENCE)
    wait_live(live)
    after = board.log[board.log.index("sent") + 1 :]
    assert after[:2] == [f"bump path|{REALM}meanwhile.ts", "live"]


def test_at_the_watermark_everything_committed_before_is_on_the_board(
    live: Listener, board: Board
) -> None:
    slots = Slots([f"path|{REALM}a.ts"])
    for _ in range(20):
        stamp = board.stamp(slots)
        notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
        assert live.wait_for_watermark(now_ns(), PATIENCE)
        assert not board.unchanged(slots, stamp)


def test_a_slow_ping_proves_only_what_was_committed_before_it_was_sent(
    live: Listener, lines: Lines, board: Board
) -> None:
    slow, following = Gate(), Gate()
    gates = iter([slow, following])

    def held() -> None:
        gate = next(gates, None)
        if gate is not None:
            gate.hold()

    lines.before_ping = held
    slow.wait_for_arrival()
    on_its_way = now_ns()
    slow.open()
    following.wait_for_arrival()
    assert live.watermark < on_its_way
    assert board.live_until < on_its_way + BOUND_SECONDS * SECOND
    following.open()
    wait_live(live)


def test_a_watermark_that_does_not_come_is_waited_for_in_vain(live: Listener, lines: Lines) -> None:
    lines.muted = True
    assert not live.wait_for_watermark(now_ns() + 60 * SECOND, 0)


def test_it_remembers_which_realms_it_heard_of_and_when(live: Listener, board: Board) -> None:
    before = now_ns()
    notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
    notify(REALM_REGISTRY, "upsert:http://localhost:4201/b/")
    wait_applied(board)
    assert set(live.heard) == {REALM, "http://localhost:4201/b/"}
    assert all(before < moment < now_ns() for moment in live.heard.values())


# --- Losing the connection ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminated by an administrator", "cut by the network"])
def test_what_it_missed_while_it_was_away_is_stale_when_it_is_back(
    lines: Lines, board: Board, how: str
) -> None:
    slots = Slots([f"path|{REALM}a.ts"])
    with proxy() as network:
        lines = Lines(lambda: network.parameters)
        listener = Listener("a", board, lines, BOUND_SECONDS)
        with running(listener):
            wait_live(listener)
            lines.gate = Gate()
            if how.startswith("cut"):
                network.cut()
            else:
                terminate(lines.opened[0])
            lines.gate.wait_for_arrival()
            stamp = board.stamp(slots)
            notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
            assert board.unchanged(slots, stamp), "nobody has told this board"
            lines.gate.open()
            wait_live(listener)
            assert not board.unchanged(slots, stamp)
            assert listener.counts.reconnects == 1
            assert len(lines.opened) == 2


def test_away_for_longer_than_the_bound_it_vouches_for_nothing(
    live: Listener, lines: Lines, board: Board
) -> None:
    lines.gate = Gate()
    terminate(lines.opened[0])
    lines.gate.wait_for_arrival()
    gone = now_ns()
    wait_until(lambda: not board.live(), "not live", PATIENCE)
    assert board.live_until <= gone + BOUND_SECONDS * SECOND
    lines.gate.open()
    wait_live(live)


def test_a_stalled_connection_ends_the_watermark_in_time_and_is_cut(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is closed and nothing is refused: only silence tells."""
    monkeypatch.setattr(listener_module, "SILENCE_SECONDS", 1.5)
    slots = Slots([f"path|{REALM}a.ts"])
    with proxy() as network:
        lines = Lines(lambda: network.parameters)
        listener = Listener("a", board, lines, BOUND_SECONDS)
        with running(listener):
            wait_live(listener)
            network.stall()
            stalled = now_ns()
            stamp = board.stamp(slots)
            notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
            wait_until(lambda: not board.live(), "not live", PATIENCE)
            assert board.live_until <= stalled + BOUND_SECONDS * SECOND
            assert listener.counts.reconnects == 0, "the caches didn't wait for the cut"
            wait_until(lambda: listener.counts.reconnects, "the watchdog's cut", PATIENCE)
            assert not board.live()
            network.flow()
            wait_live(listener)
            assert not board.unchanged(slots, stamp)


def test_it_waits_for_a_database_that_comes_back_in_time(board: Board) -> None:
    with proxy() as network:
        lines = Lines(lambda: network.parameters)
        listener = Listener("a", board, lines, BOUND_SECONDS)
        with running(listener):
            wait_live(listener)
            network.down()
            wait_until(lambda: listener.counts.reconnects >= 3, "three tries", PATIENCE)
            wait_until(lambda: not board.live(), "not live", PATIENCE)
            network.up()
            wait_live(listener)


def test_it_gives_up_on_a_database_that_stays_away(board: Board) -> None:
    with proxy() as network:
        lines = Lines(lambda: network.parameters)
        listener = Listener("a", board, lines, BOUND_SECONDS, give_up_seconds=0.5)
        ending = in_thread(listener.run)
        wait_live(listener)
        network.down()
        with pytest.raises(ListenerGaveUp, match=r"no database for .* s, the last error was: "):
            ending.result(PATIENCE)
    assert listener.state is State.STOPPED
    assert board.live_until == 0


# --- Namesakes ---------------------------------------------------------------------------------


def test_the_pings_of_a_namesake_do_not_make_it_live(
    listener: Listener, lines: Lines, board: Board, tmp_path: Path
) -> None:
    """Two replicas that were given one name: what comes back to one says nothing of the other."""
    namesake = Listener("a", Board(tmp_path / "other board"), Lines(), BOUND_SECONDS)
    lines.muted = True
    with running(listener), running(namesake):
        wait_until(lambda: listener.state is State.LISTENING, "listening", PATIENCE)
        wait_live(namesake)
        wait_applied(board)
        assert listener.watermark == 0
        assert not board.live()


def test_a_ping_that_claims_to_come_from_the_future_lengthens_nothing(
    live: Listener, board: Board
) -> None:
    for sequence in range(10):
        forged = heartbeat(Heartbeat("a", sequence, now_ns() + 3600 * SECOND))
        notify(forged.channel, forged.payload)
    wait_applied(board)
    assert board.live_until <= now_ns() + BOUND_SECONDS * SECOND
    assert live.watermark <= now_ns()


# --- Stopping ----------------------------------------------------------------------------------


def test_a_stop_ends_it_soon_and_leaves_the_board_dead(listener: Listener, board: Board) -> None:
    ending = in_thread(listener.run)
    wait_live(listener)
    assert _seconds_to_stop(listener, ending) < 2
    assert board.live_until == 0
    assert listener.state is State.STOPPED


def test_a_stop_ends_it_soon_while_the_database_is_away(board: Board) -> None:
    with proxy() as network:
        network.down()
        listener = Listener("a", board, Lines(lambda: network.parameters), BOUND_SECONDS)
        ending = in_thread(listener.run)
        wait_until(lambda: listener.counts.reconnects >= 2, "two tries", PATIENCE)
        assert _seconds_to_stop(listener, ending) < 3


def test_a_stop_ends_it_soon_while_its_connection_is_stalled(board: Board) -> None:
    with proxy() as network:
        listener = Listener("a", board, Lines(lambda: network.parameters), BOUND_SECONDS)
        ending = in_thread(listener.run)
        wait_live(listener)
        network.stall()
        wait_until(lambda: not board.live(), "not live", PATIENCE)
        assert _seconds_to_stop(listener, ending) < 2


def test_waiters_for_a_watermark_learn_at_once_that_it_will_not_come(
    listener: Listener, lines: Lines
) -> None:
    """The sidecar's last report waits here: it must not hold up the end of the process."""
    with running(listener) as ending:
        wait_live(listener)
        waiting = in_thread(listener.wait_for_watermark, now_ns() + 60 * SECOND, 60)
        listener.stop()
        ending.result(PATIENCE)
        assert waiting.result(PATIENCE) is False


# --- Reporting ---------------------------------------------------------------------------------


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


# --- Pieces ------------------------------------------------------------------------------------


def _bumped(board: WatchedBoard) -> set[str]:
    """The keys that were bumped since the listener went live, but for the mark."""
    keys = {entry.removeprefix("bump ") for entry in board.log if entry.startswith("bump ")}
    return keys - {f"index|{MARK}"}


def _seconds_to_stop(listener: Listener, ending: "Future[None]") -> float:
    began = time.monotonic()
    listener.stop()
    ending.result(PATIENCE)
    return time.monotonic() - began

"""Tests that a listener without a working database connection doesn't keep its board live. A
replica uses its caches only while its board is live."""

import pytest

from notifications import listener as listener_module
from notifications.board import Board, Slots, now_ns
from notifications.channels import REALM_FILE_CHANGES
from notifications.listener import SECOND, Listener, ListenerGaveUp, State
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate, in_thread
from tests.support.listening.hearing import notify
from tests.support.listening.overheard import BOUND_SECONDS, Lines, running, terminate, wait_live
from tests.support.servers.proxy import proxy

# The tests in this file write no rows, so the database needn't be emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")

REALM = "http://localhost:4201/ada/site/"


@pytest.mark.parametrize("how", ["terminated by an administrator", "cut by the network"])
def test_entries_changed_during_a_reconnect_are_stale_afterwards(
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
            assert board.unchanged(slots, stamp), "moved while nobody listened"
            lines.gate.open()
            wait_live(listener)
            assert not board.unchanged(slots, stamp)
            assert listener.counts.reconnects == 1
            assert len(lines.opened) == 2


def test_a_board_is_not_live_if_the_listener_is_away_beyond_the_bound(
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


def test_a_stalled_connection_stops_liveness_within_the_bound_and_is_cut(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stalled connection reports no error. The listener notices the fault only because its
    pings don't return."""
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
            assert listener.counts.reconnects == 0, "cut before the board expired"
            wait_until(lambda: listener.counts.reconnects, "the watchdog's cut", PATIENCE)
            assert not board.live()
            network.flow()
            wait_live(listener)
            assert not board.unchanged(slots, stamp)


def test_a_listener_reconnects_to_a_database_that_comes_back_in_time(board: Board) -> None:
    with proxy() as network:
        lines = Lines(lambda: network.parameters)
        listener = Listener("a", board, lines, BOUND_SECONDS)
        with running(listener):
            wait_live(listener)
            network.down()
            wait_until(lambda: listener.counts.reconnects >= 3, "three tries to connect", PATIENCE)
            wait_until(lambda: not board.live(), "not live", PATIENCE)
            network.up()
            wait_live(listener)


def test_a_listener_gives_up_on_a_database_that_stays_away(board: Board) -> None:
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

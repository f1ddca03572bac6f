"""Tests that a stopped listener ends quickly, even while it waits for the database."""

import time
from concurrent.futures import Future

import pytest

from notifications.board import Board, now_ns
from notifications.listener import SECOND, Listener, State
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.overheard import BOUND_SECONDS, Lines, running, wait_live
from tests.support.servers.proxy import proxy

# The tests in this file write no rows, so the database needn't be emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")


def test_a_stop_ends_the_listener_and_the_boards_liveness(listener: Listener, board: Board) -> None:
    ending = in_thread(listener.run)
    wait_live(listener)
    assert _seconds_to_stop(listener, ending) < 2
    assert board.live_until == 0
    assert listener.state is State.STOPPED


def test_a_stop_ends_the_listener_while_the_database_is_away(board: Board) -> None:
    with proxy() as network:
        network.down()
        listener = Listener("a", board, Lines(lambda: network.parameters), BOUND_SECONDS)
        ending = in_thread(listener.run)
        wait_until(lambda: listener.counts.reconnects >= 2, "two tries to connect", PATIENCE)
        assert _seconds_to_stop(listener, ending) < 3


def test_a_stop_ends_the_listener_while_its_connection_is_stalled(board: Board) -> None:
    with proxy() as network:
        listener = Listener("a", board, Lines(lambda: network.parameters), BOUND_SECONDS)
        ending = in_thread(listener.run)
        wait_live(listener)
        network.stall()
        wait_until(lambda: not board.live(), "not live", PATIENCE)
        assert _seconds_to_stop(listener, ending) < 2


def test_a_stop_ends_every_wait_for_a_watermark(listener: Listener, lines: Lines) -> None:
    """Before its last report, the sidecar waits for a later watermark, which says when the last
    returned ping was sent. This wait must not delay the end of the sidecar's process."""
    with running(listener) as ending:
        wait_live(listener)
        waiting = in_thread(listener.wait_for_watermark, now_ns() + 60 * SECOND, 60)
        listener.stop()
        ending.result(PATIENCE)
        assert waiting.result(PATIENCE) is False


def _seconds_to_stop(listener: Listener, ending: "Future[None]") -> float:
    began = time.monotonic()
    listener.stop()
    ending.result(PATIENCE)
    return time.monotonic() - began

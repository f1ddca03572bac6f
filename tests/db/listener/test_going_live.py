"""Tests that a listener makes its board live when its own ping returns. A ping is a notification
from the listener to itself. Each returned ping keeps the board live until the staleness bound has
passed since the ping was sent. Replicas use their caches only while their board is live."""

from pathlib import Path

import pytest

from notifications.board import Board, Slots, now_ns
from notifications.channels import INVALIDATION_CHANNELS, REALM_HEARTBEAT, Heartbeat, heartbeat
from notifications.listener import SECOND, Listener, State
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate
from tests.support.listening.hearing import notify
from tests.support.listening.overheard import BOUND_SECONDS, Lines, running, wait_applied, wait_live

# The tests in this file write no rows, so the database needn't be emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")


def test_a_listener_listens_then_starts_an_epoch_then_goes_live(
    live: Listener, lines: Lines
) -> None:
    listens = [f'LISTEN "{channel}"' for channel in (*INVALIDATION_CHANNELS, REALM_HEARTBEAT)]
    assert lines.log[: len(listens) + 2] == [*listens, "new epoch", "ping"]
    assert "live" in lines.log
    assert live.state is State.LIVE


def test_a_listener_is_not_live_before_it_connects_and_gets_a_ping_back(
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
        assert not board.live(), "live before a ping has returned"
        lines.muted = False
        wait_live(listener)


def test_a_stamp_from_before_the_listener_listened_is_stale(
    listener: Listener, board: Board
) -> None:
    """If a value was cached before the listener ran LISTEN, the listener may have missed a change
    of this value."""
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


def test_pings_of_another_listener_of_the_same_name_do_not_make_it_live(
    listener: Listener, lines: Lines, board: Board, tmp_path: Path
) -> None:
    """If two replicas have the same name, the pings of one replica's listener don't make the other
    replica's board live."""
    namesake = Listener("a", Board(tmp_path / "other board"), Lines(), BOUND_SECONDS)
    lines.muted = True
    with running(listener), running(namesake):
        wait_until(lambda: listener.state is State.LISTENING, "listening", PATIENCE)
        wait_live(namesake)
        wait_applied(board)
        assert listener.watermark == 0
        assert not board.live()


def test_a_ping_with_a_time_in_the_future_does_not_extend_liveness(
    live: Listener, board: Board
) -> None:
    for sequence in range(10):
        forged = heartbeat(Heartbeat("a", sequence, now_ns() + 3600 * SECOND))
        notify(forged.channel, forged.payload)
    wait_applied(board)
    assert board.live_until <= now_ns() + BOUND_SECONDS * SECOND
    assert live.watermark <= now_ns()

"""Tests that a notification moves only the slots of its own keys on the board, and that the
listener misses no committed change.

The board is a file of numbered slots. A key belongs to one slot; its hash chooses the slot. When
the slot moves, which means that it gets a new random number, the cached values that depend on the
key are stale. The listener also sends pings, which are notifications to itself. Its watermark says
when it sent the last ping that has returned. The listener has applied every change that was
committed before that time.
"""

import pytest

from notifications.board import Board, Slots, now_ns
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    MODULE_CACHE_INVALIDATED,
    REALM_FILE_CHANGES,
    REALM_HEARTBEAT,
    REALM_INDEX_SWAPPED,
    REALM_REGISTRY,
)
from notifications.listener import SECOND, Listener
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate
from tests.support.listening.hearing import connect, notify
from tests.support.listening.overheard import (
    BOUND_SECONDS,
    MARK,
    Lines,
    WatchedBoard,
    wait_applied,
    wait_live,
)

# The tests in this file write no rows, so the database needn't be emptied afterwards.
pytestmark = pytest.mark.usefixtures("django_db_setup")

REALM = "http://localhost:4201/ada/site/"

_MOVED = [
    (REALM_FILE_CHANGES, f"{REALM}:a.ts", f"path|{REALM}a.ts"),
    (REALM_FILE_CHANGES, f"{REALM}:*", f"realm|{REALM}"),
    (REALM_FILE_CHANGES, "http://nobody.example/:*", "realm|http://nobody.example/"),
    (REALM_REGISTRY, f"upsert:{REALM}", f"realm|{REALM}"),
    (REALM_REGISTRY, f"delete:{REALM}", f"realm|{REALM}"),
    (REALM_INDEX_SWAPPED, REALM, f"index|{REALM}"),
    (DEFINITION_CACHE_INVALIDATED, '{"k":"global"}', "definitions|global|"),
    (DEFINITION_CACHE_INVALIDATED, f'{{"k":"realm","r":"{REALM}"}}', f"definitions|realm|{REALM}"),
    (MODULE_CACHE_INVALIDATED, f'{{"k":"module","r":"{REALM}","m":["{REALM}a.ts"]}}',
     f"definitions|module|{REALM}a.ts"),
]  # fmt: skip


@pytest.mark.parametrize(("channel", "payload", "key"), _MOVED)
def test_a_manual_notification_moves_only_its_own_keys(
    live: Listener, board: WatchedBoard, channel: str, payload: str, key: str
) -> None:
    """The cases include a realm that this replica has never served, and the legacy channel
    MODULE_CACHE_INVALIDATED."""
    slots, other = Slots([key]), Slots([f"path|{REALM}b.ts", "realm|http://localhost:4201/b/"])
    stamp, others = board.stamp(slots), board.stamp(other)
    notify(channel, payload)
    wait_until(lambda: not board.unchanged(slots, stamp), f"{key} moved", PATIENCE)
    wait_applied(board)
    assert board.unchanged(other, others)
    assert _bumped(board) == {key}
    assert live.counts.notifications == 2, "this one and that of wait_applied"


def test_a_thousand_notifications_of_one_transaction_all_arrive(
    live: Listener, board: WatchedBoard
) -> None:
    with connect() as hand:
        hand.execute(
            "SELECT pg_notify('realm_file_changes', %s || n) FROM generate_series(1, 1000) n",
            [f"{REALM}:"],
        )
    # `wait_applied` waits until a slot moves. One of the many keys may share this slot and end the
    # wait too early. So the test first waits until all notifications are counted.
    wait_until(lambda: live.counts.notifications == 1000, "1000 notifications counted", PATIENCE)
    wait_applied(board)
    assert _bumped(board) == {f"path|{REALM}{n}" for n in range(1, 1001)}


def test_malformed_payloads_are_counted_and_change_nothing(
    live: Listener, board: WatchedBoard
) -> None:
    """Malformed payloads move no key, and the listener keeps its connection."""
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
    assert live.counts.malformed == len(malformed) - 1, "malformed heartbeats aren't counted"
    assert _bumped(board) == set()
    wait_live(live)
    assert live.counts.reconnects == 0


def test_half_a_surrogate_pair_in_a_payload_does_not_end_the_listener(
    live: Listener, board: Board
) -> None:
    notify(DEFINITION_CACHE_INVALIDATED, '{"k":"realm","r":"\\ud800"}')
    wait_applied(board)
    wait_live(live)


def test_notifications_during_a_ping_are_applied_before_it_counts_as_proof(
    live: Listener, lines: Lines, board: WatchedBoard
) -> None:
    """Another connection sends a notification just before the listener sends a ping. Postgres
    delivers this notification together with the result of the ping's statement."""

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


def test_everything_committed_before_the_watermark_is_on_the_board(
    live: Listener, board: Board
) -> None:
    slots = Slots([f"path|{REALM}a.ts"])
    for _ in range(20):
        stamp = board.stamp(slots)
        notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
        assert live.wait_for_watermark(now_ns(), PATIENCE)
        assert not board.unchanged(slots, stamp)


def test_a_slow_ping_proves_only_commits_from_before_it_was_sent(
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


def test_waiting_for_a_watermark_that_does_not_come_returns_false(
    live: Listener, lines: Lines
) -> None:
    lines.muted = True
    assert not live.wait_for_watermark(now_ns() + 60 * SECOND, 0)


def test_the_listener_records_when_it_last_heard_of_each_realm(
    live: Listener, board: Board
) -> None:
    before = now_ns()
    notify(REALM_FILE_CHANGES, f"{REALM}:a.ts")
    notify(REALM_REGISTRY, "upsert:http://localhost:4201/b/")
    wait_applied(board)
    assert set(live.heard) == {REALM, "http://localhost:4201/b/"}
    assert all(before < moment < now_ns() for moment in live.heard.values())


def _bumped(board: WatchedBoard) -> set[str]:
    """Returns the keys that the listener has moved on the board, except the key that `wait_applied`
    moves."""
    keys = {entry.removeprefix("bump ") for entry in board.log if entry.startswith("bump ")}
    return keys - {f"index|{MARK}"}

"""Tests that concurrent cache misses of one key cause one load, which is called a flight. No caller
gets the result of a load that began before a change that the caller must see.

A flight has a stamp: the values that some slots of the board had when the flight began. The board
is a file that the processes of a replica share. A change of data overwrites slots, which makes the
flight's stamp stale.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from notifications import single_flight
from notifications.board import Board, Slots, Stamp, now_ns
from notifications.single_flight import SingleFlight
from tests.support.gates import PATIENCE, Gate, in_thread

SECOND = 1_000_000_000
BOUND = 2 * SECOND
SLOTS = Slots(["a"])


class WatchedBoard(Board):
    """A board that counts its comparisons of stamps. A caller compares stamps to decide whether to
    join a running load."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._asked = threading.Semaphore(0)

    def unchanged(self, slots: Slots, stamp: Stamp) -> bool:
        answer = super().unchanged(slots, stamp)
        self._asked.release()
        return answer

    def wait_for_joiners(self, count: int) -> None:
        """Waits until `count` further callers have checked whether they may join a running load."""
        for _ in range(count):
            assert self._asked.acquire(timeout=PATIENCE)


class Loads:
    """A load function that returns the number of its call. If the call has a gate, the call returns
    only after the gate has been opened."""

    def __init__(self, gates: Iterable[Gate] = ()) -> None:
        self._gates = list(gates)
        self._lock = threading.Lock()
        self.stamps: list[Stamp] = []

    def __call__(self, stamp: Stamp) -> int:
        with self._lock:
            self.stamps.append(stamp)
            number = len(self.stamps)
        if number <= len(self._gates):
            self._gates[number - 1].hold()
        return number

    @property
    def count(self) -> int:
        return len(self.stamps)


@pytest.fixture
def board(tmp_path: Path) -> WatchedBoard:
    board = WatchedBoard(tmp_path / "board")
    board.go_live(now_ns() + 60 * SECOND)
    return board


@pytest.fixture
def flights(board: WatchedBoard) -> SingleFlight[int]:
    return SingleFlight(board, BOUND)


def test_many_callers_of_one_key_share_one_load(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    gate = Gate()
    loads = Loads([gate])
    callers = [in_thread(flights.run, "key", SLOTS, loads) for _ in range(16)]
    board.wait_for_joiners(15)
    gate.open()
    assert [caller.result(PATIENCE) for caller in callers] == [1] * 16
    assert loads.count == 1


def test_callers_of_different_keys_do_not_share_a_load(flights: SingleFlight[int]) -> None:
    gate = Gate()
    loads = Loads([gate])
    held = in_thread(flights.run, "key", SLOTS, loads)
    gate.wait_for_arrival()
    assert flights.run("other key", SLOTS, loads) == 2
    gate.open()
    assert held.result(PATIENCE) == 1


def test_the_result_of_a_finished_load_is_not_kept(flights: SingleFlight[int]) -> None:
    loads = Loads()
    assert [flights.run("key", SLOTS, loads) for _ in range(3)] == [1, 2, 3]


def test_a_load_gets_the_stamp_from_before_it_began(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    before = board.stamp(SLOTS)

    def load(stamp: Stamp) -> int:
        board.bump(["a"])
        assert stamp == before
        return 1

    assert flights.run("key", SLOTS, load) == 1


def test_after_an_invalidation_callers_start_a_new_load(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    """A caller that comes after a change never gets the result of a load that began before the
    change."""
    gate = Gate()
    loads = Loads([gate])
    overtaken = in_thread(flights.run, "key", SLOTS, loads)
    gate.wait_for_arrival()
    board.bump(["a"])
    assert flights.run("key", SLOTS, loads) == 2
    gate.open()
    assert overtaken.result(PATIENCE) == 1, "the first caller still gets the old value"
    assert loads.stamps[0] != loads.stamps[1]


def test_callers_still_join_a_flight_after_an_unrelated_invalidation(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    gate = Gate()
    loads = Loads([gate])
    first = in_thread(flights.run, "key", SLOTS, loads)
    gate.wait_for_arrival()
    board.bump(["b"])
    second = in_thread(flights.run, "key", SLOTS, loads)
    board.wait_for_joiners(1)
    gate.open()
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 1)


def test_callers_join_the_newer_flight_after_the_stale_one_has_ended(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    old, new = Gate(), Gate()
    loads = Loads([old, new])
    overtaken = in_thread(flights.run, "key", SLOTS, loads)
    old.wait_for_arrival()
    board.bump(["a"])
    newer = in_thread(flights.run, "key", SLOTS, loads)
    new.wait_for_arrival()
    board.wait_for_joiners(1)

    old.open()
    assert overtaken.result(PATIENCE) == 1
    joiner = in_thread(flights.run, "key", SLOTS, loads)
    board.wait_for_joiners(1)
    new.open()
    assert newer.result(PATIENCE) == 2
    assert joiner.result(PATIENCE) == 2
    assert loads.count == 2


def test_an_error_reaches_all_callers_of_a_load_and_is_not_kept(
    board: WatchedBoard, flights: SingleFlight[int]
) -> None:
    gate = Gate()

    def fail(_: Stamp) -> int:
        gate.hold()
        raise ArithmeticError("no luck")

    callers = [in_thread(flights.run, "key", SLOTS, fail) for _ in range(4)]
    board.wait_for_joiners(3)
    gate.open()
    for caller in callers:
        with pytest.raises(ArithmeticError, match="no luck"):
            caller.result(PATIENCE)
    assert flights.run("key", SLOTS, Loads()) == 1


def test_without_a_live_board_only_young_flights_are_joined(
    board: WatchedBoard, flights: SingleFlight[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the board isn't live, the process doesn't learn of invalidations. Only the age of a load
    shows whether its result can be current."""
    moment = now_ns()
    monkeypatch.setattr(single_flight, "now_ns", lambda: moment)
    board.go_live(0)
    first, second = Gate(), Gate()
    loads = Loads([first, second])
    began = in_thread(flights.run, "key", SLOTS, loads)
    first.wait_for_arrival()

    moment += BOUND - 1
    joined = in_thread(flights.run, "key", SLOTS, loads)
    board.wait_for_joiners(1)
    moment += 1
    refused = in_thread(flights.run, "key", SLOTS, loads)
    second.wait_for_arrival()
    first.open()
    second.open()
    assert began.result(PATIENCE) == 1
    assert joined.result(PATIENCE) == 1
    assert refused.result(PATIENCE) == 2


def test_a_live_board_lets_a_flight_be_joined_however_old_it_is(
    board: WatchedBoard, flights: SingleFlight[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = now_ns()
    monkeypatch.setattr(single_flight, "now_ns", lambda: moment)
    gate = Gate()
    loads = Loads([gate])
    began = in_thread(flights.run, "key", SLOTS, loads)
    gate.wait_for_arrival()
    moment += 100 * BOUND
    joined = in_thread(flights.run, "key", SLOTS, loads)
    board.wait_for_joiners(1)
    gate.open()
    assert (began.result(PATIENCE), joined.result(PATIENCE)) == (1, 1)

"""Lets concurrent cache misses of one key share one load, within one process.

A load that callers can share is called a flight. Each flight has a stamp, which is a copy of some
numbers on the replica's board, made when the flight began. The board is a file that says whether
cached data is fresh (`board.py`). A change of the loaded data overwrites these numbers on the
board, so the stamp becomes stale.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from notifications.board import Board, Slots, Stamp, now_ns

V = TypeVar("V")


class _Flight(Generic[V]):
    """One load, which one caller runs and other callers wait for. `landed` is set when the load has
    ended, with a value or an error."""

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self.began = now_ns()
        self.landed = threading.Event()
        self.value: V | None = None
        self.error: BaseException | None = None


class SingleFlight(Generic[V]):
    """Holds the running loads by key. A caller joins a running load if the result will be fresh
    enough for this caller (`_may_join`)."""

    def __init__(self, board: Board, bound_ns: int) -> None:
        self._board = board
        self._bound_ns = bound_ns
        self._flights: dict[Hashable, _Flight[V]] = {}
        self._lock = threading.Lock()

    def run(self, key: Hashable, slots: Slots, load: Callable[[Stamp], V]) -> V:
        """Returns the value of a running load of `key` if this caller may join that load. Otherwise
        takes a stamp, calls `load` with the stamp, and returns the result.

        If the load fails, all callers that share the load get its error. The error isn't kept, so
        the next caller starts a new load.
        """
        with self._lock:
            flight = self._flights.get(key)
            joined = flight is not None and self._may_join(flight, slots)
            if not joined or flight is None:
                # If there is an older flight that this caller may not join, the older flight
                # continues. Its callers get its value.
                flight = self._flights[key] = _Flight(self._board.stamp(slots))
        if joined:
            flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            return flight.value  # type: ignore[return-value]
        try:
            flight.value = load(flight.stamp)
            return flight.value
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.landed.set()

    def _may_join(self, flight: _Flight[V], slots: Slots) -> bool:
        """Returns whether a caller may use the flight's value. The caller may never use it if the
        board shows a change since the flight began.

        If the board isn't live, it may lack recent changes. In this case, the flight must also be
        younger than the staleness bound. Such a flight began after every change that is older than
        the bound, so its value contains these changes.
        """
        young = now_ns() - flight.began < self._bound_ns
        # Call `live` before `unchanged`, because `live` may switch to a new board. On a new board,
        # `unchanged` finds that the stamp is stale.
        return (young or self._board.live()) and self._board.unchanged(slots, flight.stamp)

"""Lets concurrent cache misses of one key share one load per process."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from notifications.board import Board, Slots, Stamp, now_ns

V = TypeVar("V")


class _Flight(Generic[V]):
    """One running load, with its result, and with the stamp that decides which callers may join."""

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self.began = now_ns()
        self.landed = threading.Event()
        self.value: V | None = None
        self.error: BaseException | None = None


class SingleFlight(Generic[V]):
    """Holds the running loads by key. A caller joins a running load if the load's result will be
    fresh enough for the caller."""

    def __init__(self, board: Board, bound_ns: int) -> None:
        self._board = board
        self._bound_ns = bound_ns
        self._flights: dict[Hashable, _Flight[V]] = {}
        self._lock = threading.Lock()

    def run(self, key: Hashable, slots: Slots, load: Callable[[Stamp], V]) -> V:
        """Returns the value of a running load of `key` if this caller may join that load. Otherwise
        takes a stamp, calls `load` with the stamp, and returns the result.

        If the load fails, all callers that share the load get its error. The error is not cached.
        """
        with self._lock:
            flight = self._flights.get(key)
            joined = flight is not None and self._may_join(flight, slots)
            if not joined or flight is None:
                # A stale flight continues, and the callers that have joined the flight get its
                # value.
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
        """Returns whether a caller may use this flight's value. The board must show no change since
        the flight began. A board that isn't live may lack recent changes. So if the board isn't
        live, the flight must also be younger than the staleness bound. The value of a flight that
        young contains every change that is older than the bound."""
        young = now_ns() - flight.began < self._bound_ns
        # Call `live` first, because `live` may switch to a new board. There the stamp is stale.
        return (young or self._board.live()) and self._board.unchanged(slots, flight.stamp)

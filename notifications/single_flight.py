"""N concurrent misses of one key cost one load per process."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from notifications.board import Board, Slots, Stamp, now_ns

V = TypeVar("V")


class _Flight(Generic[V]):
    """One load under way: what it may be joined on, and what came of it."""

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self.began = now_ns()
        self.landed = threading.Event()
        self.value: V | None = None
        self.error: BaseException | None = None


class SingleFlight(Generic[V]):
    """Loads in flight, by key. A load is shared by callers who could have begun it themselves."""

    def __init__(self, board: Board, bound_ns: int) -> None:
        self._board = board
        self._bound_ns = bound_ns
        self._flights: dict[Hashable, _Flight[V]] = {}
        self._lock = threading.Lock()

    def run(self, key: Hashable, slots: Slots, load: Callable[[Stamp], V]) -> V:
        """The value of `load`, which gets the stamp taken before it began.

        An error of the load reaches everyone who shares it and is not remembered.
        """
        with self._lock:
            flight = self._flights.get(key)
            joined = flight is not None and self._may_join(flight, slots)
            if not joined or flight is None:
                # An overtaken flight is only forgotten here: its own callers still get its value.
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
        """Whether what this flight reads can't have been superseded longer ago than the bound."""
        young = now_ns() - flight.began < self._bound_ns
        # In this order: the board may be replaced in between, and on the new one the stamp is old.
        return (young or self._board.live()) and self._board.unchanged(slots, flight.stamp)

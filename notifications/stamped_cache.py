"""A cache in which nothing is ever deleted because the world changed: the world's stamp moves.

Every entry carries the stamp of the board taken before its load began. An entry answers while
nothing that it depends on has moved and a sidecar vouches for the board; otherwise it is loaded
again. A value whose load was overtaken by a change arrives stale, so it can't bring back what the
change removed.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from notifications.board import Board, Slots, Stamp
from notifications.single_flight import SingleFlight

V = TypeVar("V")

#: What an entry takes besides its value, and what each slot of it takes: a number, its place in two
#: tuples, and the number that stood there. Unit: bytes.
ENTRY_BYTES = 500
SLOT_BYTES = 100


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    slots: Slots
    stamp: Stamp
    size: int


class StampedCache(Generic[V]):
    """Values by key, the least recently used leaving first. Safe for threads."""

    def __init__(
        self, board: Board, *, max_bytes: int, size_of: Callable[[V], int], bound_ns: int
    ) -> None:
        """`size_of` is what a value takes; what its key and its slots take is added to that.
        `bound_ns` is the staleness bound: how old a load may be that a late caller joins."""
        self._board = board
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._flights: SingleFlight[V] = SingleFlight(board, bound_ns)

    def get(self, key: Hashable) -> V | None:
        """The value, if it is known to hold now; None is a miss. This is a hit's whole cost."""
        entry = self._entries.get(key)
        if entry is None or not self._board.live():
            return None
        if not self._board.unchanged(entry.slots, entry.stamp):
            return None
        with self._lock:
            if self._entries.get(key) is entry:
                self._entries.move_to_end(key)
        return entry.value

    def peek(self, key: Hashable) -> V | None:
        """The last known value, stale or not: a load can find that its bytes are still the same."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def put(self, key: Hashable, value: V, slots: Slots, stamp: Stamp) -> None:
        """Keeps a value with the stamp taken before it was loaded. Larger than a quarter of the
        cache, it is not kept."""
        size = self._size_of(value) + ENTRY_BYTES + _size(key) + SLOT_BYTES * len(slots.positions)
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._bytes -= old.size
            if size * 4 > self._max_bytes:
                return
            self._entries[key] = _Entry(value, slots, stamp, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, evicted = self._entries.popitem(last=False)
                self._bytes -= evicted.size

    def drop(self, key: Hashable) -> None:
        """Forgets a value: the next `get` is a miss."""
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._bytes -= old.size

    def load(self, key: Hashable, slots: Slots, load: Callable[[], V]) -> V:
        """Loads the value, once however many ask at the same time, and keeps it."""

        def load_and_keep(stamp: Stamp) -> V:
            value = load()
            self.put(key, value, slots, stamp)
            return value

        return self._flights.run(key, slots, load_and_keep)

    def __len__(self) -> int:
        return len(self._entries)


def _size(key: Hashable) -> int:
    """What a key takes: the length of the texts in it."""
    if isinstance(key, tuple):
        return sum(_size(each) for each in key)
    return len(key) if isinstance(key, str | bytes) else 0

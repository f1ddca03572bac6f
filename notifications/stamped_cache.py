"""A cache whose entries are never deleted when data changes: instead, their stamps become stale.

Every entry carries the board's stamp from before its load began. An entry is used while the board
is live and nothing that the entry depends on has moved; otherwise it is loaded again. If a change
happens during a load, the loaded value is stale from the start, so it can't undo the change.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from notifications.board import Board, Slots, Stamp
from notifications.single_flight import SingleFlight

V = TypeVar("V")

#: The size of an entry without its value, and the size of each of its slots: a position, an item in
#: two tuples, and a number of the stamp. Unit: bytes.
ENTRY_BYTES = 500
SLOT_BYTES = 100


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    slots: Slots
    stamp: Stamp
    #: Unit: bytes. `weigh` adds to it what the value has grown by.
    size: int
    #: The part of `size` that is not the value's. Unit: bytes.
    overhead: int
    #: Whether there was a hit since the entry was stored or last spared.
    used: bool = False


class StampedCache(Generic[V]):
    """Values by key. Evicts the oldest entry that had no hit since it was last the oldest. Safe for
    threads."""

    def __init__(
        self, board: Board, *, max_bytes: int, size_of: Callable[[V], int], bound_ns: int
    ) -> None:
        """`size_of` returns a value's size in bytes; the sizes of its key and slots are added.
        `bound_ns` is the staleness bound: the maximum age of a load that a late caller joins."""
        self._board = board
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._bytes = 0
        #: Values that were stale when they were stored: a change came during their load.
        self.stale_discards = 0
        self._lock = threading.Lock()
        self._flights: SingleFlight[V] = SingleFlight(board, bound_ns)

    def get(self, key: Hashable) -> V | None:
        """The value, if it is certainly fresh, else None. A hit costs no more than this method."""
        entry = self._entries.get(key)
        if entry is None or not self._board.vouches(entry.slots, entry.stamp):
            return None
        # A hit that moved the entry to the end of a queue would have to lock it.
        entry.used = True
        return entry.value

    def peek(self, key: Hashable) -> V | None:
        """The last value, stale or not, so that a load can check if its bytes are unchanged."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def put(self, key: Hashable, value: V, slots: Slots, stamp: Stamp) -> None:
        """Stores a value with the stamp taken before its load. An entry larger than a quarter of
        the cache is not stored."""
        overhead = ENTRY_BYTES + _size(key) + SLOT_BYTES * slots.count
        size = self._size_of(value) + overhead
        stale = not self._board.unchanged(slots, stamp)
        with self._lock:
            self.stale_discards += stale
            self._remove(key)
            if size * 4 > self._max_bytes:
                return
            # Room is made first: otherwise a new entry, which had no hit yet, would be evicted.
            self._make_room(size)
            self._entries[key] = _Entry(value, slots, stamp, size, overhead)
            self._bytes += size

    def weigh(self, key: Hashable) -> None:
        """Takes account of a value that has grown."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return
            size = self._size_of(entry.value) + entry.overhead
            if size * 4 > self._max_bytes:
                self._remove(key)
                return
            self._bytes += size - entry.size
            entry.size = size
            self._make_room(0)

    def drop(self, key: Hashable) -> None:
        """Removes a value: the next `get` is a miss."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= old.size

    def _make_room(self, size: int) -> None:
        while self._entries and self._bytes + size > self._max_bytes:
            key, entry = next(iter(self._entries.items()))
            if entry.used:
                entry.used = False
                # It stays in the dictionary all the time, because hits take no lock.
                self._entries.move_to_end(key)
            else:
                self._remove(key)

    def load(self, key: Hashable, slots: Slots, load: Callable[[], V]) -> V:
        """Loads and stores the value. Concurrent callers share one load."""

        def load_and_keep(stamp: Stamp) -> V:
            value = load()
            self.put(key, value, slots, stamp)
            return value

        return self._flights.run(key, slots, load_and_keep)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The total size of all entries, stale ones included. Unit: bytes."""
        return self._bytes


def _size(key: Hashable) -> int:
    """The size of a key: the total length of the texts in it."""
    if isinstance(key, tuple):
        return sum(_size(each) for each in key)
    return len(key) if isinstance(key, str | bytes) else 0

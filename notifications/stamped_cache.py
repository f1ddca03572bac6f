"""Provides a cache that stores each value with a stamp. A change of data deletes no entry, but
makes the stamps of the entries with this data stale.

The board is a page of shared memory with numbered slots (`board.py`). A change moves the slots of
the changed data, which means that they get new random numbers. An entry's stamp holds the numbers
that the entry's slots had before the entry was loaded. `get` returns an entry's value only while
the board is live and the entry's slots have not moved. Otherwise the caller loads the value again.
If a change happens during a load, the stored entry is stale from the start.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from notifications.board import Board, Slots, Stamp
from notifications.single_flight import SingleFlight

V = TypeVar("V")

#: The size of an entry without its value, its slots and the texts of its key. Unit: bytes.
ENTRY_BYTES = 300
#: The queue of a cache may keep some entries that the cache has already removed. The maximum number
#: of these entries is _GONE times the number of cached entries, plus _LEAST_GONE.
_GONE, _LEAST_GONE = 1 / 16, 64


class Shared(Protocol):
    """An object that several values of a cache refer to. The cache counts the object's size only
    once."""

    @property
    def size(self) -> int:
        """The size of the shared object. Unit: bytes."""


class _Entry(Generic[V]):
    __slots__ = ("key", "sealed", "size", "used", "value")

    def __init__(self, key: Hashable, value: V, sealed: bytes, size: int) -> None:
        self.key = key
        #: The cached value; None after the cache has removed the entry.
        self.value: V | None = value
        #: The slots that the value depends on, and their stamp.
        self.sealed = sealed
        #: The size of the entry, without the object that its value shares with other values. Unit:
        #: bytes.
        self.size = size
        #: Whether the entry has had a hit since it last joined the end of the queue.
        self.used = False


class StampedCache(Generic[V]):
    """A thread-safe cache of values by key. The cache keeps its entries in a queue, and evicts
    entries from the front. If the entry at the front has had a hit, the cache forgets the hit and
    moves the entry to the end of the queue instead of evicting it."""

    def __init__(
        self,
        board: Board,
        *,
        max_bytes: int,
        size_of: Callable[[V], int],
        bound_ns: int,
        shared_by: Callable[[V], Shared | None] = lambda _: None,
    ) -> None:
        """`size_of` returns a value's size in bytes, without its key and its slots. `shared_by`
        returns the object that a value shares with other values; `size_of` excludes this object.
        `bound_ns` is the staleness bound in ns. While the board isn't live, a caller may join only
        a running load that is younger than this."""
        self._board = board
        self._max_bytes = max_bytes
        self._size_of, self._shared_by = size_of, shared_by
        #: The number of entries that share an object, by the object's `id()`.
        self._sharing: dict[int, int] = {}
        self._entries: dict[Hashable, _Entry[V]] = {}
        #: The entries in the order of eviction, and some entries that the cache has already
        #: removed. An ordered dictionary would take twice the memory.
        self._queue: deque[_Entry[V]] = deque()
        self._bytes = 0
        #: How many values were already stale when `put` got them, because data changed during their
        #: load. `put` stores these values for `peek`, but `get` never returns them.
        self.stale_discards = 0
        self._lock = threading.Lock()
        self._flights: SingleFlight[V] = SingleFlight(board, bound_ns)

    def get(self, key: Hashable) -> V | None:
        """Returns the key's value if it is certainly fresh, else None. A hit takes no lock."""
        entry = self._entries.get(key)
        if entry is None or not self._board.vouches(entry.sealed):
            return None
        # Moving the entry to the end of the queue here would need a lock.
        entry.used = True
        return entry.value

    def peek(self, key: Hashable) -> V | None:
        """Returns the key's cached value, even if the value is stale. A load can reuse those parts
        of a stale value that were made from unchanged data."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def put(self, key: Hashable, value: V, slots: Slots, stamp: Stamp) -> None:
        """Stores a value with the stamp that was taken before its load. Doesn't store an entry that
        is larger than a quarter of the cache."""
        stale = not self._board.unchanged(slots, stamp)
        sealed = slots.sealed(stamp)
        size = self._size(key, value, sealed)
        with self._lock:
            self.stale_discards += stale
            self._remove(key)
            if size * 4 > self._max_bytes:
                return
            # Evict entries before adding the new entry. An eviction after the addition could remove
            # the new entry itself, which has had no hit yet.
            self._make_room(size + self._new_share(value))
            self._bytes += size + self._new_share(value)
            entry = self._entries[key] = _Entry(key, value, sealed, size)
            self._queue.append(entry)
            self._share(value, 1)

    def weigh(self, key: Hashable) -> None:
        """Updates the size of the key's entry after its value has grown. Evicts entries if the
        cache has become too large."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.value is None:
                return
            size = self._size(key, entry.value, entry.sealed)
            if size * 4 > self._max_bytes:
                self._remove(key)
                return
            self._bytes += size - entry.size
            entry.size = size
            self._make_room(0)

    def drop(self, key: Hashable) -> None:
        """Removes the key's entry, so that the next `get` is a miss."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is None or old.value is None:
            return
        self._share(old.value, -1)
        self._bytes -= old.size + self._new_share(old.value)
        old.value = None
        if len(self._queue) > (1 + _GONE) * len(self._entries) + _LEAST_GONE:
            self._queue = deque(each for each in self._queue if each.value is not None)

    def _size(self, key: Hashable, value: V, sealed: bytes) -> int:
        return self._size_of(value) + ENTRY_BYTES + _size(key) + len(sealed)

    def _new_share(self, value: V) -> int:
        """Returns the size of the object that `value` shares with other values, if no entry in the
        cache has this object. Otherwise, or if `value` shares no object, returns 0."""
        shared = self._shared_by(value)
        return 0 if shared is None or id(shared) in self._sharing else shared.size

    def _share(self, value: V, more: int) -> None:
        shared = self._shared_by(value)
        if shared is not None:
            users = self._sharing.pop(id(shared), 0) + more
            if users:
                self._sharing[id(shared)] = users

    def _make_room(self, size: int) -> None:
        while self._entries and self._bytes + size > self._max_bytes:
            entry = self._queue.popleft()
            if entry.value is None:
                continue
            if entry.used:
                entry.used = False
                self._queue.append(entry)
            else:
                self._remove(entry.key)

    def load(
        self,
        key: Hashable,
        slots: Slots,
        load: Callable[[], V],
        narrowed: Callable[[V], Slots | None] = lambda _: None,
    ) -> V:
        """Loads, stores and returns the key's value. Concurrent callers share one load. `slots` are
        all slots that the value may depend on. `narrowed` takes the loaded value, and returns the
        slots that the value really depends on, or None for all of `slots`."""

        def load_and_keep(stamp: Stamp) -> V:
            value = load()
            part = narrowed(value)
            if part is None:
                self.put(key, value, slots, stamp)
            else:
                self.put(key, value, part, slots.of_part(part, stamp))
            return value

        return self._flights.run(key, slots, load_and_keep)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The total size of all entries, including stale entries. Unit: bytes."""
        return self._bytes


def _size(key: Hashable) -> int:
    """Returns the size of a key, which is the total length of the texts in the key."""
    if isinstance(key, tuple):
        return sum(_size(each) for each in key)
    return len(key) if isinstance(key, str | bytes) else 0

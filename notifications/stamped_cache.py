"""A cache whose entries are never deleted when data changes: instead, their stamps become stale.

Every entry carries the board's stamp from before its load began. An entry is used while the board
is live and nothing that the entry depends on has moved; otherwise it is loaded again. If a change
happens during a load, the loaded value is stale from the start, so it can't undo the change.
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
#: The part of the queue that may have left the cache; beside it this many entries may.
_GONE, _LEAST_GONE = 1 / 16, 64


class Shared(Protocol):
    """What values have in common. Each of these objects is counted once, however many values have
    it."""

    @property
    def size(self) -> int:
        """Unit: bytes."""


class _Entry(Generic[V]):
    __slots__ = ("key", "sealed", "size", "used", "value")

    def __init__(self, key: Hashable, value: V, sealed: bytes, size: int) -> None:
        self.key = key
        #: None once the entry has left the cache.
        self.value: V | None = value
        #: The slots that the value depends on, and their stamp.
        self.sealed = sealed
        #: Without what the value shares. Unit: bytes.
        self.size = size
        #: Whether there was a hit since the entry was stored or last spared.
        self.used = False


class StampedCache(Generic[V]):
    """Values by key. Evicts from the oldest on. An entry that has had a hit is spared once and
    moved to the end. Safe for threads."""

    def __init__(
        self,
        board: Board,
        *,
        max_bytes: int,
        size_of: Callable[[V], int],
        bound_ns: int,
        shared_by: Callable[[V], Shared | None] = lambda _: None,
    ) -> None:
        """`size_of` returns a value's size in bytes; the sizes of its key and slots are added, and
        that of what `shared_by` says it shares with other values. `bound_ns` is the staleness
        bound: the maximum age of a load that a late caller joins."""
        self._board = board
        self._max_bytes = max_bytes
        self._size_of, self._shared_by = size_of, shared_by
        #: By the identity of a shared object, how many entries have it.
        self._sharing: dict[int, int] = {}
        self._entries: dict[Hashable, _Entry[V]] = {}
        #: The entries, the next to be evicted first, and among them some that have left the cache.
        #: An ordered dictionary would take twice the memory.
        self._queue: deque[_Entry[V]] = deque()
        self._bytes = 0
        #: Values that were stale when they were stored: a change came during their load.
        self.stale_discards = 0
        self._lock = threading.Lock()
        self._flights: SingleFlight[V] = SingleFlight(board, bound_ns)

    def get(self, key: Hashable) -> V | None:
        """The value, if it is certainly fresh, else None. A hit takes no lock."""
        entry = self._entries.get(key)
        if entry is None or not self._board.vouches(entry.sealed):
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
        stale = not self._board.unchanged(slots, stamp)
        sealed = slots.sealed(stamp)
        size = self._size(key, value, sealed)
        with self._lock:
            self.stale_discards += stale
            self._remove(key)
            if size * 4 > self._max_bytes:
                return
            # Room is made first: otherwise a new entry, which had no hit yet, would be evicted.
            self._make_room(size + self._new_share(value))
            self._bytes += size + self._new_share(value)
            entry = self._entries[key] = _Entry(key, value, sealed, size)
            self._queue.append(entry)
            self._share(value, 1)

    def weigh(self, key: Hashable) -> None:
        """Takes account of a value that has grown."""
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
        """Removes a value: the next `get` is a miss."""
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
        """The size of what a value shares, if no entry has it."""
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
        """Loads and stores the value. Concurrent callers share one load. `slots` are those of all
        that the value may depend on; `narrowed` returns those of what it does depend on, or None
        for all of them."""

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
        """The total size of all entries, stale ones included. Unit: bytes."""
        return self._bytes


def _size(key: Hashable) -> int:
    """The size of a key: the total length of the texts in it."""
    if isinstance(key, tuple):
        return sum(_size(each) for each in key)
    return len(key) if isinstance(key, str | bytes) else 0

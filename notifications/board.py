"""Provides the board, a file that tells the processes of a replica whether cached data is fresh.

A replica is one host's web workers, its sidecar and its board. The sidecar is the process that
receives notifications of changes from Postgres (`notifications/listener.py`). All processes of the
replica map the board into their memory.

The board has 65,536 slots of 64 bits. A stable hash maps each key to a slot. A key stands for
something that can change, such as a file or a realm. When this file or realm changes, a process
moves the key's slot: it overwrites the slot with a new random number. The stamp of a cached value
holds the numbers that some slots had before the cached value was loaded. If one of these slots has
moved since then, the stamp and the cached value are stale. If two keys share a slot, a change of
one key also makes the cached values of the other key stale. They are then loaded again without
need, but no stale bytes are served.

Besides the slots, the board has an epoch and a time. The epoch is a number that every stamp
includes, so a new epoch makes all stamps stale. The time says until when the slots are valid. Until
this time the board is live. While the board isn't live, no process trusts its cached values.

One machine instruction overwrites a slot, so the board needs no lock. A process that stops or dies
while it moves slots can't block other processes (docs/decisions/board-without-locks.md).

Times are nanoseconds since the machine started (`now_ns`), so all processes of a machine get the
same times. A change of the system's date doesn't affect these times. The clock keeps running while
the machine sleeps, so a board expires during a long sleep.

If the file is incomplete, or from another boot or version, a starting process puts a new file in
its place. A process never repairs the old file, because other processes may have mapped it. The
sidecar switches to the new file before it next makes a board live, so the old board expires. Any
other process looks for a new file while the board that it has mapped isn't live. So in the end all
processes use the new board.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from notifications.short_cached import short_cached

logger = logging.getLogger(__name__)

SLOTS = 65_536
_MAGIC = int.from_bytes(b"RLMBOARD", "little")
_VERSION = 1
# The positions of the header's 64-bit words. The slots follow the header.
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_EPOCH, _AT_LIVE_UNTIL, _AT_SIDECAR = range(6)
_HEADER = 8
_SIZE = (_HEADER + SLOTS) * 8
#: While a process's board isn't live, the process looks for a new file at the board's path. This is
#: the shortest time between two looks. Unit: ns.
_LOOK_NS = 1_000_000_000

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """Returns the nanoseconds since the machine started, including the time that it slept. All
    times on the board are times of this clock."""
    return time.clock_gettime_ns(_CLOCK)


#: A sealed stamp is a byte string that `Slots.sealed` makes. For each value of the stamp, it has
#: this many bytes: 8 for the value, and 4 for the position of the value on the board.
_SEALED_BYTES = 12


class _Formats(dict[int, tuple[Callable[..., bytes], Callable[[bytes], tuple[int, ...]]]]):
    """Maps the length of a sealed stamp to a pair of functions, `(pack, unpack)`. `pack` packs the
    values of a stamp into the bytes with which its sealed stamp begins. `unpack` takes a sealed
    stamp, and returns the positions, which follow the values."""

    def __missing__(self, size: int) -> tuple[Any, Any]:
        count = size // _SEALED_BYTES
        positions = struct.Struct(f"={8 * count}x{count}I")
        self[size] = struct.Struct(f"={count}Q").pack, positions.unpack
        return self[size]


_FORMATS = _Formats()

#: The values of the epoch and of a set of slots, as one call of `Slots.read` returned them.
Stamp: TypeAlias = tuple[int, ...]


class Slots:
    """The slots of a set of keys. The function `read` takes the words of a board, and returns the
    values of the epoch and of all these slots."""

    __slots__ = ("_positions", "read")

    def __init__(self, keys: Iterable[str]) -> None:
        self._positions = (_AT_EPOCH, *dict.fromkeys(map(_word_of, keys)))
        # An `itemgetter` reads all slots in one call into C, which is fast. It returns a tuple only
        # for two or more positions. There are always two: the epoch has a position, and every
        # caller passes at least one key.
        self.read: Callable[[memoryview], Stamp] = itemgetter(*self._positions)

    def of_part(self, part: "Slots", stamp: Stamp) -> Stamp:
        """Takes a stamp of all slots in `self`. Returns the stamp of the slots in `part`, with the
        values from `stamp`. Raises KeyError if `self` lacks a slot of `part`."""
        value_of = dict(zip(self._positions, stamp, strict=True))
        return tuple(value_of[position] for position in part._positions)

    def sealed(self, stamp: Stamp) -> bytes:
        """Packs the slots' positions and their `stamp` into one byte string, for `Board.vouches`. A
        tuple of integers would take several times the memory."""
        count = len(stamp)
        return struct.pack(f"={count}Q{count}I", *stamp, *self._positions)


class BoardError(Exception):
    """The board file can't be used."""


@dataclass(frozen=True, slots=True)
class _Page:
    """A board that this process has mapped, and the device and inode of the board's file. `file` is
    None for a private page, which is memory that only this process uses."""

    words: memoryview
    file: tuple[int, int] | None


class Board:
    """The board of one replica. Any number of processes may open it. Only the replica's sidecar
    makes it live."""

    def __init__(self, path: Path, *, or_blank: bool = False) -> None:
        """Opens the board at `path`, creating or replacing the file if necessary.

        Raises BoardError if the file can't be used, for example because the disk is full. With
        `or_blank`, uses a private page instead of raising BoardError. A private page is never live.
        When a board file appears at the path, the process switches to this file.
        """
        self.path = path
        self._moving = threading.Lock()
        self._look_at = now_ns() + _LOOK_NS
        try:
            page = _made(path)
        except OSError as error:
            why = f"the board {path} can't be used: {error.strerror}"
            if not or_blank:
                raise BoardError(why) from error
            logger.warning("%s; this process reads everything from the database", why)
            page = _blank()
        self._file, self._words = page.file, page.words

    # --- reading ---

    def stamp(self, slots: Slots) -> Stamp:
        """Returns the current values of the epoch and the slots. Before a caller loads data for a
        cache, it takes the stamp. If the data changes during the load, the stamp becomes stale, so
        no later read uses the loaded data."""
        return slots.read(self._words)

    def unchanged(self, slots: Slots, stamp: Stamp) -> bool:
        """Returns whether the epoch and the slots still have the values in `stamp`."""
        return slots.read(self._words) == stamp

    def vouches(self, sealed: bytes) -> bool:
        """Returns whether a cached value is fresh. `sealed` is the value's stamp, as `Slots.sealed`
        has packed it. The value is fresh if the board is live, and the epoch and the slots still
        have the values in the stamp."""
        pack, positions = _FORMATS[len(sealed)]
        read = itemgetter(*positions(sealed))
        # Check that the board is live before comparing the slots. In the opposite order, this
        # thread could compare them while the board isn't live and lacks changes, and then pause.
        # During the pause, the sidecar could move the slots and make the board live. Then an
        # outdated value would seem fresh.
        live = now_ns() < self._words[_AT_LIVE_UNTIL] or self.live()
        return live and sealed.startswith(pack(*read(self._words)))

    def live(self) -> bool:
        """Returns whether the board certainly shows every change that was committed longer ago than
        the staleness bound (REALM_STALENESS_BOUND). If the board isn't live, looks for a new board
        at the path, at most once every _LOOK_NS."""
        now = now_ns()
        if now < self._words[_AT_LIVE_UNTIL]:
            return True
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_NS
        return self.follow() and now < self._words[_AT_LIVE_UNTIL]

    def follow(self) -> bool:
        """Switches to a new board at the path, and returns whether there was one.

        A switch makes all earlier stamps stale, because no two boards have the same epoch.
        """
        with self._moving:
            if _file_at(self.path) in (None, self._file):
                return False
            try:
                page = _whole(self.path)
            except OSError as error:
                logger.warning("the new board %s can't be used: %s", self.path, error.strerror)
                return False
            if page is None:
                return False
            # Expire the old board. Other processes that use it then look for the new board.
            self.go_live(0)
            self._file, self._words = page.file, page.words
        logger.warning("the board %s was replaced; this process uses the new board", self.path)
        return True

    @property
    def live_until(self) -> int:
        """The time until which the slots are valid; 0 before the sidecar makes them valid, and
        after the sidecar's listener has stopped."""
        return self._words[_AT_LIVE_UNTIL]

    @property
    def file(self) -> tuple[int, int] | None:
        """The device and inode of the mapped file; None for a page that only this process uses."""
        return self._file

    @property
    def sidecar_pid(self) -> int:
        """The process id of the sidecar that last began to listen to notifications for this board;
        0 if no sidecar has begun yet."""
        return self._words[_AT_SIDECAR]

    # --- writing ---

    def bump(self, keys: Iterable[str]) -> None:
        """Moves the slots of `keys`, which makes all earlier stamps of these keys stale."""
        for key in keys:
            self._words[_word_of(key)] = _unseen()

    def bump_epoch(self) -> None:
        """Makes all earlier stamps of this board stale."""
        self._words[_AT_EPOCH] = _unseen()

    def go_live(self, until: int) -> None:
        """Declares the slots valid until the time `until`. Only the sidecar's listener passes a
        time in the future. When the listener stops, it passes 0, which makes the slots invalid at
        once. `follow` passes 0 for the board that it leaves."""
        self._words[_AT_LIVE_UNTIL] = until

    def set_sidecar(self, pid: int) -> None:
        """Records the process id of the sidecar that listens to notifications for this board."""
        self._words[_AT_SIDECAR] = pid


@short_cached(maxsize=4096)
def _word_of(key: str) -> int:
    """Returns the position of a key's slot among the 64-bit words of the board. The result is
    cached, because the keys of realms recur in many cache entries."""
    return _HEADER + slot_of(key)


def slot_of(key: str) -> int:
    """Returns the number of a key's slot, which is the same in every process and release."""
    # A key from a JSON payload may hold half of a surrogate pair, which UTF-8 can't encode.
    name = key.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=2).digest(), "big")


def _unseen() -> int:
    # `secrets` gets random bits from the kernel. Python's `random` would produce the same numbers
    # in every forked process.
    return secrets.randbits(64)


@cache
def _boot() -> int:
    """Returns a number that identifies this boot of the machine. The clock restarts at each boot,
    so times of different boots can't be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = b"one boot"
    return int.from_bytes(hashlib.blake2b(boot, digest_size=8).digest(), "big")


def _made(path: Path) -> _Page:
    """Opens the board file at `path` and maps it into memory. Creates the file if `path` has no
    valid board."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The lock on the folder keeps two processes from creating a board at the same time.
        fcntl.flock(folder, fcntl.LOCK_EX)
        page = _whole(path)
        if page is None:
            _put(path)
            page = _whole(path)
    finally:
        os.close(folder)
    if page is None:
        raise FileNotFoundError(0, "the file was deleted while this process created it")
    return page


def _put(path: Path) -> None:
    header = (_MAGIC, _VERSION, _boot(), _unseen(), 0, 0)
    draft = path.with_name(f".{path.name}.draft")
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        # Allocate the space now, so that a full disk raises an error here. Without this call, the
        # space would be allocated when a process first stores a number in a slot. If the disk were
        # full at that time, the process would end with SIGBUS.
        os.posix_fallocate(file, 0, _SIZE)
        os.pwrite(file, struct.pack(f"={len(header)}Q", *header), 0)
        os.rename(draft, path)
    except OSError:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    finally:
        os.close(file)


def _whole(path: Path) -> _Page | None:
    """Maps the board file at `path` into memory. Returns None if the file is missing or incomplete,
    or if it is from another boot or another version."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(file)
        wanted = struct.pack("=3Q", _MAGIC, _VERSION, _boot())
        if status.st_size != _SIZE or os.pread(file, len(wanted), 0) != wanted:
            return None
        words = memoryview(mmap.mmap(file, _SIZE)).cast("Q")
        return _Page(words, (status.st_dev, status.st_ino))
    finally:
        os.close(file)


def _blank() -> _Page:
    words = memoryview(mmap.mmap(-1, _SIZE)).cast("Q")
    words[_AT_EPOCH] = _unseen()
    return _Page(words, None)


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_boards: dict[Path, Board] = {}


def board_at(path: Path) -> Board:
    """Returns this process's only Board for a path. If the file can't be used, the board is a
    private page, which isn't live (`Board.__init__`)."""
    if path not in _boards:
        _boards[path] = Board(path, or_blank=True)
    return _boards[path]

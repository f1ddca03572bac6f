"""The board: a replica's shared memory page, with which a sidecar tells web workers about changes.

The board is a memory-mapped file of 65,536 64-bit slots, an epoch, and a moment until which the
slots are valid. Each key has a slot, given by a stable hash: two keys that share a slot cost a
spurious reload, never a stale byte. Moving a slot writes a new random number in one aligned store.
So there is no read-modify-write and no lock, and a process that is stopped or killed in the middle
can't block others (docs/decisions/board-without-locks.md).

Times are nanoseconds of a clock that all processes of a machine share (`now_ns`). The clock runs on
while the machine sleeps, so that a board which was live before a long sleep isn't live after it.
Unlike the wall clock, this clock can't be set.

A file that isn't a complete board of this boot and version is never repaired, because other
processes may have it mapped: a starting process replaces it by a new file. The old board is never
live again, so processes that have it mapped don't trust it, and switch to the new one.
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
# Positions of the header's 64-bit words; the slots follow the header.
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_EPOCH, _AT_LIVE_UNTIL, _AT_SIDECAR = range(6)
_HEADER = 8
_SIZE = (_HEADER + SLOTS) * 8
#: How often a process whose board isn't live checks its path for a new one. Unit: ns.
_LOOK_NS = 1_000_000_000

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """The board's clock. Unit: nanoseconds since the machine started, sleep included."""
    return time.clock_gettime_ns(_CLOCK)


#: A value and the position of its word. Unit: bytes.
_SEALED_BYTES = 12


class _Formats(dict[int, tuple[Callable[..., bytes], Callable[[bytes], tuple[int, ...]]]]):
    """By the length of a sealed stamp, the functions that pack its values and that unpack the
    positions, which follow them."""

    def __missing__(self, size: int) -> tuple[Any, Any]:
        count = size // _SEALED_BYTES
        positions = struct.Struct(f"={8 * count}x{count}I")
        self[size] = struct.Struct(f"={count}Q").pack, positions.unpack
        return self[size]


_FORMATS = _Formats()

#: The board's content at one moment for the keys that a value depends on: epoch, then slots.
Stamp: TypeAlias = tuple[int, ...]


class Slots:
    """The slots of some keys, with a function that reads all of them at once."""

    __slots__ = ("_positions", "read")

    def __init__(self, keys: Iterable[str]) -> None:
        self._positions = (_AT_EPOCH, *dict.fromkeys(map(_word_of, keys)))
        # One call into C reads them all; with the epoch there are always two or more.
        self.read: Callable[[memoryview], Stamp] = itemgetter(*self._positions)

    def of_part(self, part: "Slots", stamp: Stamp) -> Stamp:
        """The stamp of some of these slots, taken when `stamp` was. Raises KeyError if `part` has
        a slot that these don't have."""
        value_of = dict(zip(self._positions, stamp, strict=True))
        return tuple(value_of[position] for position in part._positions)

    def sealed(self, stamp: Stamp) -> bytes:
        """The slots and a stamp of them as one string of bytes, from which `Board.vouches` reads
        both: as objects they would take several times the memory."""
        count = len(stamp)
        return struct.pack(f"={count}Q{count}I", *stamp, *self._positions)


class BoardError(Exception):
    """The board file can't be used."""


@dataclass(frozen=True, slots=True)
class _Page:
    """A mapped board and the device and inode of its file; None for a page of this process only."""

    words: memoryview
    file: tuple[int, int] | None


class Board:
    """One replica's board. Any number of processes open a path; one sidecar makes it live."""

    def __init__(self, path: Path, *, or_blank: bool = False) -> None:
        """Opens the board at `path`, creating or replacing the file if necessary.

        Raises BoardError if the folder can't be written or the disk is full. With `or_blank`, this
        process then uses a page of its own, which is never live, until there is a board.
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
            logger.warning("%s; everything is read from the database", why)
            page = _blank()
        self._file, self._words = page.file, page.words

    # --- reading ---

    def stamp(self, slots: Slots) -> Stamp:
        """The current values of slots. To be taken *before* the first read of a load."""
        return slots.read(self._words)

    def unchanged(self, slots: Slots, stamp: Stamp) -> bool:
        """Whether the epoch and the slots are still those of `stamp`."""
        return slots.read(self._words) == stamp

    def vouches(self, sealed: bytes) -> bool:
        """Whether the board is live and slots are `unchanged`: whether a value with this stamp is
        fresh. `sealed` is of `Slots.sealed`."""
        pack, positions = _FORMATS[len(sealed)]
        read = itemgetter(*positions(sealed))
        # The order matters if this thread pauses between the two: the comparison comes last.
        live = now_ns() < self._words[_AT_LIVE_UNTIL] or self.live()
        return live and sealed.startswith(pack(*read(self._words)))

    def live(self) -> bool:
        """Whether every change older than the staleness bound is known to be on the board."""
        now = now_ns()
        if now < self._words[_AT_LIVE_UNTIL]:
            return True
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_NS
        return self.follow() and now < self._words[_AT_LIVE_UNTIL]

    def follow(self) -> bool:
        """Switches to the board that is now at the path. False if it is this one or there is none.

        All earlier stamps are stale then, because no two boards have the same epoch.
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
            # Processes that still have the old board mapped must not trust it any more.
            self.go_live(0)
            self._file, self._words = page.file, page.words
        logger.warning("the board %s was replaced, and the new one is in use", self.path)
        return True

    @property
    def live_until(self) -> int:
        """The moment until which the slots are valid; 0 while no sidecar keeps them valid."""
        return self._words[_AT_LIVE_UNTIL]

    @property
    def file(self) -> tuple[int, int] | None:
        """The device and inode of the mapped file; None for a page of this process only."""
        return self._file

    @property
    def sidecar_pid(self) -> int:
        """The process id of the sidecar that last began to listen for this board; 0 before the
        first."""
        return self._words[_AT_SIDECAR]

    # --- writing ---

    def bump(self, keys: Iterable[str]) -> None:
        """Moves the slots of `keys`: all their earlier stamps are stale from now on."""
        for key in keys:
            self._words[_word_of(key)] = _unseen()

    def bump_epoch(self) -> None:
        """Makes all earlier stamps of this board stale."""
        self._words[_AT_EPOCH] = _unseen()

    def go_live(self, until: int) -> None:
        """Declares the slots valid until a moment. Only a listener calls this with a moment to
        come; `follow` calls it with 0, which ends the old board."""
        self._words[_AT_LIVE_UNTIL] = until

    def set_sidecar(self, pid: int) -> None:
        """Records the process id of the sidecar that listens for this board."""
        self._words[_AT_SIDECAR] = pid


@short_cached(maxsize=4096)
def _word_of(key: str) -> int:
    """The position of a key's slot on the page. Cached for the realms, whose slots every entry
    has."""
    return _HEADER + slot_of(key)


def slot_of(key: str) -> int:
    """The slot of a key: the same in every process and release."""
    # A key from a JSON payload may hold half of a surrogate pair, which UTF-8 can't encode.
    name = key.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=2).digest(), "big")


def _unseen() -> int:
    # From the kernel, because a forked process would repeat the numbers of its parent's generator.
    return secrets.randbits(64)


@cache
def _boot() -> int:
    """A number that identifies this boot of the machine: the clock starts again at each boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = b"one boot"
    return int.from_bytes(hashlib.blake2b(boot, digest_size=8).digest(), "big")


def _made(path: Path) -> _Page:
    """The board at a path; creates it if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The lock keeps two processes from creating a board at the same time.
        fcntl.flock(folder, fcntl.LOCK_EX)
        page = _whole(path)
        if page is None:
            _put(path)
            page = _whole(path)
    finally:
        os.close(folder)
    if page is None:
        raise FileNotFoundError(0, "its file was deleted while it was created")
    return page


def _put(path: Path) -> None:
    header = (_MAGIC, _VERSION, _boot(), _unseen(), 0, 0)
    draft = path.with_name(f".{path.name}.draft")
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        # Space is allocated now: a full disk is an error here, and not a signal at a later store.
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
    """The mapped board at a path; None if there is no complete one of this boot and version."""
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
    """This process's only Board for a path. If the file can't be used, the board is never live."""
    if path not in _boards:
        _boards[path] = Board(path, or_blank=True)
    return _boards[path]

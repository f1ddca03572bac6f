"""The board: a replica's shared page of counters, by which a sidecar tells web workers that the
world moved.

A memory-mapped file of 65,536 64-bit slots, an epoch, and a moment until which the slots may be
believed. A slot is a stable hash of a key: two keys that share one cost a spurious reload, never
a stale byte. Moving a slot writes a random number that was never there before, in one aligned
store. So there is no read-modify-write, no lock, and nothing that a process which is stopped or
killed in the middle could hold on to (docs/decisions/board-without-locks.md).

Moments are nanoseconds of a clock that all processes of a machine share and that goes on while
the machine sleeps: a watermark must run out during a suspension.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, TypeAlias

SLOTS = 65_536
_MAGIC = int.from_bytes(b"RLMBOARD", "little")
_VERSION = 1
# Positions of the header's 64-bit words; the slots follow the header.
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_EPOCH, _AT_LIVE_UNTIL, _AT_SIDECAR = range(6)
_HEADER = 8
_SIZE = (_HEADER + SLOTS) * 8

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """The board's clock. Unit: nanoseconds since the machine started, sleep included."""
    return time.clock_gettime_ns(_CLOCK)


#: What the board said at one moment about the keys that a value depends on: epoch, then slots.
Stamp: TypeAlias = tuple[int, ...]


class Slots:
    """The places on the board of some keys, with a fast way to read all of them at once."""

    __slots__ = ("positions", "read")

    def __init__(self, keys: Iterable[str]) -> None:
        positions = tuple(dict.fromkeys(_HEADER + slot_of(key) for key in keys))
        self.positions = positions
        # One call into C reads them all; with the epoch there are always two or more.
        self.read: Callable[[memoryview], Stamp] = itemgetter(_AT_EPOCH, *positions)


class BoardError(Exception):
    """The board file can't be used."""


class Board:
    """One replica's board. Any number of processes open a path; one sidecar makes it live."""

    def __init__(self, path: Path) -> None:
        """Opens the board at `path`, making or remaking the file as needed.

        Raises BoardError where the folder can't be written or the disk is full.
        """
        self.path = path
        try:
            self._words = _map(path)
        except OSError as error:
            raise BoardError(f"the board {path} can't be used: {error.strerror}") from error

    # --- reading ---

    def stamp(self, slots: Slots) -> Stamp:
        """What the slots hold now. Taken *before* the first read of a load."""
        return slots.read(self._words)

    def unchanged(self, slots: Slots, stamp: Stamp) -> bool:
        """Whether nothing that `stamp` depends on has moved since."""
        return slots.read(self._words) == stamp

    def live(self) -> bool:
        """Whether every change older than the staleness bound is known to be on the board."""
        return now_ns() < self._words[_AT_LIVE_UNTIL]

    @property
    def live_until(self) -> int:
        """The moment up to which the slots may be believed; 0 while no sidecar vouches for them."""
        return self._words[_AT_LIVE_UNTIL]

    @property
    def sidecar_pid(self) -> int:
        """The process id of the sidecar that last went live here; 0 before the first."""
        return self._words[_AT_SIDECAR]

    # --- writing ---

    def bump(self, keys: Iterable[str]) -> None:
        """Moves the slots of `keys`: everything stamped before is stale from here on."""
        for key in keys:
            self._words[_HEADER + slot_of(key)] = _unseen()

    def bump_epoch(self) -> None:
        """Makes everything stale that was ever stamped on this board."""
        self._words[_AT_EPOCH] = _unseen()

    def go_live(self, until: int) -> None:
        """Vouches for the slots until that moment. Only a listener calls this."""
        self._words[_AT_LIVE_UNTIL] = until

    def set_sidecar(self, pid: int) -> None:
        """Says which process vouches for this board."""
        self._words[_AT_SIDECAR] = pid


@lru_cache(maxsize=1 << 16)
def slot_of(key: str) -> int:
    """The slot of a key: the same in every process and release."""
    # JSON can spell half a character, which has no UTF-8; whatever a payload names has a slot.
    name = key.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=2).digest(), "big")


def _unseen() -> int:
    # From the kernel, since a forked process repeats what its parent's generator would say.
    return secrets.randbits(64)


@cache
def _boot() -> int:
    """A number of this boot of the machine: the clock starts again at the next one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = b"one boot"
    return int.from_bytes(hashlib.blake2b(boot, digest_size=8).digest(), "big")


def _map(path: Path) -> memoryview:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        # Two processes that both find no board must not both write a first page.
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            return _whole_page(file)
        finally:
            # A mapping keeps the file open, and with it the lock.
            fcntl.flock(file, fcntl.LOCK_UN)


def _whole_page(file: BinaryIO) -> memoryview:
    wanted = struct.pack("=3Q", _MAGIC, _VERSION, _boot())
    whole = os.fstat(file.fileno()).st_size == _SIZE and file.read(len(wanted)) == wanted
    if not whole:
        # Space is claimed now: a full disk is an error here, and not a signal at a later store.
        os.posix_fallocate(file.fileno(), 0, _SIZE)
        os.ftruncate(file.fileno(), _SIZE)
    words = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")
    if not whole:
        words[_AT_LIVE_UNTIL] = 0
        words[_AT_SIDECAR] = 0
        words[_AT_EPOCH] = _unseen()
        words[_AT_BOOT], words[_AT_VERSION], words[_AT_MAGIC] = _boot(), _VERSION, _MAGIC
    return words


_boards: dict[Path, Board] = {}


def board_at(path: Path) -> Board:
    """This process's one Board for a path."""
    if path not in _boards:
        _boards[path] = Board(path)
    return _boards[path]

"""The board: a replica's shared page of counters, by which a sidecar tells web workers that the
world moved.

A memory-mapped file of 65,536 64-bit slots, an epoch, and a moment until which the slots may be
believed. A slot is a stable hash of a key: two keys that share one cost a spurious reload, never
a stale byte. Moving a slot writes a random number that was never there before, in one aligned
store. So there is no read-modify-write, no lock, and nothing that a process which is stopped or
killed in the middle could hold on to (docs/decisions/board-without-locks.md).

Moments are nanoseconds of a clock that all processes of a machine share and that goes on while
the machine sleeps: a watermark must run out during a suspension. No one can set it, so it knows
nothing of the steps of the wall clock.

A file that is no whole board of this boot and version is never mended, since others may have it
mapped: a starting process puts a new one in its place. Whoever has the old one mapped is not lied
to, for nobody vouches for that one any longer, and moves over to the new one by itself.
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
from typing import TypeAlias

from notifications.short_cached import short_cached

logger = logging.getLogger(__name__)

SLOTS = 65_536
_MAGIC = int.from_bytes(b"RLMBOARD", "little")
_VERSION = 1
# Positions of the header's 64-bit words; the slots follow the header.
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_EPOCH, _AT_LIVE_UNTIL, _AT_SIDECAR = range(6)
_HEADER = 8
_SIZE = (_HEADER + SLOTS) * 8
#: How often a process whose board isn't live looks for another one at its path. Unit: ns.
_LOOK_NS = 1_000_000_000

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


@dataclass(frozen=True, slots=True)
class _Page:
    """A mapped board, and the file that it is of; None for a page of this process only."""

    words: memoryview
    file: tuple[int, int] | None


class Board:
    """One replica's board. Any number of processes open a path; one sidecar makes it live."""

    def __init__(self, path: Path, *, or_blank: bool = False) -> None:
        """Opens the board at `path`, making or replacing the file as needed.

        Raises BoardError where the folder can't be written or the disk is full; with `or_blank`
        this process has a page of its own then, which is never live, until there is a board.
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
        """What the slots hold now. Taken *before* the first read of a load."""
        return slots.read(self._words)

    def unchanged(self, slots: Slots, stamp: Stamp) -> bool:
        """Whether nothing that `stamp` depends on has moved since."""
        return slots.read(self._words) == stamp

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
        """Moves over to the board that stands at the path now; False if it is this one, or none.

        Everything stamped before is stale then: an epoch is a number that no other board has had.
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
            # Whoever has only the old one learns at once that nobody vouches for it.
            self.go_live(0)
            self._file, self._words = page.file, page.words
        logger.warning("the board %s was replaced, and the new one is in use", self.path)
        return True

    @property
    def live_until(self) -> int:
        """The moment up to which the slots may be believed; 0 while no sidecar vouches for them."""
        return self._words[_AT_LIVE_UNTIL]

    @property
    def file(self) -> tuple[int, int] | None:
        """Which file is mapped; None while this process has only a page of its own."""
        return self._file

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


@short_cached(maxsize=1 << 16)
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


def _made(path: Path) -> _Page:
    """The whole board at a path, which is put there if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Two processes that both find no board must not both put one there.
        fcntl.flock(folder, fcntl.LOCK_EX)
        page = _whole(path)
        if page is None:
            _put(path)
            page = _whole(path)
    finally:
        os.close(folder)
    if page is None:
        raise FileNotFoundError(0, "it was taken away as it was made")
    return page


def _put(path: Path) -> None:
    header = (_MAGIC, _VERSION, _boot(), _unseen(), 0, 0)
    draft = path.with_name(f".{path.name}.draft")
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        # Space is claimed now: a full disk is an error here, and not a signal at a later store.
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
    """The board at a path, mapped; None where there is none of this boot and version."""
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
    """This process's one Board for a path. Where there can be no board, it is never live."""
    if path not in _boards:
        _boards[path] = Board(path, or_blank=True)
    return _boards[path]

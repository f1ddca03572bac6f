"""Tests which processes see each other's changes on the board, how long the board is live, and how
an invalid board file is replaced.

The board is a file of numbered slots, which tells the processes of a replica whether cached data is
fresh. A key stands for something that can change, such as a realm, and has one slot. A bump of a
key overwrites the key's slot with a new number. A stamp holds the values of some slots and of the
board's epoch at one time. The stamp is stale as soon as one of these values has changed. While the
board isn't live, no process trusts its caches.
"""

import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from notifications.board import SLOTS, Board, BoardError, Slots, board_at, now_ns, slot_of
from settings.environment import BASE_DIR

MINUTE = 60_000_000_000
WORD = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "board"


@pytest.fixture
def board(path: Path) -> Board:
    return Board(path)


def in_another_process(path: Path, code: str) -> str:
    """Runs code on the board at `path` in a second process, and returns its output."""
    prelude = "import os, sys; from pathlib import Path; from notifications.board import *; "
    ran = subprocess.run(
        [sys.executable, "-c", f"{prelude}board = Board(Path(sys.argv[1]))\n{code}", str(path)],
        cwd=BASE_DIR,
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return ran.stdout


# --- Stamps ------------------------------------------------------------------------------------


def test_a_bump_makes_the_stamps_of_its_key_stale_and_no_others(board: Board) -> None:
    a, b, both = Slots(["a"]), Slots(["b"]), Slots(["a", "b"])
    stamps = {slots: board.stamp(slots) for slots in (a, b, both)}
    board.bump(["a"])
    assert not board.unchanged(a, stamps[a])
    assert not board.unchanged(both, stamps[both])
    assert board.unchanged(b, stamps[b])


def test_a_bump_moves_any_number_of_keys(board: Board) -> None:
    each = [Slots([key]) for key in "abc"]
    stamps = [board.stamp(slots) for slots in each]
    board.bump([])
    assert all(map(board.unchanged, each, stamps))
    board.bump("abc")
    assert not any(map(board.unchanged, each, stamps))


def test_a_new_epoch_makes_every_stamp_stale(board: Board) -> None:
    every = [Slots([f"key {n}"]) for n in range(100)]
    stamps = [board.stamp(slots) for slots in every]
    board.bump_epoch()
    assert not any(map(board.unchanged, every, stamps))


def test_a_stamp_stays_stale_however_often_its_key_moves(board: Board) -> None:
    slots = Slots(["a"])
    stamps = [board.stamp(slots)]
    for _ in range(1_000):
        board.bump(["a"])
        stamps.append(board.stamp(slots))
    assert len(set(stamps)) == len(stamps)


def test_a_key_that_is_named_twice_counts_once(board: Board) -> None:
    assert board.stamp(Slots(["a", "a"])) == board.stamp(Slots(["a"]))


def test_keys_have_the_same_slot_in_every_process_and_release() -> None:
    assert slot_of("registry") == 21_214
    assert slot_of("realm|http://localhost:4201/luke/my-realm/") == 58_684
    assert all(0 <= slot_of(f"key {n}") < SLOTS for n in range(1_000))


# --- Sharing -----------------------------------------------------------------------------------


def test_two_boards_on_one_file_see_each_others_bumps(board: Board, path: Path) -> None:
    other, slots = Board(path), Slots(["a"])
    assert other.stamp(slots) == board.stamp(slots)
    for mover, watcher in ((board, other), (other, board)):
        stamp = watcher.stamp(slots)
        mover.bump(["a"])
        assert not watcher.unchanged(slots, stamp)


def test_two_processes_see_each_others_bumps(board: Board, path: Path) -> None:
    a, b = Slots(["a"]), Slots(["b"])
    board.bump(["a"])
    board.go_live(now_ns() + MINUTE)
    before = board.stamp(a), board.stamp(b)
    seen = in_another_process(
        path, "print(board.stamp(Slots(['a'])), board.live()); board.bump(['b'])"
    )
    assert seen == f"{before[0]} True\n"
    assert board.unchanged(a, before[0])
    assert not board.unchanged(b, before[1])


def test_a_parent_and_its_forked_child_never_write_the_same_value(path: Path) -> None:
    """If parent and child shared a random generator's state, both would write equal values, and a
    stale stamp would look current."""
    values = in_another_process(
        path,
        """if True:
        board.bump(["warm", "up"])
        slots, out = Slots(["a"]), os.dup(1)
        if child := os.fork():
            os.waitpid(child, 0)
        for _ in range(500):
            board.bump(["a"])
            os.write(out, f"{board.stamp(slots)[1]}\\n".encode())
        if not child:
            os._exit(0)
        """,
    ).split()
    assert len(values) == 1_000
    assert len(set(values)) == 1_000


def test_a_process_opens_each_board_path_once(path: Path) -> None:
    assert board_at(path) is board_at(path)


def test_a_mapped_board_holds_no_lock_on_its_file(board: Board, path: Path) -> None:
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    board.bump(["a"])


# --- Liveness ----------------------------------------------------------------------------------


def test_a_new_board_is_not_live(board: Board) -> None:
    assert not board.live()
    assert board.live_until == 0
    assert board.sidecar_pid == 0


def test_a_board_is_live_until_the_moment_given_to_go_live(board: Board) -> None:
    board.go_live(now_ns() + MINUTE)
    assert board.live()
    board.go_live(now_ns())
    assert not board.live()
    board.go_live(now_ns() + MINUTE)
    board.go_live(0)
    assert not board.live()


def test_a_board_says_which_process_vouches_for_it(board: Board, path: Path) -> None:
    board.set_sidecar(os.getpid())
    assert Board(path).sidecar_pid == os.getpid()


# --- Files that are not a valid board ----------------------------------------------------------


def _other_word(position: int) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        at = position * WORD
        (word,) = struct.unpack_from("=Q", content, at)
        return content[:at] + struct.pack("=Q", word ^ 1) + content[at + WORD :]

    return changed


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content + b"more", id="too long"),
        pytest.param(lambda content: b"garbage!" * (len(content) // 8), id="garbage"),
        pytest.param(_other_word(0), id="of another program"),
        pytest.param(_other_word(1), id="of another version"),
        pytest.param(_other_word(2), id="of an earlier boot"),
    ],
)
def test_an_invalid_or_older_board_file_is_replaced(
    path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    first, slots = Board(path), Slots(["a"])
    first.go_live(now_ns() + MINUTE)
    first.set_sidecar(4711)
    stamp, whole = first.stamp(slots), path.read_bytes()
    spoiled = spoil(whole)
    path.unlink()
    path.write_bytes(spoiled)

    remade = Board(path)
    assert path.stat().st_size == len(whole)
    assert not remade.live()
    assert remade.live_until == 0
    assert remade.sidecar_pid == 0
    assert not remade.unchanged(slots, stamp)
    again = Board(path)
    assert again.unchanged(slots, remade.stamp(slots))


def test_a_valid_board_file_is_opened_unchanged(board: Board, path: Path) -> None:
    slots = Slots(["a"])
    board.bump(["a"])
    board.go_live(now_ns() + MINUTE)
    again = Board(path)
    assert again.live()
    assert again.unchanged(slots, board.stamp(slots))


def test_a_board_whose_folder_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BoardError, match=r"the board .*file/board can't be used: "):
        Board(tmp_path / "file" / "board")


def test_a_board_path_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="Is a directory"):
        Board(tmp_path)


def test_a_new_board_allocates_all_its_disk_space(board: Board, path: Path) -> None:
    """If the board file had unallocated parts, a write to the board on a full disk would cause a
    SIGBUS."""
    made = path.stat()
    assert made.st_blocks * 512 >= made.st_size


def test_a_board_file_that_cannot_grow_is_an_error(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    try:
        with pytest.raises(BoardError, match="can't be used: File too large"):
            Board(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)

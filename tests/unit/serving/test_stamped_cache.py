"""Tests which values a `StampedCache` returns, treats as stale, and evicts when it is full.

The cache stores each value with a stamp: the numbers that some slots of the board had before the
value was loaded. The board is a file that the processes of a replica share. A change of data moves
slots, which means that they get new numbers. The cache returns a value only while the board is live
and the value's slots have not moved.
"""

import tracemalloc
from pathlib import Path

import pytest

from notifications.board import Board, Slots, now_ns
from notifications.stamped_cache import StampedCache
from tests.support.gates import PATIENCE, Gate, in_thread

MINUTE = 60_000_000_000
SLOTS = Slots(["a"])
OTHER = Slots(["b"])
LETTER = 100_000


@pytest.fixture
def board(tmp_path: Path) -> Board:
    board = Board(tmp_path / "board")
    board.go_live(now_ns() + MINUTE)
    return board


@pytest.fixture
def cache(board: Board) -> StampedCache[str]:
    """Returns a cache with room for 100 letters. Each letter counts as so many bytes that the sizes
    of keys and slots hardly matter."""
    return StampedCache(
        board, max_bytes=100 * LETTER + LETTER // 2, size_of=lambda text: len(text) * LETTER,
        bound_ns=MINUTE,
    )  # fmt: skip


# --- Hits and misses ---------------------------------------------------------------------------


def test_a_loaded_value_is_a_hit(cache: StampedCache[str]) -> None:
    assert cache.get("key") is None
    assert cache.load("key", SLOTS, lambda: "value") == "value"
    assert cache.get("key") == "value"
    assert cache.get("another key") is None


def test_a_value_whose_key_moved_is_a_miss_and_others_are_hits(
    board: Board, cache: StampedCache[str]
) -> None:
    cache.load("key", SLOTS, lambda: "value")
    cache.load("other", OTHER, lambda: "other value")
    board.bump(["a"])
    assert cache.get("key") is None
    assert cache.get("other") == "other value"


def test_a_new_epoch_makes_everything_a_miss(board: Board, cache: StampedCache[str]) -> None:
    cache.load("key", SLOTS, lambda: "value")
    cache.load("other", OTHER, lambda: "other value")
    board.bump_epoch()
    assert cache.get("key") is None
    assert cache.get("other") is None


def test_nothing_is_a_hit_while_the_board_is_not_live(
    board: Board, cache: StampedCache[str]
) -> None:
    cache.load("key", SLOTS, lambda: "value")
    board.go_live(now_ns())
    assert cache.get("key") is None
    board.go_live(now_ns() + MINUTE)
    assert cache.get("key") == "value", "no slot has moved meanwhile"


def test_a_stale_value_can_be_peeked_at_and_replaced(
    board: Board, cache: StampedCache[str]
) -> None:
    assert cache.peek("key") is None
    cache.load("key", SLOTS, lambda: "value")
    board.bump(["a"])
    assert cache.peek("key") == "value"
    assert cache.load("key", SLOTS, lambda: "newer value") == "newer value"
    assert cache.get("key") == cache.peek("key") == "newer value"
    assert len(cache) == 1


def test_a_failed_load_leaves_no_entry(cache: StampedCache[str]) -> None:
    """After a load fails, the next caller loads the value again."""
    with pytest.raises(ZeroDivisionError):
        cache.load("key", SLOTS, lambda: str(1 // 0))
    assert cache.get("key") is None
    assert len(cache) == 0


# --- No resurrection (P4) ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["key", "epoch"])
def test_a_value_that_changed_during_its_load_is_stale(
    board: Board, cache: StampedCache[str], how: str
) -> None:
    gate = Gate()
    loading = in_thread(cache.load, "key", SLOTS, gate.after(lambda: "old value"))
    gate.wait_for_arrival()
    if how == "key":
        board.bump(["a"])
    else:
        board.bump_epoch()
    gate.open()
    assert loading.result(PATIENCE) == "old value", "this caller asked before the change"
    assert cache.get("key") is None
    assert cache.load("key", SLOTS, lambda: "new value") == "new value"
    assert cache.get("key") == "new value"


def test_a_value_is_fresh_if_only_another_key_moved_during_its_load(
    board: Board, cache: StampedCache[str]
) -> None:
    gate = Gate()
    loading = in_thread(cache.load, "key", SLOTS, gate.after(lambda: "value"))
    gate.wait_for_arrival()
    board.bump(["b"])
    gate.open()
    loading.result(PATIENCE)
    assert cache.get("key") == "value"


def test_a_stale_load_that_ends_last_does_not_bring_its_value_back(
    board: Board, cache: StampedCache[str]
) -> None:
    """The load of the old value ends after the load of the new value. Even so, the cache never
    returns the old value."""
    gate = Gate()
    slow = in_thread(cache.load, "key", SLOTS, gate.after(lambda: "old value"))
    gate.wait_for_arrival()
    board.bump(["a"])
    assert cache.load("key", SLOTS, lambda: "new value") == "new value"
    gate.open()
    assert slow.result(PATIENCE) == "old value"
    assert cache.get("key") in (None, "new value")


# --- Eviction ----------------------------------------------------------------------------------


def test_a_new_value_is_kept_even_if_all_others_had_hits(cache: StampedCache[str]) -> None:
    """A client that keeps requesting its own values must not prevent the caching of other
    values."""
    for number in range(10):
        cache.load(number, SLOTS, lambda: "x" * 10)
    for number in range(50):
        for old in range(10):
            cache.get(old)
        cache.load(f"new {number}", SLOTS, lambda: "x" * 10)
        assert cache.get(f"new {number}") is not None


def test_a_value_that_grows_evicts_others(
    board: Board,
) -> None:
    grown: dict[str, int] = {}
    cache: StampedCache[str] = StampedCache(
        board, max_bytes=100 * LETTER + LETTER // 2, bound_ns=MINUTE,
        size_of=lambda text: grown.get(text, 10 * LETTER),
    )  # fmt: skip
    for text in "abcdefghij":
        cache.load(text, SLOTS, lambda text=text: text)  # type: ignore[misc]
    grown["j"] = 25 * LETTER
    cache.weigh("j")
    assert cache.size <= 100 * LETTER + LETTER // 2
    assert [text for text in "abcdefghij" if cache.peek(text)] == list("cdefghij")
    grown["j"] = 26 * LETTER
    cache.weigh("j")
    assert cache.peek("j") is None, "it is larger than a quarter of the cache"
    cache.weigh("nothing")


def test_a_full_cache_evicts_the_least_recently_used_value(
    board: Board, cache: StampedCache[str]
) -> None:
    for key in "abcd":
        cache.put(key, key * 25, SLOTS, board.stamp(SLOTS))
    assert len(cache) == 4
    assert cache.get("a") == "a" * 25
    cache.load("e", SLOTS, lambda: "e")
    assert cache.get("b") is None
    assert [cache.get(key) is not None for key in "acde"] == [True] * 4


def test_a_large_value_evicts_as_many_values_as_needed(
    cache: StampedCache[str],
) -> None:
    for key in "abcdefghij":
        cache.load(key, SLOTS, lambda: "x" * 10)
    cache.load("large", SLOTS, lambda: "y" * 25)
    assert [key for key in "abcdefghij" if cache.peek(key)] == list("defghij")
    assert cache.get("large") is not None


def test_a_replaced_value_gives_back_its_room(cache: StampedCache[str]) -> None:
    cache.load("kept", SLOTS, lambda: "k")
    for _ in range(50):
        cache.load("key", SLOTS, lambda: "x" * 25)
    assert cache.get("kept") == "k"
    assert len(cache) == 2


def test_a_value_above_a_quarter_of_the_cache_is_not_kept(
    cache: StampedCache[str],
) -> None:
    assert cache.load("key", SLOTS, lambda: "x" * 26) == "x" * 26
    assert cache.get("key") is None
    assert len(cache) == 0


def test_a_replacement_that_is_too_large_removes_the_old_value(
    board: Board, cache: StampedCache[str]
) -> None:
    cache.load("key", SLOTS, lambda: "small")
    cache.load("key", SLOTS, lambda: "x" * 26)
    assert cache.get("key") is None
    assert cache.peek("key") is None


@pytest.mark.parametrize(
    ("length", "slots"), [(1000, 1), (50_000, 1), (1, 490), (900, 490), (1, 5000)]
)
@pytest.mark.parametrize("of_two", [False, True])
def test_large_keys_and_many_slots_count_towards_the_size(
    board: Board, length: int, slots: int, of_two: bool
) -> None:
    cache: StampedCache[str] = StampedCache(
        board, max_bytes=4_000_000, size_of=len, bound_ns=MINUTE
    )
    keys = [str(slot) for slot in range(slots)]
    board.bump(keys)
    tracemalloc.start()
    try:
        for number in range(8_000_000 // (length + slots * 100)):
            key = f"{number:0{length}}"
            depends = Slots(keys)
            cache.put((key, "x") if of_two else key, "small", depends, board.stamp(depends))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) > 1
    assert held < 4_500_000


def test_values_that_are_replaced_repeatedly_leak_no_memory(board: Board) -> None:
    cache: StampedCache[str] = StampedCache(
        board, max_bytes=4_000_000, size_of=len, bound_ns=MINUTE
    )
    for number in range(1000):
        cache.put(number, "value", SLOTS, board.stamp(SLOTS))
    tracemalloc.start()
    try:
        for _ in range(20):
            for number in range(1000):
                cache.put(number, "value", SLOTS, board.stamp(SLOTS))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) == 1000
    assert held < 1.05 * cache.size


class Common:
    size = 1000


def test_a_shared_part_counts_once_until_the_last_value_leaves(board: Board) -> None:
    common, another = Common(), Common()
    shared = {"a": common, "b": common, "c": another}
    cache: StampedCache[str] = StampedCache(
        board, max_bytes=4_000_000, size_of=len, bound_ns=MINUTE, shared_by=shared.get
    )
    sizes = []
    for key in "abc":
        cache.put(key, key, SLOTS, board.stamp(SLOTS))
        sizes.append(cache.size)
    alone = sizes[1] - sizes[0]
    assert sizes == [1000 + alone, 1000 + 2 * alone, 2000 + 3 * alone]
    for key, size in (("a", 2000 + 2 * alone), ("b", 1000 + alone), ("c", 0)):
        cache.drop(key)
        assert cache.size == size


# --- Narrowed dependencies ---------------------------------------------------------------------


def test_a_value_is_stale_only_if_a_narrowed_dependency_moves(
    board: Board, cache: StampedCache[str]
) -> None:
    both = Slots(["a", "b"])
    cache.load("key", both, lambda: "value", lambda _: OTHER)
    board.bump(["a"])
    assert cache.get("key") == "value"
    board.bump(["b"])
    assert cache.get("key") is None


def test_a_narrowed_dependency_that_moves_during_the_load_makes_it_stale(
    board: Board, cache: StampedCache[str]
) -> None:
    def load() -> str:
        board.bump(["b"])
        return "old value"

    cache.load("key", Slots(["a", "b"]), load, lambda _: OTHER)
    assert cache.get("key") is None


def test_a_dependency_that_was_not_declared_before_the_load_is_an_error(
    cache: StampedCache[str],
) -> None:
    with pytest.raises(KeyError):
        cache.load("key", SLOTS, lambda: "value", lambda _: OTHER)
    assert cache.get("key") is None

"""Tests what a web worker process counts, the file to which it writes its counts, and the sums of
all workers' counts. The sidecar, a process beside the web workers, reports these sums."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifications.board import Board, Slots, now_ns
from notifications.stamped_cache import StampedCache
from realms.figures import files
from realms.figures.build import build
from realms.figures.counting import Counts, added
from realms.figures.files import Totals, WorkerFile, folder_of
from realms.front import Front
from realms.http.replies import Reply
from realms.web import asgi

MINUTE = 60_000_000_000
NO_GAUGES: dict[str, Any] = {"entries": 0, "bytes": 0}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "board"


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advances the clock by `seconds`. By this clock, a worker's file becomes out of date."""
    monkeypatch.setattr(files, "now_ns", lambda: now_ns() + int(seconds * 1e9))


# --- Counting ----------------------------------------------------------------------------------


def test_a_read_that_finds_no_live_board_is_a_bypass() -> None:
    counts = Counts()
    counts.read("hit", live=True)
    counts.read("miss", live=True)
    counts.read("miss", live=False)
    counts.read("miss", live=False)
    assert (counts.hits, counts.misses, counts.bypasses) == (1, 1, 2)


def test_a_request_is_counted_in_the_bucket_of_its_duration() -> None:
    counts = Counts()
    for seconds in (0.001, 0.0011, 0.3, 60):
        counts.slow_request(seconds)
    buckets = counts.figures()["request_buckets"]
    assert isinstance(buckets, dict)
    filled = {bound: count for bound, count in buckets.items() if count}
    assert filled == {"0.001": 1, "0.005": 1, "0.5": 1, "+Inf": 1}
    assert counts.figures()["request_seconds"] == pytest.approx(60.3021)


def test_a_value_that_changed_during_its_load_counts_as_stale_discard(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    board.go_live(now_ns() + MINUTE)
    cache: StampedCache[str] = StampedCache(board, max_bytes=10**6, size_of=len, bound_ns=MINUTE)
    slots = Slots(["a"])
    cache.load("key", slots, lambda: "value")
    assert (cache.stale_discards, len(cache)) == (0, 1)
    assert cache.size > len("value")

    def overtaken() -> str:
        board.bump(["a"])
        return "value"

    cache.load("other", slots, overtaken)
    assert cache.stale_discards == 1


def test_figures_of_two_releases_with_different_counters_are_added() -> None:
    old = {"hits": 3, "request_buckets": {"0.1": 2.0}}
    new = {"hits": 4, "misses": 1, "request_buckets": {"0.1": 1.0, "0.5": 5.0}}
    both = {"hits": 7, "misses": 1, "request_buckets": {"0.1": 3.0, "0.5": 5.0}}
    assert added(old, new) == both  # type: ignore[arg-type]
    assert added(both, old, -1) == new  # type: ignore[arg-type]


def test_the_build_string_names_the_version_and_the_renderer() -> None:
    version, plus, renderer = build().partition("+")
    assert version.count(".") == 2
    assert (plus, len(renderer)) == ("+", 8)


# --- Files -------------------------------------------------------------------------------------


def test_the_sum_has_the_figures_of_all_web_workers(board: Path) -> None:
    totals = Totals(board)
    totals.read()
    WorkerFile(board, "1").write({"hits": 3}, {"entries": 2, "bytes": 10})
    WorkerFile(board, "2").write({"hits": 4, "new": 1}, {"entries": 1, "bytes": 5})
    assert totals.read() == {
        "hits": 7, "new": 1, "entries": 3, "bytes": 15, "web_workers": 2, "web_builds": ["1", "2"],
    }  # fmt: skip


def test_counters_start_at_the_first_reading(board: Path) -> None:
    """The sidecar reports the sums of the files. After a restart, it must not report again what it
    has reported before the restart."""
    worker = WorkerFile(board, "")
    worker.write({"hits": 100}, NO_GAUGES)
    totals = Totals(board)
    assert totals.read()["hits"] == 0
    worker.write({"hits": 103}, NO_GAUGES)
    assert totals.read()["hits"] == 3


def test_a_process_that_ends_keeps_its_counters_in_the_sum(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = Totals(board)
    totals.read()
    killed, other = WorkerFile(board, ""), WorkerFile(board, "")
    killed.write({"hits": 5}, {"entries": 9, "bytes": 9})
    assert totals.read()["web_workers"] == 1
    later(monkeypatch, 6)
    other.write({"hits": 1}, NO_GAUGES)
    told = totals.read()
    assert (told["hits"], told["web_workers"], told["entries"]) == (6, 1, 0)
    assert killed.path.exists()
    later(monkeypatch, 61)
    assert (totals.read()["hits"], killed.path.exists()) == (6, False)
    assert totals.read()["hits"] == 6


def test_a_process_that_was_only_stopped_is_not_counted_twice(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = Totals(board)
    totals.read()
    worker = WorkerFile(board, "")
    worker.write({"hits": 5}, NO_GAUGES)
    later(monkeypatch, 61)
    assert totals.read()["hits"] == 5
    worker.write({"hits": 6}, NO_GAUGES)
    assert totals.read()["hits"] == 6


def test_a_process_with_a_reused_id_has_a_file_of_its_own(board: Path) -> None:
    totals = Totals(board)
    totals.read()
    WorkerFile(board, "").write({"hits": 5}, NO_GAUGES)
    assert totals.read()["hits"] == 5
    again = WorkerFile(board, "")
    again.write({"hits": 1}, NO_GAUGES)
    assert again.path.name.startswith(f"{os.getpid()}-")
    assert totals.read()["hits"] == 6


def test_beyond_a_limit_counters_of_ended_processes_are_merged(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ENDED", 3)
    totals = Totals(board)
    totals.read()
    for count in range(1, 7):
        worker = WorkerFile(board, "")
        worker.write({"hits": 10}, NO_GAUGES)
        assert totals.read()["hits"] == 10 * count
        worker.path.unlink()
    assert totals.read()["hits"] == 60


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"written": 0}', '"\ud800"', '{"counters": 1}',
             '{"written": "x", "counters": {}, "gauges": {}}',
             '{"written": 1e999, "counters": {}, "gauges": {}}',
             '{"written": 1, "counters": 3, "gauges": {}}',
             '{"written": 1, "counters": {"hits": NaN}, "gauges": {}}',
             '{"written": 1, "counters": {"hits": "many"}, "gauges": {}}'],
)  # fmt: skip
def test_a_file_with_invalid_content_is_skipped_and_later_removed(
    board: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = Totals(board)
    totals.read()
    WorkerFile(board, "").write({"hits": 2}, NO_GAUGES)
    wrong = folder_of(board) / "1-a.json"
    wrong.write_bytes(text.encode(errors="surrogatepass"))
    assert totals.read()["hits"] == 2
    os.utime(wrong, (time.time() - 61, time.time() - 61))
    assert totals.read()["hits"] == 2
    assert not wrong.exists()


def test_a_file_of_an_earlier_boot_is_removed(board: Path) -> None:
    totals = Totals(board)
    totals.read()
    worker = WorkerFile(board, "")
    worker.write({"hits": 2}, NO_GAUGES)
    told = json.loads(worker.path.read_text())
    worker.path.write_text(json.dumps({**told, "written": now_ns() + MINUTE}))
    assert totals.read()["web_workers"] == 0
    assert not worker.path.exists()


def test_an_old_draft_file_of_a_killed_process_is_removed(board: Path) -> None:
    WorkerFile(board, "").write({}, NO_GAUGES)
    draft = folder_of(board) / "1-a.draft"
    draft.touch()
    totals = Totals(board)
    totals.read()
    assert draft.exists()
    os.utime(draft, (time.time() - 61, time.time() - 61))
    totals.read()
    assert not draft.exists()


def test_a_missing_folder_is_made_again(board: Path) -> None:
    worker = WorkerFile(board, "")
    assert worker.write({}, NO_GAUGES)
    worker.path.unlink()
    worker.path.parent.rmdir()
    assert Totals(board).read()["web_workers"] == 0
    assert worker.write({}, NO_GAUGES)
    assert Totals(board).read()["web_workers"] == 1


def test_a_process_that_cannot_write_its_file_logs_one_warning(
    board: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(board)
    folder.write_text("no folder")
    worker = WorkerFile(board, "")
    with caplog.at_level(logging.WARNING):
        assert [worker.write({}, NO_GAUGES) for _ in range(3)] == [False] * 3
        assert caplog.text.count("can't be written") == 1
        assert Totals(board).read()["web_workers"] == 0
        folder.unlink()
        assert worker.write({}, NO_GAUGES)


def test_a_full_disk_leaves_the_last_file_whole(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = WorkerFile(board, "")
    worker.write({"hits": 1}, NO_GAUGES)

    def full(self: Path, text: str) -> None:
        self.write_bytes(text[:5].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert not worker.write({"hits": 2}, NO_GAUGES)
    assert json.loads(worker.path.read_text())["counters"] == {"hits": 1}
    assert [path.name for path in folder_of(board).iterdir()] == [worker.path.name]


# --- In the event loop -------------------------------------------------------------------------


def ask(server: asgi.RealmServer, method: str, path: str) -> int:
    """Sends a request without a body, and returns the status of the answer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "raw_path": path.encode(), "query_string": b"",
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 1), "scheme": "http",
        "http_version": "1.1", "headers": [(b"host", b"localhost:4201")],
    }  # fmt: skip
    asyncio.run(server(scope, receive, send))
    return int(sent[0]["status"])


def test_a_request_is_timed_unless_the_event_loop_answers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counts()
    monkeypatch.setattr(asgi, "counts", counted)

    def behind(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        return [b"made"]

    front = Front(behind)
    monkeypatch.setattr(
        front,
        "reply",
        lambda method, path, *_: Reply(200, [], b"hit") if path == "/hit" else None,
    )
    server = asgi.RealmServer(front)
    assert ask(server, "GET", "/hit") == 200
    assert (counted.requests, sum(counted.buckets)) == (1, 0)
    assert ask(server, "GET", "/made") == 200
    assert (counted.requests, sum(counted.buckets)) == (2, 1)
    assert counted.request_seconds > 0

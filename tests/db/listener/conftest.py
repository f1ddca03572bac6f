"""Fixtures: a listener that pings more often than in production, and connections and a board that
log what the listener does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from notifications import listener as listener_module
from notifications.listener import Listener
from tests.support.listening.overheard import BOUND_SECONDS, Lines, WatchedBoard, running, wait_live


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes listeners ping the database five times as often as in production."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def board(tmp_path: Path, lines: Lines) -> WatchedBoard:
    board = WatchedBoard(tmp_path / "board")
    board.log = lines.log
    return board


@pytest.fixture
def listener(board: WatchedBoard, lines: Lines) -> Listener:
    return Listener("a", board, lines, BOUND_SECONDS)


@pytest.fixture
def live(listener: Listener) -> Iterator[Listener]:
    with running(listener):
        wait_live(listener)
        yield listener

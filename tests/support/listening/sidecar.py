"""Runs a sidecar's listener in a thread of the test's own process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from notifications.board import Board, now_ns
from notifications.listener import Listener
from tests.support.gates import PATIENCE, in_thread


@contextmanager
def listening(board: Board, connect: Callable[[], Any], **more: Any) -> Iterator[Listener]:
    """Runs a sidecar's listener in a thread, and waits until its board is live."""
    # The staleness bound is 10 s, so that the board doesn't expire on a busy machine.
    listener = Listener("a", board, connect, 10.0, **more)
    ending = in_thread(listener.run)
    try:
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        yield listener
    finally:
        listener.stop()
        ending.result(PATIENCE)

"""Runs a listener in a thread of the test's own process. In production, the sidecar of each replica
runs the listener. The listener receives notifications of changes from Postgres, and keeps the
replica's board, a file that says which cached values are stale."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from notifications.board import Board, now_ns
from notifications.listener import Listener
from tests.support.gates import PATIENCE, in_thread


@contextmanager
def listening(board: Board, connect: Callable[[], Any], **more: Any) -> Iterator[Listener]:
    """Runs a listener until the end of the block. First waits until the board is live, which means
    that cached values may be used."""
    # 10.0 is the staleness bound: the board stays live for 10 s after a ping that came back was
    # sent. With this large value, the board stays live even if a busy machine delays pings.
    listener = Listener("a", board, connect, 10.0, **more)
    ending = in_thread(listener.run)
    try:
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        yield listener
    finally:
        listener.stop()
        ending.result(PATIENCE)

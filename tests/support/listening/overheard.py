"""Provides connections and a board for a listener, and a log of what the listener does with them.

A listener receives notifications from Postgres, and moves slots of the board. The board is a file
of numbers, the slots. A slot that moves gets another number, and the cached values that depend on
the slot are stale. The listener also sends pings, notifications to itself. While pings come back in
time, it keeps the board live, which means that cached values may be used. A test can delay the
opening of a connection, and can suppress pings.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection as django_connection

from notifications.board import Board, Slots, now_ns
from notifications.channels import REALM_INDEX_SWAPPED
from notifications.listener import Listener
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate, in_thread
from tests.support.listening.hearing import connect, notify

BOUND_SECONDS = 1.0
#: The realm in the notification that `wait_applied` sends. When the listener has moved the slot of
#: this realm's index, it has already moved the slots of all earlier notifications.
MARK = "http://localhost:4201/mark/"
MARK_SLOTS = Slots([f"index|{MARK}"])


class Line(psycopg.Connection[tuple[object, ...]]):
    """A listener's connection, which logs each statement. It logs a ping as `ping`."""

    lines: "Lines"

    def execute(self, query: Any, params: Any = None, **more: Any) -> Any:
        text = query if isinstance(query, str) else query.as_string(self)
        ping = "pg_notify" in text
        self.lines.log.append("ping" if ping else text)
        if ping and self.lines.muted:
            return self.cursor()
        if ping:
            self.lines.before_ping()
        return super().execute(query, params, **more)


class Lines:
    """Opens a listener's connections. A test can delay the opening of a connection (`gate`), read
    the log of all connections (`log`), suppress pings (`muted`), and run a function before each
    ping (`before_ping`). The log also has the changes of a `WatchedBoard`."""

    def __init__(self, open_line: "Callable[[], dict[str, Any]] | None" = None) -> None:
        self._parameters = open_line or _straight
        self.opened: list[Line] = []
        self.log: list[str] = []
        self.gate: Gate | None = None
        #: While this is true, pings are not sent.
        self.muted = False
        self.before_ping: Callable[[], None] = lambda: None

    def __call__(self) -> Line:
        if self.gate is not None:
            self.gate.hold()
        line = Line.connect(**self._parameters(), autocommit=True)
        line.lines = self
        self.opened.append(line)
        return line


def _straight() -> dict[str, Any]:
    own = django_connection.get_connection_params()
    return {k: own[k] for k in ("dbname", "user", "password", "host", "port") if k in own}


class WatchedBoard(Board):
    """A board that writes its changes into a log, which it shares with `Lines`."""

    log: list[str]

    def bump(self, keys: Any) -> None:
        named = list(keys)
        self.log += [f"bump {key}" for key in named]
        super().bump(named)

    def bump_epoch(self) -> None:
        self.log.append("new epoch")
        super().bump_epoch()

    def go_live(self, until: int) -> None:
        self.log.append("live" if until else "not live")
        super().go_live(until)


@contextmanager
def running(listener: Listener) -> "Iterator[Future[None]]":
    """Runs the listener in a thread. At the end of the block, stops the listener, which must end
    without an error."""
    ending = in_thread(listener.run)
    try:
        yield ending
    finally:
        listener.stop()
        ending.result(PATIENCE)


def wait_live(listener: Listener) -> None:
    """Waits until the listener receives a ping that it has sent after this call. Such a ping makes
    the board live."""
    assert listener.wait_for_watermark(now_ns(), PATIENCE), "no new ping came back"
    assert isinstance(listener.board, Board) and listener.board.live()


def wait_applied(board: Board) -> None:
    """Waits until the listener has applied all notifications that were sent before this call."""
    stamp = board.stamp(MARK_SLOTS)
    notify(REALM_INDEX_SWAPPED, MARK)
    wait_until(lambda: not board.unchanged(MARK_SLOTS, stamp), "MARK's slot moves", PATIENCE)


def terminate(line: Line) -> None:
    """Terminates a connection by pg_terminate_backend, as an administrator does."""
    with connect() as hand:
        hand.execute("SELECT pg_terminate_backend(%s)", [line.info.backend_pid])

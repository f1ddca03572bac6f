"""The listener receives notifications from Postgres, moves the board's slots, and keeps the board
live. The sidecar of each replica, `manage.py listen_file_changes`, runs a listener.

The board is a page of shared memory with numbered slots and an epoch (`board.py`). If a slot moves,
which means that it gets a new random number, the cached values that depend on the slot are stale.
If the epoch gets a new random number, all values cached so far are stale. Web workers use cached
values only while the board is live.

The listener is a state machine with two connections of its own. One connection receives
notifications, and the other sends pings. A ping is a notification from the listener to itself.
First, the listener connects and listens on all channels. *After that* it gives the epoch a new
number, because it has missed the notifications that were sent before it listened. *After that* it
sends a ping, and then one every half second. When the first ping arrives, the board goes live.

Postgres delivers notifications in the order of commits. So when a ping arrives, the listener has
received every notification that was committed before the ping was sent. A received ping keeps the
board live until one staleness bound (REALM_STALENESS_BOUND) after the ping was *sent*.

The listener sends its pings to the default database, because the web service sends changes to that
database. The listening connection may reach another server (a former primary, a wrong URL), or a
pooler that shares connections. In these cases no ping arrives, and the board doesn't go live.

If no ping arrives, the board expires and web workers bypass their caches. They still store the
values that they load, but don't use cached values until the board is live again. A watchdog, which
is a thread, cuts connections that receive no ping, so that the loop in `run` can't hang. The loop
does little, so that no notification waits: it moves slots, sends pings, and records when it last
received a notification about each realm.
"""

import logging
import os
import random
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

import psycopg
from django.conf import settings
from django.db import connections
from psycopg.sql import SQL, Identifier

from notifications import sql
from notifications.board import now_ns
from notifications.channels import (
    INVALIDATION_CHANNELS,
    REALM_FILE_CHANGES,
    REALM_HEARTBEAT,
    REALM_REGISTRY,
    REALM_TRACES,
    Heartbeat,
    board_keys,
    heartbeat,
    parse_file_change,
    parse_heartbeat,
    parse_registry_change,
)
from notifications.tracing import spans

logger = logging.getLogger(__name__)

SECOND = 1_000_000_000
PING_SECONDS = 0.5
#: The watchdog cuts the connections if the listener has received no ping for this long.
SILENCE_SECONDS = 5.0
#: The first pause before the listener connects again, and the longest. Both are averages.
BACKOFF_SECONDS = (0.05, 1.5)
#: How long the listener keeps the lag of each ping. A lag is the time from sending to receiving.
LAG_SECONDS = 60

Connection: TypeAlias = "psycopg.Connection[tuple[object, ...]]"


class State(StrEnum):
    """The state of a listener, which the replica's report shows."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    LIVE = "live"
    STOPPED = "stopped"


class ListenerGaveUp(Exception):
    """The listener has lost its connection, and has not been live for `give_up_seconds`."""


@dataclass
class Counts:
    """Counters since the listener started. The replica's report shows them (`models.Replica`)."""

    notifications: int = 0
    malformed: int = 0
    reconnects: int = 0
    missed: int = 0


class Told(Protocol):
    """An object that a listener tells about changes, for example a replica's board. The methods are
    explained in `board.Board`."""

    @property
    def file(self) -> tuple[int, int] | None: ...
    def bump(self, keys: Iterable[str]) -> None: ...
    def bump_epoch(self) -> None: ...
    def follow(self) -> bool: ...
    def go_live(self, until: int) -> None: ...
    def set_sidecar(self, pid: int) -> None: ...


@dataclass
class Listener:
    """Receives notifications for one replica. `connect` opens the listening connection, and
    `connect_as_writers` opens a connection for sending pings. Both functions return psycopg
    connections in autocommit mode. Without `connect_as_writers`, the listening connection sends the
    pings. `bound_seconds` is the staleness bound."""

    replica: str
    board: Told
    connect: Callable[[], Connection]
    bound_seconds: float
    give_up_seconds: float = 60.0
    connect_as_writers: Callable[[], Connection] | None = None
    state: State = State.CONNECTING
    counts: Counts = field(default_factory=Counts)
    #: When the listener last received a notification about a realm's files or row (`now_ns`), by
    #: the realm's URL. The reporter removes old entries.
    heard: dict[str, int] = field(default_factory=dict)
    #: The listener has applied every change that was committed before this time (`now_ns`).
    watermark: int = 0
    #: When the current connection began to listen (`now_ns`).
    listening_since: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._progress = threading.Condition()
        self._open: tuple[Connection, ...] = ()
        self._last_answer = now_ns()
        self._pings: dict[int, int] = {}
        self._vouched: tuple[int, int] | None = None
        #: How long the pings of the last minute took from sending to receiving. Unit: ns.
        self.lags: deque[int] = deque(maxlen=int(LAG_SECONDS / PING_SECONDS))

    # --- the state machine ---

    def run(self) -> None:
        """Listens until `stop` is called, and connects again after each error. If the listener has
        not been live for `give_up_seconds`, the next error raises ListenerGaveUp."""
        watchdog = threading.Thread(target=self._watch, name="listener-watchdog", daemon=True)
        watchdog.start()
        away_since, delay = now_ns(), BACKOFF_SECONDS[0]
        try:
            while not self._stop.is_set():
                try:
                    self._enter(State.CONNECTING)
                    with self.connect() as connection, self._writer(connection) as writer:
                        self._open = connection, writer
                        self.begin(connection, writer)
                        while not self._stop.is_set():
                            self.step(connection, writer)
                            if self.state is State.LIVE:
                                away_since, delay = now_ns(), BACKOFF_SECONDS[0]
                except (psycopg.Error, OSError) as error:
                    if self._stop.is_set():
                        break
                    away = (now_ns() - away_since) / SECOND
                    logger.warning("listener of %s lost its connection: %s", self.replica, error)
                    if away > self.give_up_seconds:
                        raise ListenerGaveUp(
                            f"no database for {away:.0f} s, the last error was: {error}"
                        ) from error
                    self.counts.reconnects += 1
                    self._stop.wait(delay * random.uniform(0.5, 1.5))
                    delay = min(delay * 2, BACKOFF_SECONDS[1])
                finally:
                    self._open = ()
        finally:
            self._stop.set()
            self.board.go_live(0)
            self._enter(State.STOPPED)
            with self._progress:
                self._progress.notify_all()

    def stop(self) -> None:
        """Makes `run` return soon. Any thread or signal handler may call `stop`."""
        self._stop.set()

    def wait_for_watermark(self, moment: int, timeout: float) -> bool:
        """Waits until the listener has applied every change that was committed before `moment`
        (`now_ns`), and returns True. Returns False after `timeout` seconds, or when the listener
        stops."""
        with self._progress:
            self._progress.wait_for(
                lambda: self.watermark > moment or self.state is State.STOPPED, timeout
            )
            return self.watermark > moment

    # --- the steps of the state machine ---

    def _writer(self, connection: Connection) -> AbstractContextManager[Connection]:
        return self.connect_as_writers() if self.connect_as_writers else nullcontext(connection)

    def begin(self, connection: Connection, writer: Connection) -> None:
        """Listens on a new connection, makes all values cached so far stale, and sends a ping with
        `writer`."""
        # Pings of an earlier connection prove nothing about the new connection.
        self._pings.clear()
        self._last_answer = now_ns()
        traces = [REALM_TRACES] if spans.tracing() else []
        for channel in (*INVALIDATION_CHANNELS, REALM_HEARTBEAT, *traces):
            connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
        self._begin_epoch()
        self.listening_since = now_ns()
        self._enter(State.LISTENING)
        self._ping(writer)

    def _begin_epoch(self) -> None:
        """Makes all values cached so far stale. Also records this process as the board's sidecar,
        and remembers the board's file, so that `_hear_ping` notices when a new file replaces it."""
        self.board.set_sidecar(os.getpid())
        self.board.bump_epoch()
        self._vouched = self.board.file

    def step(self, connection: Connection, writer: Connection) -> None:
        """Waits up to PING_SECONDS for the next notification, and applies it. Then sends a ping if
        the last one was sent at least PING_SECONDS ago."""
        for notification in connection.notifies(timeout=PING_SECONDS, stop_after=1):
            self._apply(notification.channel, notification.payload)
        if self._ping_is_due():
            self._ping(writer)

    def _apply(self, channel: str, payload: str) -> None:
        if channel == REALM_HEARTBEAT:
            self._hear_ping(payload)
            return
        if channel == REALM_TRACES:
            # The transaction of a publish sends this notification after its notifications about
            # files and realms. So the listener has applied those already. The transaction's
            # notifications about definitions may still follow.
            spans.moment("heard", payload, replica=self.replica)
            return
        self.counts.notifications += 1
        keys = board_keys(channel, payload)
        if keys is None:
            self.counts.malformed += 1
            logger.warning("ignored a malformed payload on %s: %.200s", channel, payload)
            return
        self.board.bump(keys)
        if channel == REALM_FILE_CHANGES:
            change = parse_file_change(payload)
            if change is not None:
                self.heard[change.realm_url] = now_ns()
        elif channel == REALM_REGISTRY:
            url = parse_registry_change(payload)
            if url is not None:
                self.heard[url] = now_ns()

    def _ping(self, connection: Connection) -> None:
        sequence, sent_at = secrets.randbits(62), now_ns()
        self._pings[sequence] = sent_at
        beat = heartbeat(Heartbeat(self.replica, sequence, sent_at))
        connection.execute(sql.NOTIFY, (beat.channel, beat.payload))

    def _ping_is_due(self) -> bool:
        return now_ns() - max(self._pings.values(), default=self.watermark) >= (
            PING_SECONDS * SECOND
        )

    def _hear_ping(self, payload: str) -> None:
        beat = parse_heartbeat(payload)
        # The listeners of all replicas use one channel for pings. Ignore the pings that this
        # listener has not sent on its current connections. Don't use the time in the payload, which
        # any client of the database can forge, but the sending time that this listener has stored.
        sent_at = self._pings.pop(beat.sequence, None) if beat else None
        if sent_at is None:
            return
        for earlier in [s for s, at in self._pings.items() if at < sent_at]:
            del self._pings[earlier]
        self._last_answer = now_ns()
        self.lags.append(self._last_answer - sent_at)
        self.board.follow()
        if self.board.file != self._vouched:
            # The board file has been replaced. Earlier notifications moved slots in the old file,
            # but not in the new file.
            self._begin_epoch()
        self.board.go_live(sent_at + int(self.bound_seconds * SECOND))
        self._enter(State.LIVE)
        with self._progress:
            self.watermark = max(self.watermark, sent_at)
            self._progress.notify_all()

    def _enter(self, state: State) -> None:
        if state is not self.state:
            logger.info("listener of %s is %s", self.replica, state)
            self.state = state

    # --- the watchdog ---

    def _watch(self) -> None:
        """Cuts the connections whenever no ping has arrived for SILENCE_SECONDS. Also cuts them if
        the loop in `run` hasn't ended soon after a stop, so that the loop ends."""
        while not self._stop.wait(PING_SECONDS):
            if now_ns() - self._last_answer > SILENCE_SECONDS * SECOND:
                self._cut(
                    "no ping has arrived (does the connection go to a pooler, or to a server other "
                    "than that of DATABASE_URL?)"
                )
        # The loop in `run` notices a stop within PING_SECONDS, unless a stalled connection blocks
        # the loop.
        threading.Event().wait(2 * PING_SECONDS)
        self._cut("the listener stops")

    def _cut(self, why: str) -> None:
        for connection in set(self._open):
            with suppress(OSError, psycopg.Error, ValueError):
                handle = connection.pgconn.socket
                logger.warning("listener of %s cuts its connection: %s", self.replica, why)
                # Shut the socket down, which wakes the thread that waits on the connection. The
                # woken thread closes the connection.
                cut = socket.fromfd(handle, socket.AF_UNIX, socket.SOCK_STREAM)
                with cut:
                    cut.shutdown(socket.SHUT_RDWR)
        if self._open:
            self._last_answer = now_ns()


# --- The listener's connections, which are never Django's ---------------------------------------


def listen_connection() -> Connection:
    """Connects to LISTEN_DATABASE_URL, or to the default database if that setting is empty.

    Raises psycopg.Error when the server can't be reached.
    """
    if settings.LISTEN_DATABASE_URL:
        return psycopg.connect(
            settings.LISTEN_DATABASE_URL,
            autocommit=True,
            connect_timeout=5,
            application_name=_name(),
        )
    return ping_connection()


def ping_connection() -> Connection:
    """Connects to the default database as the web service does, perhaps through a pooler.

    Raises psycopg.Error when the server can't be reached.
    """
    parameters = connections["default"].get_connection_params()
    for django_only in ("cursor_factory", "context", "server_side_binding"):
        parameters.pop(django_only, None)
    own = {"autocommit": True, "application_name": _name(), "prepare_threshold": None}
    return psycopg.connect(**{**parameters, **own})


def _name() -> str:
    return f"listen_file_changes {settings.REALM_REPLICA}"

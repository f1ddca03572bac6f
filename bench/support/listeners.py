"""Runs processes that listen for changes: sidecars of the realm server, and their peers.

The peers are other ways to invalidate caches: bare LISTEN, django-pgpubsub, and Redis. A change is
a transaction that updates a row, and announces an entry with the number of the change in its name.
A listener records when it has applied the change. A sidecar applies a change by moving a slot of
its board, which means that the slot gets a new value (`notifications/board.py`). A peer applies a
change by calling `pop` on a dictionary. All processes use the board's clock (`now_ns`).
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any, TypeAlias

import psycopg

from bench.support.comparing import WrongBytes
from bench.support.peers import Missing

REALM = "http://localhost:4201/ada/site/"
CHANNEL = "bench_bare"
REDIS_CHANNEL = "bench"
#: How long to wait for a listener. Unit: seconds.
PATIENCE = 30.0
#: The number of untimed changes before the timed changes, so that connections and caches are warm.
WARMING = 20

Arrivals: TypeAlias = "SynchronizedArray[int]"
Heard: TypeAlias = Callable[[str], None]
Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"


@dataclass(frozen=True)
class Way:
    """A way to invalidate caches. `listen` runs in a process of its own. Its arguments are the path
    of a board, and the functions `ready` and `heard`. It calls `ready` when it has begun to listen,
    and `heard` with the name of each changed entry. A change calls `announce` within its
    transaction, and `publish` after its commit."""

    name: str
    listen: Callable[[Path, Callable[[], None], Heard], None]
    announce: Callable[[Connection, str], object] = lambda connection, entry: None
    publish: Callable[[str], object] = lambda entry: None


# --- The ways to invalidate caches -------------------------------------------------------------


def _notify(channel: str, payload: str) -> Callable[[Connection, str], object]:
    return lambda connection, entry: connection.execute(
        "SELECT pg_notify(%s, %s)", (channel, payload.format(entry))
    )


def _sidecar(board: Path, ready: Callable[[], None], heard: Heard) -> None:
    """Runs the sidecar's command with a patched Board class. The patched class calls `heard` for
    each moved slot, and `ready` when the board goes live."""
    from django.conf import settings
    from django.core.management import call_command

    from notifications.board import Board

    bump, go_live = Board.bump, Board.go_live

    def bump_and_tell(self: Board, keys: Iterable[str]) -> None:
        moved = list(keys)
        bump(self, moved)
        for key in moved:
            heard(key.removeprefix(f"path|{REALM}"))

    def go_live_and_tell(self: Board, until: int) -> None:
        go_live(self, until)
        ready()

    Board.bump = bump_and_tell  # type: ignore[method-assign]
    Board.go_live = go_live_and_tell  # type: ignore[method-assign]
    settings.REALM_BOARD, settings.REALM_REPLICA = board, board.name
    settings.REALM_REPLICA_ADDRESS = "http://127.0.0.1:9"
    call_command("listen_file_changes")


def _bare(_: Path, ready: Callable[[], None], heard: Heard) -> None:
    from tests.support.listening.hearing import connect

    entries: dict[str, bytes] = {}
    with connect() as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        ready()
        for notification in connection.notifies():
            entries.pop(notification.payload, None)
            heard(notification.payload)


def _pgpubsub(_: Path, ready: Callable[[], None], heard: Heard) -> None:
    os.environ["PGPUBSUB_USE_PSYCOPG_V3"] = "True"
    from django.test import modify_settings

    entries: dict[str, bytes] = {}
    with modify_settings(INSTALLED_APPS={"append": "pgpubsub"}):
        from pgpubsub.listen import listen

        channel = pubsub_channel()

        def drop(entry: str) -> None:
            entries.pop(entry, None)
            heard(entry)

        channel.register(drop)
        ready()
        listen([channel])


def pubsub_channel() -> Any:
    """Returns a channel of django-pgpubsub. Raises Missing if django-pgpubsub isn't installed."""
    try:
        from pgpubsub.channel import Channel
    except ImportError as error:
        raise Missing("django-pgpubsub", "pip install django-pgpubsub") from error

    @dataclass
    class Invalidated(Channel):
        entry: str

    return Invalidated


def redis_client() -> Any:
    """Returns a client of the Redis at REDIS_URL, by default on this machine. Raises Missing if no
    Redis answers."""
    import redis

    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
    try:
        client.ping()
    except redis.RedisError as error:
        raise Missing("Redis", "apt-get install redis-server, or set REDIS_URL") from error
    return client


def _redis(_: Path, ready: Callable[[], None], heard: Heard) -> None:
    entries: dict[str, bytes] = {}
    subscription = redis_client().pubsub()
    subscription.subscribe(REDIS_CHANNEL)
    for message in subscription.listen():
        if message["type"] == "subscribe":
            ready()
            continue
        entry = message["data"].decode()
        entries.pop(entry, None)
        heard(entry)


def sidecar() -> Way:
    """Returns the `Way` with sidecars of the realm server as listeners. A change sends the same
    notification as a write of a file."""
    return Way("sidecar", _sidecar, _notify("realm_file_changes", f"{REALM}:{{}}"))


def bare() -> Way:
    """Returns the `Way` with bare psycopg connections as listeners, which use LISTEN. A change
    sends a NOTIFY."""
    return Way("bare LISTEN", _bare, _notify(CHANNEL, "{}"))


def pgpubsub() -> Way:
    """Returns the `Way` that uses django-pgpubsub. Raises Missing if django-pgpubsub isn't
    installed."""
    channel = pubsub_channel().listen_safe_name()
    payload = '{{"kwargs": {{"entry": "{}"}}}}'
    return Way("django-pgpubsub", _pgpubsub, _notify(channel, payload))


def redis_pubsub() -> Way:
    """Returns the `Way` with subscribers of a Redis channel as listeners. After a change's
    transaction has committed, the change is published on this channel. Raises Missing if no Redis
    answers."""
    client = redis_client()
    return Way("Redis pub/sub", _redis, publish=lambda entry: client.publish(REDIS_CHANNEL, entry))


# --- Listening ---------------------------------------------------------------------------------


class Unheard(WrongBytes):
    """A listener didn't receive all changes."""


@dataclass
class Listening:
    """The running listener processes, which all invalidate caches in the way `way`. `boards` has
    the path of each listener's board. `arrivals` has for each listener the times at which it
    applied the changes. `sent` has the times just before the changes' commits. `changes` is the
    connection on which changes are committed."""

    way: Way
    boards: Sequence[Path]
    arrivals: Sequence[Arrivals]
    changes: Connection
    sent: list[int] = field(default_factory=list)
    #: How many changes per second the last call of `run` committed. This may be less than the
    #: argument `rate` of `run`.
    rate: float = 0.0

    def change(self, path: str = "") -> int:
        """Commits the next change, and returns the time just before the commit. The change
        announces the entry `file-<number>`, or the entry `path` if `path` isn't empty. Listeners
        don't record an entry without a number. So after a change with `path`, `wait` would raise
        Unheard."""
        from notifications.board import now_ns

        number = len(self.sent)
        entry = path or f"file-{number}"
        self.changes.execute("UPDATE bench_change SET number = %s", (number,))
        self.way.announce(self.changes, entry)
        at = now_ns()
        self.sent.append(at)
        self.changes.commit()
        self.way.publish(entry)
        return at

    def run(self, rate: float, seconds: float) -> list[float]:
        """Commits `rate` changes a second for so many `seconds`, after WARMING untimed changes.
        Returns for each timed change the time from just before its commit until the last listener
        applied it. Unit: ms. Raises Unheard if a listener misses a change."""
        for _ in range(WARMING):
            self.change()
        self.wait()
        first = len(self.sent)
        began = time.perf_counter()
        for number in range(max(int(rate * seconds), 1)):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            self.change()
        self.rate = (len(self.sent) - first) / (time.perf_counter() - began)
        self.wait()
        return [
            (max(each[number] for each in self.arrivals) - self.sent[number]) / 1e6
            for number in range(first, len(self.sent))
        ]

    def wait(self) -> None:
        """Waits until every listener has applied every change. Raises Unheard if a listener misses
        a change."""
        deadline = time.monotonic() + PATIENCE
        for each in self.arrivals:
            # A listener may apply changes out of order, so check every change.
            while not all(each[: len(self.sent)]):
                if time.monotonic() > deadline:
                    lost = list(each[: len(self.sent)]).count(0)
                    what = f"a listener has missed {lost} of {len(self.sent)} changes"
                    raise Unheard(f"{self.way.name}: {what} after {PATIENCE:.0f} s")
                time.sleep(0.002)


@contextmanager
def listening(way: Way, count: int, folder: Path, changes: int) -> Iterator[Listening]:
    """Starts `count` listener processes, and waits until they listen. Ends them at the end of the
    block. The block may commit at most `changes` changes, besides the WARMING changes of `run`."""
    from django.db import connections

    from notifications.board import now_ns
    from tests.support.listening.hearing import connect

    # A forked process must not share a connection with its parent.
    connections.close_all()
    context = multiprocessing.get_context("fork")
    arrivals: list[Arrivals] = [
        context.Array("q", changes + WARMING, lock=False) for _ in range(count)
    ]
    ready = [context.Event() for _ in range(count)]
    boards = [folder / f"board-{number}" for number in range(count)]

    def run(number: int) -> None:
        arrived = arrivals[number]

        def heard(entry: str) -> None:
            name, _, change = entry.partition("-")
            if name == "file":
                arrived[int(change)] = now_ns()

        with suppress(KeyboardInterrupt):
            way.listen(boards[number], ready[number].set, heard)

    processes = [
        context.Process(target=run, args=(number,), daemon=True) for number in range(count)
    ]
    try:
        for process in processes:
            process.start()
        for event in ready:
            if not event.wait(PATIENCE):
                raise WrongBytes(f"{way.name}: a listener has not begun to listen")
        with connect() as changing:
            changing.execute("CREATE TABLE IF NOT EXISTS bench_change (number bigint)")
            changing.execute("TRUNCATE bench_change")
            changing.execute("INSERT INTO bench_change VALUES (0)")
            changing.autocommit = False
            yield Listening(way, boards, arrivals, changing)
    finally:
        for process in processes:
            process.kill()
            process.join()

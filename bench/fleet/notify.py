"""Measures commits with NOTIFY while many connections listen.

A sidecar is a process on each web host that receives notifications from Postgres. Each listener of
this script is a connection like the LISTEN connection of a sidecar. The listeners discard the
notifications without parsing them, because only the work of Postgres is to be measured. Like a
publish of a realm, each transaction inserts a row, raises a counter and sends three notifications.
In the second and third measurement, one more listener reads the notifications. It measures the time
from each commit until the commit's notification arrives.

The third measurement adds the pings of the sidecars. A ping is a notification that a sidecar sends
to itself twice a second, to check that notifications still reach it.

Postgres holds a server-wide lock while it commits a transaction with notifications. So these
commits run one after another. Each of them wakes all listeners.
"""

import argparse
import multiprocessing
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, LiteralString

from psycopg.sql import SQL, Identifier

from bench.fleet.figures import say, shares, spread, table
from bench.fleet.postgres import Server, scratch

CHANNELS = (
    "realm_file_changes", "definition_cache_invalidated", "module_cache_invalidated",
    "realm_registry", "realm_index_swapped",
)  # fmt: skip
HEARTBEAT = "realm_heartbeat"
PING_SECONDS = 0.5
TABLES: LiteralString = """
CREATE TABLE realm (id int PRIMARY KEY, generation bigint NOT NULL DEFAULT 1);
INSERT INTO realm SELECT generate_series(1, 1000);
CREATE TABLE publication (id bigserial PRIMARY KEY, realm int, generation bigint, at timestamptz);
"""
PUBLISH: LiteralString = """
WITH moved AS (
    UPDATE realm SET generation = generation + 1 WHERE id = %s RETURNING id, generation
) INSERT INTO publication (realm, generation, at) SELECT id, generation, now() FROM moved
"""
NOTIFY: LiteralString = """
SELECT pg_notify('realm_file_changes', %(url)s || ':*'),
    pg_notify('definition_cache_invalidated', '{"k":"realm","r":"' || %(url)s || '"}'),
    pg_notify('realm_registry', 'upsert:' || %(url)s)
"""

PING: LiteralString = "SELECT pg_notify(%s, %s)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, nargs="*", default=[0, 10, 100, 300, 1000])
    parser.add_argument("--rates", type=float, nargs="*", default=[1.16, 12, 50])
    parser.add_argument("--writers", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--binaries", type=Path, help="the folder with Postgres' programs")
    parser.add_argument("--quick", action="store_true", help="few listeners, short measurements")
    options = parser.parse_args()
    if options.quick:
        options.listeners, options.rates = [0, 10], [12]
        options.seconds, options.repeat = 1, 1
    say(str(__doc__))
    with scratch(binaries=options.binaries) as server:
        with server.connect() as connection:
            connection.execute(TABLES)
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        say(
            f"Postgres {version}, fsync on; each figure is measured for {options.seconds:g} s, "
            f"{options.repeat} times"
        )
        saturated(server, options)
        at_rates(server, options)
        pings(server, options)
    return 0


# --- The three measurements --------------------------------------------------------------------


def saturated(server: Server, options: argparse.Namespace) -> None:
    """Measures how many commits a second are possible, with and without NOTIFY."""
    rows = []
    for listeners in options.listeners:
        for writers in options.writers:
            plain: list[float] = []
            notifying: list[float] = []
            with listening(server, listeners):
                for _ in range(options.repeat):
                    for loud, found in ((False, plain), (True, notifying)):
                        found.append(len(publish(server, writers, options.seconds, loud)))
            each = 1 / options.seconds
            rows.append((listeners, writers, spread(plain, each, 0), spread(notifying, each, 0)))
    table(
        "commits a second while the writers commit without pauses: median (lowest to highest)",
        ("listeners", "writers", "without NOTIFY", "with NOTIFY"),
        rows,
    )


def at_rates(server: Server, options: argparse.Namespace) -> None:
    """Measures simulated publishes at each of the given rates. Prints the durations of the
    transactions, and the times from the commits until a listener receives the notifications."""
    rows = []
    for listeners in options.listeners:
        for rate in options.rates:
            with listening(server, listeners), hearing(server) as heard:
                seconds = options.seconds * options.repeat
                began, spent = time.perf_counter(), server.cpu_seconds()
                taken = publish(server, 2, seconds, True, rate=rate, sent=heard.sent)
                busy = (server.cpu_seconds() - spent) / (time.perf_counter() - began)
                heard.settle()
            rows.append(
                (listeners, f"{rate:g}", len(taken), shares(taken), shares(heard.lags),
                 f"{100 * busy:.0f} %")
            )  # fmt: skip
    table(
        "publishes at a given rate; times: p50 / p99 / highest, in ms; cpu: 100 % is one core",
        (
            "listeners", "publishes/s", "publishes", "transaction", "commit to notification",
            "cpu of Postgres",
        ),
        rows,
    )  # fmt: skip


def pings(server: Server, options: argparse.Namespace) -> None:
    """Measures the cost of the pings of all sidecars during simulated publishes. All sidecars first
    share one channel for pings. Then each sidecar has a channel of its own. A ping writes no row,
    so Postgres doesn't wait for the disk when it commits a ping."""
    rows = []
    for listeners in filter(None, options.listeners):
        for shared in (True, False):
            sent = multiprocessing.Value("L", 0)
            with listening(server, listeners, own=not shared), hearing(server) as heard:
                process = multiprocessing.Process(
                    target=_ping_all,
                    args=(server, listeners, options.seconds * options.repeat, shared, sent),
                )
                began, spent = time.perf_counter(), server.cpu_seconds()
                process.start()
                taken = publish(
                    server, 2, options.seconds * options.repeat, True, rate=12, sent=heard.sent
                )
                process.join()
                took = time.perf_counter() - began
                busy = (server.cpu_seconds() - spent) / took
                heard.settle()
            rows.append(
                (listeners, "one for all" if shared else "one each",
                 f"{listeners / PING_SECONDS:,.0f}",
                 f"{sent.value / took:,.0f}", f"{100 * busy:.0f} %",
                 f"{1e6 * busy * took / (listeners * (sent.value + len(taken))):.0f}",
                 shares(taken), shares(heard.lags))
            )  # fmt: skip
    table(
        "pings of all sidecars during 12 publishes a second; times: p50 / p99 / highest, in ms; "
        "cpu: 100 % is one core",
        (
            "sidecars",
            "channel",
            "pings/s wanted",
            "pings/s sent",
            "cpu of Postgres",
            "cpu for each wake of a listener (µs)",
            "transaction",
            "commit to notification",
        ),
        rows,
    )


# --- Writers -----------------------------------------------------------------------------------


def publish(
    server: Server,
    writers: int,
    seconds: float,
    loud: bool,
    *,
    rate: float | None = None,
    sent: dict[str, float] | None = None,
) -> list[float]:
    """Runs `writers` threads that commit transactions for a time of `seconds`. Together the threads
    commit `rate` transactions a second. Without `rate` they commit without pauses. If `loud` is
    true, the transactions send notifications. Returns the duration of each transaction in seconds.
    Adds the time of each commit to `sent`, by the URL in the commit's notification."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    def write(number: int) -> None:
        with server.connect() as connection:
            turn = 0
            due = time.perf_counter() + (number / rate if rate else 0)
            while time.perf_counter() < end:
                if rate:
                    time.sleep(max(0, due - time.perf_counter()))
                    due += writers / rate
                turn += 1
                url = f"https://site-{number}-{turn}.example.net/"
                began = time.perf_counter()
                with connection.transaction():
                    connection.execute(PUBLISH, [1 + (turn * writers + number) % 1000])
                    if loud:
                        connection.execute(NOTIFY, {"url": url})
                done = time.perf_counter()
                taken.append(done - began)
                if sent is not None:
                    sent[url] = done

    threads = [threading.Thread(target=write, args=[number]) for number in range(writers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return taken


def _ping_all(server: Server, sidecars: int, seconds: float, shared: bool, sent: Any) -> None:
    """Sends the pings of all sidecars at a steady rate on sixteen connections. Counts the pings in
    `sent`."""
    senders = 16
    end = time.perf_counter() + seconds

    def ping(number: int) -> None:
        with server.connect() as connection:
            own = [each for each in range(sidecars) if each % senders == number]
            if not own:
                return
            due = time.perf_counter()
            while time.perf_counter() < end:
                for each in own:
                    channel = HEARTBEAT if shared else f"{HEARTBEAT}_{each}"
                    connection.execute(PING, [channel, f"web-{each}:{2**61}:{2**50}"])
                    with sent.get_lock():
                        sent.value += 1
                    due += PING_SECONDS / len(own)
                    time.sleep(max(0, due - time.perf_counter()))

    threads = [threading.Thread(target=ping, args=[number]) for number in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- Listeners ---------------------------------------------------------------------------------


@contextmanager
def listening(server: Server, count: int, *, own: bool = False) -> Iterator[None]:
    """Opens `count` listening connections in a process that discards the notifications. If `own` is
    true, each connection has a channel of its own for pings."""
    if not count:
        yield
        return
    ready, ended = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_listen, args=(server, count, own, ready, ended))
    process.start()
    try:
        if not ready.wait(120):
            raise TimeoutError(f"not all {count} listeners were listening after two minutes")
        yield
    finally:
        ended.set()
        process.join()


def _listen(server: Server, count: int, own: bool, ready: Event, ended: Event) -> None:
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number in range(count):
            connection = stack.enter_context(server.connect())
            heartbeat = f"{HEARTBEAT}_{number}" if own else HEARTBEAT
            for channel in (*CHANNELS, heartbeat):
                connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            # Read the socket directly, because nothing needs the parsed notifications.
            handle = socket.socket(fileno=connection.fileno())
            stack.callback(handle.detach)
            handle.setblocking(False)
            selector.register(handle, selectors.EVENT_READ)
        ready.set()
        while not ended.is_set():
            for key, _ in selector.select(0.1):
                file: Any = key.fileobj
                file.recv(65536)


@dataclass
class Heard:
    """The time of each commit, and the time when a listener received the commit's notification, by
    URL. Unit: seconds."""

    sent: dict[str, float] = field(default_factory=dict)
    came: dict[str, float] = field(default_factory=dict)

    @property
    def lags(self) -> list[float]:
        return [max(0.0, at - self.sent[url]) for url, at in self.came.items() if url in self.sent]

    def settle(self) -> None:
        """Waits until the notification of every commit has arrived, but at most 30 s."""
        deadline = time.perf_counter() + 30
        while self.sent.keys() - self.came.keys() and time.perf_counter() < deadline:
            time.sleep(0.05)


@contextmanager
def hearing(server: Server) -> Iterator[Heard]:
    """Runs a listener. Yields the object that records when each notification arrives."""
    heard, ended = Heard(), threading.Event()
    with server.connect() as connection:
        connection.execute("LISTEN realm_file_changes")

        def listen() -> None:
            while not ended.is_set():
                for each in connection.notifies(timeout=0.2):
                    heard.came[each.payload.removesuffix(":*")] = time.perf_counter()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            ended.set()
            thread.join()

"""Measures the time from a commit until all replicas are fresh, and compares it with bare
listeners.

A bare listener is a process that only executes LISTEN on one psycopg connection, so no replica can
be faster than a bare listener. Bare listeners receive the same notifications as the sidecars, so
one run measures bare listeners and replicas. A replica is fresh when its sidecar has changed the
written file's slot on the replica's board. From that moment, none of the replica's web workers
serves the old content.
"""

import mmap
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from rich.console import Console
from rich.progress import track
from rich.table import Table

from notifications.board import Board, Slots
from notifications.channels import REALM_FILE_CHANGES, path_key
from realms.content.files import write_files
from realms.content.locks import realm_write_lock
from realms.models import Realm
from tests.faults.judge.history import new_mark
from tests.faults.postgres import Postgres
from tests.support import make
from tests.support.cluster import Cluster, cluster, wait_until
from tests.support.web import ORIGIN

PATH = "text.md"
PAUSE_SECONDS = 0.05
GIVE_UP_SECONDS = 5.0
#: Replicas may take at most this many times as long as bare listeners.
ALLOWED = 3.0
#: A run is divided into this many parts. The spread of the parts' ratios shows the machine's noise.
PARTS = 5

_LISTENER = f"""
import mmap, sys, time
import psycopg
with open(sys.argv[2], "r+b") as file:
    words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
place = int(sys.argv[3])
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("LISTEN {REALM_FILE_CHANGES}")
    words[place] = 1
    for _ in connection.notifies():
        words[place] = time.monotonic_ns()
"""


def measure(folder: Path, seconds: float, replicas: int) -> int:
    """Measures for `seconds` and prints the comparison. Returns 1 if replicas take more than
    `ALLOWED` times as long as bare listeners."""
    console = Console(soft_wrap=True, highlight=False)
    with ExitStack() as stack:
        postgres = Postgres(folder, urlsplit(settings.DATABASE_URL).port or 5432)
        postgres.start()
        stack.callback(postgres.stop)
        call_command("migrate", verbosity=0)
        stack.callback(connections.close_all)
        realm = make.source(f"{ORIGIN}/ada/site/", make.user("ada"), {PATH: b"# nothing\n"})
        running = stack.enter_context(cluster(folder, replicas))
        heard = stack.enter_context(_listeners(folder, replicas))
        samples = list(_samples(running, realm, heard, seconds, console))
    return _show(console, samples, replicas)


@contextmanager
def _listeners(folder: Path, count: int) -> Iterator[memoryview]:
    """Runs bare listeners. Each stores the time of its last notification (monotonic, ns)."""
    page = folder / "heard"
    page.write_bytes(bytes(8 * count))
    with open(page, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LISTENER, settings.DATABASE_URL, str(page), str(place)]
        )
        for place in range(count)
    ]
    try:
        wait_until(lambda: all(words[place] for place in range(count)), "bare listeners there")
        yield words
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _samples(
    running: Cluster, realm: Realm, heard: memoryview, seconds: float, console: Console
) -> Iterator[tuple[float, float, float]]:
    """Yields three durations in seconds for each write. Each duration begins just before the
    COMMIT. The first duration ends when all bare listeners have been notified. The second duration
    ends when the file's slot has changed on all boards. The third duration ends when all replicas
    have served the new bytes."""
    slots = Slots([path_key(realm.url + PATH)])
    boards = [each.board for each in running.replicas]
    rounds = range(int(seconds / 0.12))
    end = time.monotonic() + seconds
    for _ in track(rounds, "writing and watching", console=console, transient=True):
        if time.monotonic() > end:
            return
        mark = new_mark()
        stamps = [board.stamp(slots) for board in boards]
        began = _write(realm, mark)
        fresh = _watch(boards, slots, stamps)
        told = _wait(lambda: all(at > began for at in heard), lambda: max(heard))  # noqa: B023
        served = max(_served(running, realm, mark))
        yield (told - began) / 1e9, (fresh - began) / 1e9, (served - began) / 1e9
        time.sleep(PAUSE_SECONDS)


def _write(realm: Realm, mark: str) -> int:
    """Writes the file and returns the time (monotonic, ns) just before the COMMIT."""
    with realm_write_lock(realm.url):
        realm.refresh_from_db()
        write_files(realm, {PATH: f"# {mark}\n".encode()})
        return time.monotonic_ns()


def _watch(boards: list[Board], slots: Slots, stamps: list[tuple[int, ...]]) -> int:
    still = dict(zip(boards, stamps, strict=True))

    def all_moved() -> bool:
        for board, stamp in list(still.items()):
            if not board.unchanged(slots, stamp):
                del still[board]
        return not still

    return _wait(all_moved, time.monotonic_ns)


def _wait(done: Callable[[], bool], moment: Callable[[], int]) -> int:
    end = time.monotonic() + GIVE_UP_SECONDS
    while not done():
        if time.monotonic() > end:
            raise AssertionError("a listener or a replica was not told of a commit")
        time.sleep(0.0001)
    return moment()


def _served(running: Cluster, realm: Realm, mark: str) -> Iterator[int]:
    for replica in running.replicas:
        answer = replica.get(realm.url + PATH, "application/vnd.card+source")
        assert mark in answer.text, f"{replica.name} still answers {answer.text!r}"
        yield time.monotonic_ns()


def _show(console: Console, samples: list[tuple[float, float, float]], replicas: int) -> int:
    bare, fresh, served = (sorted(column) for column in zip(*samples, strict=True))
    table = Table(f"Commit to the last of {replicas}", "p50", "p90", "p99", "most")
    for name, column in (
        ("bare psycopg listeners notified", bare),
        ("replicas fresh", fresh),
        ("replicas have served the new bytes, requested in turn", served),
    ):
        table.add_row(name, *(f"{_quantile(column, q) * 1000:.2f} ms" for q in (0.5, 0.9, 0.99, 1)))
    console.print(table)
    ratio = _quantile(fresh, 0.99) / _quantile(bare, 0.99)
    size = len(samples) // PARTS
    parts = [samples[i * size : (i + 1) * size] for i in range(PARTS)]
    spread = [
        _quantile(sorted(s[1] for s in part), 0.99) / _quantile(sorted(s[0] for s in part), 0.99)
        for part in parts
        if part
    ]
    console.print(
        f"{len(samples)} commits; p99 of the replicas is {ratio:.2f} times that of the listeners "
        f"(in {PARTS} parts of the run {min(spread):.2f} to {max(spread):.2f}, median "
        f"{statistics.median(spread):.2f}); at most {ALLOWED:g} is good. "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    return 0 if ratio <= ALLOWED else 1


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

"""Measures the time from a commit until all replicas are fresh. Compares it with the time until all
bare listeners are notified of the same commit.

A bare listener is a process that only executes LISTEN on one psycopg connection. A replica's
sidecar does this too, and more, so no replica can be faster than a bare listener.

Each replica has a board, a file with numbers that are called slots. When a file of a realm changes,
the sidecar changes the slot of this file, so that the web workers stop using cached content of the
file. A replica is fresh when its sidecar has changed the slot of the file that this program writes.
From that moment, none of the replica's web workers serves the old content.
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
#: The replicas' p99 may be at most this many times the p99 of the bare listeners.
ALLOWED = 3.0
#: A run is divided into this many parts. Each part has its own ratio of the two p99s. If the ratios
#: differ much, other work of the machine has disturbed the run.
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
    """Measures for `seconds` and prints the comparison. Returns 1 if the replicas' p99 is more than
    ALLOWED times the p99 of the bare listeners, else 0."""
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
    """Runs bare listeners, and yields the time of each listener's last notification (monotonic,
    ns). The listeners store these times in shared memory."""
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
        wait_until(lambda: all(words[place] for place in range(count)), "bare listeners ready")
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
            raise AssertionError("a bare listener or a replica was not notified of a commit")
        time.sleep(0.0001)
    return moment()


def _served(running: Cluster, realm: Realm, mark: str) -> Iterator[int]:
    for replica in running.replicas:
        answer = replica.get(realm.url + PATH, "application/vnd.card+source")
        assert mark in answer.text, f"{replica.name} still answers {answer.text!r}"
        yield time.monotonic_ns()


def _show(console: Console, samples: list[tuple[float, float, float]], replicas: int) -> int:
    bare, fresh, served = (sorted(column) for column in zip(*samples, strict=True))
    table = Table(f"Time from a commit until all {replicas}", "p50", "p90", "p99", "most")
    for name, column in (
        ("bare psycopg listeners were notified", bare),
        ("replicas were fresh", fresh),
        ("replicas had served the new bytes, one after the other", served),
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
        f"{len(samples)} commits: the replicas' p99 is {ratio:.2f} times the listeners' p99. In "
        f"{PARTS} parts of the run this ratio is {min(spread):.2f} to {max(spread):.2f}, with the "
        f"median {statistics.median(spread):.2f}. At most {ALLOWED:g} is allowed. The machine has "
        f"{os.cpu_count()} processors and a load of {os.getloadavg()[0]:.1f}."
    )
    return 0 if ratio <= ALLOWED else 1


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

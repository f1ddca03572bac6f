"""Measures how fast a replica serves cached pages while hostile clients attack it.

Starts one replica with two web workers on a new database. A client requests pages at a steady rate,
each time on a new connection. The pages are five cached files of 2 KB. The requests are timed
without an attack, during each attack, and during all attacks at once. Each request is due at a
fixed moment, and its time is measured from that moment. So the time includes the wait of a request
that is sent late.

The attackers send the headers or the bodies of their requests slowly, don't read their answers, or
request listings of a large realm. The listings are `_mtimes`, which lists all files of the realm,
and the listings of two folders.
"""

import asyncio
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from bench.support.comparing import Bar, Case, Series, Table, compare
from bench.support.running import Bench

LARGE = "http://localhost:4201/ada/large/"
SITE = "http://localhost:4201/ada/site/"
PAGES = tuple(f"{SITE}page-{number}.css" for number in range(5))
P99_MS = 200
MEMORY_MIB = 400
SAMPLE_SECONDS = 0.05
API = "application/vnd.api+json"


def main() -> int:
    bench = Bench("hostile", __doc__)
    add = bench.parser.add_argument
    add("--files", type=int, default=100_000, help="files of the large realm (default: 100,000)")
    add("--rate", type=int, default=100, help="requests for pages a second (default: 100)")
    add("--seconds", type=float, default=15, help="duration of each attack (default: 15)")
    if bench.quick:
        bench.options.files, bench.options.seconds = 2000, 1.0
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from tests.support import make
    from tests.support.cluster import cluster, wait_until

    options = bench.options
    owner = make.user("ada")
    site = {f"page-{number}.css": b"x" * 2048 for number in range(len(PAGES))}
    site |= {f"large-{number}.bin": os.urandom(5_000_000) for number in range(8)}
    realm = make.source(SITE, owner, site)
    large = make.source(LARGE, owner, files(options.files))
    middle, worst, memory = Series(), Series(), Series()
    failed = 0

    def measure(name: str, attackers: list[Attack]) -> float:
        nonlocal failed
        with ExitStack() as stack:
            if any(attack.kind == "listings" for attack in attackers):
                stack.enter_context(_changing(large))
            for attack in attackers:
                stack.enter_context(_process(attack))
            peak = stack.enter_context(Memory(replica.running["web"].pid))
            time.sleep(min(1, options.seconds))
            visited = asyncio.run(visit(replica.port, options.rate, options.seconds))
        middle.note(name, visited.p(50) * 1000)
        worst.note(name, visited.p(100) * 1000)
        memory.note(name, peak.peak / 1024**2)
        failed += visited.failed
        return visited.p(99) * 1000

    with cluster(bench.folder, 1) as fleet:
        (replica,) = fleet.replicas
        wait_until(
            lambda: all(
                each.cache == "hit" for url in PAGES for each in replica.each_worker(url).values()
            ),
            "both web workers have cached all pages",
        )
        attacks = scenarios(replica.port, make.realm_login(realm, "ada"))
        table = compare(
            f"cached pages, p99 of the time at {options.rate} requests/s; large realm: "
            f"{options.files:,} files",
            unit="ms",
            better="lower",
            runs=bench.runs,
            cases=[
                Case(name, partial(measure, name, attackers)) for name, attackers in attacks.items()
            ],
        )
    bench.add(table)
    bench.add(Table("cached pages, median time", "ms", "lower", middle.samples, "none"), plot=False)
    bench.add(Table("cached pages, longest time", "ms", "lower", worst.samples, "none"), plot=False)
    bench.add(Table("memory of the largest web worker", "MiB", "lower", memory.samples, "none"))
    bench.judge(Bar("no cached page fails", failed, at_most=0, always=True))
    for name in attacks:
        text = f"p99 of the time of a cached page, in ms; attack at the same time: {name}"
        bench.judge(Bar(text, table.median(name), at_most=P99_MS))
    peak = max(max(each) for each in memory.samples.values())
    bench.judge(Bar("memory of the largest web worker, MiB", peak, at_most=MEMORY_MIB))


def files(count: int) -> dict[str, bytes]:
    """Returns `count` files. Half of them are in one folder, and half in folders of a hundred files
    each."""
    half = count // 2
    made = {f"flat/file-{number:06}.json": b"{}" for number in range(half)}
    return made | {f"deep/{n // 100:04}/file-{n:06}.json": b"{}" for n in range(count - half)}


def scenarios(port: int, login: dict[str, str]) -> "dict[str, list[Attack]]":
    """Returns the attackers of each attack, by the attack's name."""
    headers = Attack("headers", port)
    bodies = Attack("bodies", port, login)
    readers = Attack("readers", port)
    listings = Attack("listings", port)
    return {
        "none": [],
        "40 slow request headers": [headers],
        "40 slow request bodies": [bodies],
        "40 unread answers of 5 MB": [readers],
        "20 readers of listings": [listings],
        "all four at once": [headers, bodies, readers, listings],
    }


@dataclass(frozen=True)
class Attack:
    """An attack of one kind on a port. The attack is a function for a process of its own. It sets
    the event `begun` when it has begun, and ends when the event `stop` is set."""

    kind: str
    port: int
    login: dict[str, str] | None = None

    def __call__(self, begun: Any, stop: Any) -> None:
        from tests.support.clients.slow_clients import (
            all_of,
            never_reading,
            slow_bodies,
            slow_headers,
        )

        if self.kind == "listings":
            urls = (f"{LARGE}_mtimes", f"{LARGE}flat/", LARGE)
            threads = [
                threading.Thread(target=_asking, args=(self.port, urls[n % 3], stop), daemon=True)
                for n in range(20)
            ]
            for thread in threads:
                thread.start()
            begun.set()
            stop.wait()
            return
        # The server closes the connections of slow clients, so start the attack anew every 12 s.
        while not stop.is_set():
            if self.kind == "headers":
                attack = all_of(slow_headers(self.port, 40))
            elif self.kind == "bodies":
                attack = all_of(slow_bodies(self.port, 40, f"{SITE}new.bin", headers=self.login))
            else:
                attack = all_of(*(
                    never_reading(self.port, 5, f"{SITE}large-{number}.bin") for number in range(8)
                ))  # fmt: skip
            with attack:
                begun.set()
                stop.wait(12)


def _asking(port: int, url: str, stop: Any) -> None:
    from tests.support.web import ask

    while not stop.is_set():
        with suppress(OSError):
            ask(port, "GET", url, accept=API)


@contextmanager
def _process(attack: Callable[[Any, Any], None]) -> Iterator[None]:
    context = multiprocessing.get_context("fork")
    begun, stop = context.Event(), context.Event()
    process = context.Process(target=attack, args=(begun, stop), daemon=True)
    process.start()
    try:
        begun.wait(30)
        yield
    finally:
        stop.set()
        process.join(5)
        process.kill()
        process.join()


@contextmanager
def _changing(realm: Any) -> Iterator[None]:
    """Writes a file of a realm each second, so that the replica must rebuild the realm's
    listings."""
    from django.db import connection

    from tests.support import make

    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(1):
            number += 1
            make.write_paths(realm, {"flat/changing.json": json.dumps(number).encode()})
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- Measurements ------------------------------------------------------------------------------


@dataclass
class Visit:
    """The durations of the answered requests in seconds, and the number of failed requests."""

    times: list[float]
    failed: int

    def p(self, share: int) -> float:
        """Returns the time within which `share` percent of the answers arrived."""
        ordered = sorted(self.times) or [float("inf")]
        return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


async def visit(port: int, rate: int, seconds: float) -> Visit:
    """Requests the pages at a steady rate. Sends each request when it is due, even if answers to
    earlier requests haven't arrived yet."""
    began = time.perf_counter() + 0.1
    tasks = [
        asyncio.create_task(_ask(port, PAGES[number % len(PAGES)], began + number / rate))
        for number in range(int(rate * seconds))
    ]
    results = await asyncio.gather(*tasks)
    times = [each for each in results if each is not None]
    return Visit(times, len(results) - len(times))


async def _ask(port: int, url: str, due: float) -> float | None:
    await asyncio.sleep(max(0, due - time.perf_counter()))
    path = "/" + url.split("/", 3)[3]
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:4201\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.encode())
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return None
    answered = answer.startswith(b"HTTP/1.1 200") and b"x-boxel-cache: hit" in answer
    return time.perf_counter() - due if answered else None


class Memory:
    """Watches the web workers during a `with` block. `peak` is the largest resident size of any
    worker. Unit: bytes."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                for worker in psutil.Process(self._pid).children(recursive=True):
                    self.peak = max(self.peak, worker.memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())

"""Measures the delay from the commit of a change until no replica uses the old cache entry.

Each replica has a sidecar, which listens to Postgres, and a board, a file with numbered slots. When
a file changes, the sidecar moves the file's slot, which means that it overwrites the slot with a
new number. After that no web worker of the replica uses an older cache entry of the file. So for
sidecars the delay ends when the last sidecar has moved the slot. The peers are bare LISTEN,
django-pgpubsub and Redis. A peer's listeners keep their entries in dictionaries, so for peers the
delay ends when the last listener has dropped the entry. Every change is a transaction that updates
one row. Every listener is a process of its own. A sidecar runs the complete command
`listen_file_changes`, so it also reports its state to the database. If a listener of a peer misses
a change, the benchmark records a delay of 30 s for the peer, and doesn't measure the peer again.

The second measurement is the delay from a change of a file until a cache refuses the entry with the
file's old bytes, for a small and a large cache. The third measurement is the time from the return
of a write to the first GET that returns the new bytes. The GETs go to a replica that has two web
workers and has cached the old bytes. For comparison, the benchmark measures a GET that bypasses the
caches and reads the database.
"""

import http.client
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from bench.support.comparing import Bar, Case, Table, WrongBytes, compare
from bench.support.console import console
from bench.support.listeners import (
    PATIENCE,
    REALM,
    Unheard,
    Way,
    bare,
    listening,
    pgpubsub,
    redis_pubsub,
    sidecar,
)
from bench.support.peers import Missing
from bench.support.quantiles import share
from bench.support.running import Bench

#: Maps each rate to the duration of the measurement at that rate. Rates are in changes a second,
#: durations in seconds.
RATES = {1: 5.0, 100: 3.0, 1000: 1.5}
REPLICAS = (1, 4, 16)
ENTRIES = (10, 100_000)


def main() -> int:
    bench = Bench("invalidate", __doc__)
    with bench:
        ways = _ways(bench)
        for replicas in (1, 2) if bench.quick else REPLICAS:
            for rate, seconds in RATES.items() if replicas == 4 else ((100, RATES[100]),):
                heard(bench, ways, replicas, rate, 0.2 if bench.quick else seconds)
        refused(bench, (10, 1000) if bench.quick else ENTRIES, 10 if bench.quick else 200)
        over_http(bench, 10 if bench.quick else 100)
    return bench.finish()


def _ways(bench: Bench) -> list[Way]:
    """Returns the ways to invalidate caches. Leaves out a peer if its program isn't installed."""
    ways = [sidecar(), bare()]
    for each in (pgpubsub, redis_pubsub):
        try:
            ways.append(each())
        except Missing as missing:
            bench.skipped[missing.name] = missing.remedy
    return ways


# --- The delay until all listeners have applied a change ---------------------------------------


def heard(bench: Bench, ways: list[Way], replicas: int, rate: int, seconds: float) -> None:
    """Measures the p99 and the median of the delay from the commit of a change until every listener
    has applied the change."""
    medians: dict[str, list[float]] = {}
    title = f"delay from commit to last listener; replicas: {replicas}, changes/s: {rate:,}"

    def measure(way: Way) -> Callable[[], float]:
        def note(half: float) -> None:
            medians.setdefault(way.name, []).append(half)

        def run() -> float:
            if way not in ways:
                note(PATIENCE * 1000)
                return PATIENCE * 1000
            try:
                with listening(way, replicas, bench.folder, int(rate * seconds) + 1) as found:
                    times = found.run(rate, seconds)
            except Unheard as unheard:
                if way.name == "sidecar":
                    raise
                # A peer's listener has missed a change, so the peer's delay counts as PATIENCE, and
                # the peer isn't measured again.
                bench.skipped[f'{way.name} in "{title}" and in later tables'] = str(unheard)
                ways.remove(way)
                note(PATIENCE * 1000)
                return PATIENCE * 1000
            note(share(times, 50))
            if found.rate < 0.9 * rate and len(times) > 100:
                console.print(f"{title}: {way.name} reached only {found.rate:.0f} changes/s")
            return share(times, 99)

        return run

    table = compare(
        f"p99 of the {title}", unit="ms", better="lower", runs=bench.runs,
        cases=[Case(way.name, measure(way)) for way in ways], reference="bare LISTEN",
    )  # fmt: skip
    bench.add(table)
    # Each run measures every case once. So the n-th sample of each case in `medians` is from run n,
    # as `Table` requires.
    middle = Table(f"median of the {title}", "ms", "lower", medians, "bare LISTEN")
    bench.add(middle)
    # With fewer than 100 changes the p99 would be the slowest change, so the median is judged.
    which, judged = ("p99", table) if rate * seconds >= 100 else ("median", middle)
    bench.judge(
        Bar(
            f"{which} of the {title}; the sidecar's {which} is at most twice that of bare LISTEN",
            judged.ratio("sidecar", "bare LISTEN"),
            at_most=2,
        )
    )


# --- The delay until a cache refuses a changed entry -------------------------------------------


def refused(bench: Bench, sizes: tuple[int, ...], times: int) -> None:
    """Measures the delay from a change until a cache refuses the changed entry, for caches of
    several sizes. In the first table each change affects one file. In the second table each change
    affects all files."""
    from notifications.board import Board, Slots, now_ns
    from notifications.channels import path_key, realm_key
    from notifications.stamped_cache import StampedCache

    def measure(entries: int, wildcard: bool) -> float:
        changes = times + 1
        with listening(sidecar(), 1, bench.folder, changes) as found:
            board = Board(found.boards[0])
            cache: StampedCache[bytes] = StampedCache(
                board, max_bytes=1 << 40, size_of=len, bound_ns=int(2e9)
            )
            slots = {
                name: Slots([realm_key(REALM), path_key(REALM + name)])
                for name in (f"file-{number}" for number in range(max(entries, changes)))
            }

            def put(name: str) -> None:
                cache.put(name, name.encode(), slots[name], board.stamp(slots[name]))

            for name in list(slots)[-entries:]:
                put(name)
            waited = []
            for number in range(times):
                name, other = f"file-{number}", list(slots)[-1]
                put(name)
                put(other)
                if cache.get(name) != name.encode():
                    raise WrongBytes("the cache refuses an unchanged entry")
                at = found.change("*" if wildcard else "")
                while cache.get(name) is not None or (wildcard and cache.get(other) is not None):
                    if now_ns() - at > 10e9:
                        raise WrongBytes(
                            "the cache still returns the old entry 10 s after the change"
                        )
                waited.append((now_ns() - at) / 1e6)
            return median(waited)

    for wildcard, what in (
        (False, "the entry of one changed file"),
        (True, "the entries of all files"),
    ):
        cases = [Case(f"{size:,} entries", partial(measure, size, wildcard)) for size in sizes]
        table = compare(
            f"delay from a change until a cache refuses {what}: median of {times}",
            unit="ms", better="lower", runs=bench.runs, cases=cases,
        )  # fmt: skip
        bench.add(table)
        least, most = cases[0].name, cases[-1].name
        bench.judge(
            Bar(
                f"delay from a change until a cache refuses {what}: "
                f"at most 1.5 times as long with {most} as with {least}",
                table.ratio(most, least),
                at_most=1.5,
            )
        )


# --- Over HTTP ---------------------------------------------------------------------------------


def over_http(bench: Bench, times: int) -> None:
    """Measures the time from a write until a GET returns the new bytes, and compares this time with
    the time of a GET that bypasses the caches."""
    from tests.support import make
    from tests.support.cluster import cluster

    realm = make.source(REALM, make.user("ada"), {"page.css": b"0"})
    with cluster(bench.folder, 1) as fleet:
        client = http.client.HTTPConnection("127.0.0.1", fleet.replicas[0].port, timeout=30)

        def get(query: str = "") -> bytes:
            client.request("GET", f"/ada/site/page.css{query}", headers={"Host": "localhost:4201"})
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise WrongBytes(f"status {answer.status}: {body[:200]!r}")
            return body

        written = 0

        def fresh() -> float:
            nonlocal written
            waited = []
            for _ in range(times):
                written += 1
                new = str(written).encode()
                make.write_paths(realm, {"page.css": new})
                at = time.perf_counter()
                while (body := get()) != new:
                    if int(body) != written - 1:
                        raise WrongBytes(f"a GET returned {body!r} after {new!r} was committed")
                waited.append((time.perf_counter() - at) * 1000)
                if get() != new:
                    raise WrongBytes("a GET returned old bytes after a GET had returned new bytes")
            return share(waited, 99)

        def alone() -> float:
            waited = []
            for _ in range(times):
                at = time.perf_counter()
                get("?noCache=true")
                waited.append((time.perf_counter() - at) * 1000)
            return share(waited, 99)

        bench.add(
            compare(
                f"time from a write's return to the first fresh answer: p99 of {times}",
                unit="ms",
                better="lower",
                runs=bench.runs,
                reference="GET without caches",
                cases=[Case("first fresh GET", fresh), Case("GET without caches", alone)],
            )
        )
        client.close()


if __name__ == "__main__":
    sys.exit(main())

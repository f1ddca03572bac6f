"""Measures the memory that a cached answer takes in addition to its body, and whether caches keep
to their budget, REALM_CACHE_BYTES.

`tracemalloc` counts the bytes that Python frees when a process drops its caches, and says which
lines of code allocated these bytes. The caches must keep to their budget, even if a process gets
requests for more files than its caches can hold. The benchmark also measures the resident memory of
a web worker that has answered requests for 100,000 files, because operators see this figure.
Resident memory includes memory outside the caches, such as headers that many replies share, and
memory that the allocator doesn't return to the system.
"""

import gc
import sys
import sysconfig
import tracemalloc
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.support.asking import milliseconds_each
from bench.support.comparing import Bar, Case, Table, compare
from bench.support.console import console
from bench.support.replicas import Replica, replica
from bench.support.running import ORIGIN, Bench

SITE = f"{ORIGIN}/ada/site/"
HOST = ORIGIN.partition("://")[2]
SMALL, LARGE = 100, 64 * 1024
MIB = 1024**2
#: A budget that no cache of this benchmark fills.
PLENTY = 4096 * MIB
#: The table of the memory that each line of code allocates shows this many lines of code. One more
#: row shows the sum of all other lines.
PLACES = 15
ROOT, LIBRARY = Path(__file__).parents[1], sysconfig.get_path("stdlib")


def text_of(number: int, size: int) -> bytes:
    """Returns `size` bytes of text. Two different values of `number` give two different texts."""
    return f"/* {number:08} */".ljust(size).encode()


#: The files that a client requests from a worker before the worker's memory is measured.
WARMING = {f"warm-{number}.css": text_of(number, SMALL) for number in range(64)}


def main() -> int:
    bench = Bench("memory", __doc__, runs=1)
    add = bench.parser.add_argument
    add("--entries", type=int, default=100_000, help="cached files (default: 100,000)")
    add("--traced", type=int, default=20_000, help="entries for tracemalloc (default: 20,000)")
    add("--budget", type=int, default=16, help="budget of a cache in MiB (default: 16)")
    if bench.quick:
        bench.options.entries, bench.options.traced, bench.options.budget = 400, 200, 1
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from tests.support import make

    options = bench.options
    owner = make.user("ada")
    small = {f"small-{number:06}.css": text_of(number, SMALL) for number in range(options.entries)}
    large = {
        f"large-{number:04}.css": text_of(number, LARGE)
        for number in range(2 * options.budget * MIB // LARGE)
    }
    with console.status(f"writing {options.entries:,} files"):
        make.source(SITE, owner, WARMING | small | large)
    worker, traced = "growth of a web worker's resident memory", "held by the cache"
    some = list(small)[: options.traced]
    entries = compare(
        "memory that a cached answer takes in addition to its body",
        unit="bytes",
        better="lower",
        runs=bench.runs,
        cases=[
            Case(traced, lambda: held(bench, some, PLENTY) / len(some) - SMALL),
            Case(worker, partial(resident, bench, small)),
        ],
    )
    bench.add(entries)
    text = "a cached answer takes at most 600 bytes in addition to its body"
    bench.judge(Bar(text, entries.median(traced), at_most=600))
    budget, most = options.budget * MIB, list(small)[: 2 * options.traced]
    kept = compare(
        f"memory that a full cache with a budget of {options.budget} MiB holds",
        unit="MiB",
        better="lower",
        runs=bench.runs,
        cases=[
            Case(f"files of {SMALL} B", partial(mib_held, bench, most, budget)),
            Case("files of 64 KB", partial(mib_held, bench, list(large), budget)),
        ],
    )
    bench.add(kept)
    for name, samples in kept.samples.items():
        text = f"a cache full of {name} holds at most 1.05 times its budget"
        bench.judge(Bar(text, max(samples) / options.budget, at_most=1.05))
    grown = compare(
        f"growth of a web worker, with a budget of {options.budget} MiB for each cache",
        unit="MiB",
        better="lower",
        runs=bench.runs,
        cases=[
            Case(
                f"files of {SMALL} B",
                partial(growth, bench, {path: small[path] for path in most}, budget),
            ),
            Case("files of 64 KB", partial(growth, bench, large, budget)),
        ],
    )
    bench.add(grown)


def resident(bench: Bench, bodies: Mapping[str, bytes]) -> float:
    """Returns the growth of a worker's resident memory for each cached answer, minus the size of
    the answer's body. Unit: bytes."""
    with replica(bench.folder, REALM_CACHE_BYTES=str(PLENTY)) as ours:
        grown, rss = fill(ours, bodies)
    bench.add(Table(f"memory of a web worker that has cached {len(bodies):,} files of {SMALL} B",
                    "MiB", "lower", {"resident memory": [rss / MIB]}))  # fmt: skip
    return grown / len(bodies) - SMALL


def growth(bench: Bench, bodies: Mapping[str, bytes], budget: int) -> float:
    """Returns how much a worker's resident memory grows while the worker answers requests for more
    files than its cache can hold. Unit: MiB."""
    with replica(bench.folder, REALM_CACHE_BYTES=str(budget)) as ours:
        return fill(ours, bodies)[0] / MIB


def fill(ours: Replica, bodies: Mapping[str, bytes]) -> tuple[int, int]:
    """Requests all files. Returns the growth of the worker's resident memory, and the size of this
    memory afterwards. Unit: bytes."""
    ask(ours, WARMING)
    before = ours.worker.memory_info().rss
    ask(ours, bodies)
    after = ours.worker.memory_info().rss
    return after - before, after


def ask(ours: Replica, bodies: Mapping[str, bytes]) -> None:
    paths = [f"/{SITE.split('/', 3)[3]}{path}" for path in bodies]
    milliseconds_each(ours.port, HOST, paths, list(bodies.values()))


def held(bench: Bench, paths: list[str], budget: int) -> int:
    """Loads files into a cache with this budget, drops the cache, and returns how many bytes this
    frees. If the budget is PLENTY, adds a table that shows which lines of code allocated these
    bytes."""
    from django.test import override_settings

    from realms.serving import answers
    from realms.serving.contents import Variant

    answers.caches.cache_clear()
    with override_settings(REALM_CACHE_BYTES=budget):
        answers.load(Variant.MODULE, SITE + paths[0])
        tracemalloc.start()
        for path in paths:
            answers.load(Variant.MODULE, SITE + path)
        full = snapshot()
        answers.caches.cache_clear()
        empty = snapshot()
        tracemalloc.stop()
    places: dict[str, int] = {}
    for each in full.compare_to(empty, "lineno"):
        frame = each.traceback[0]
        path = frame.filename.split("site-packages/")[-1].removeprefix(f"{ROOT}/")
        place = path.removeprefix(f"{LIBRARY}/")
        places[f"{place}:{frame.lineno}"] = each.size_diff
    if budget == PLENTY:
        ordered = sorted(places.items(), key=lambda place: -place[1])
        ordered[PLACES:] = [("all other lines", sum(size for _, size in ordered[PLACES:]))]
        samples = {name: [size / len(paths)] for name, size in ordered}
        title = "memory that each line of code allocates for a cached answer and its body"
        bench.add(Table(title, "bytes", "lower", samples))
    return sum(places.values())


def mib_held(bench: Bench, paths: list[str], budget: int) -> float:
    """Returns the result of `held` in MiB."""
    return held(bench, paths, budget) / MIB


def snapshot() -> tracemalloc.Snapshot:
    gc.collect()
    return tracemalloc.take_snapshot()


if __name__ == "__main__":
    sys.exit(main())

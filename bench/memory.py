"""Measures how much memory a cached answer takes beyond its body, and whether the caches keep to
their budget.

Three figures, because each hides something. The resident memory of a web worker that has answered
100,000 files counts everything that grew, also what serves requests and holds no answers. The bytes
that Python frees when a process drops its caches are the entries' alone, by `tracemalloc`. The
lines that allocated them say where they go. For the budget a worker gets more files than its cache
can hold.
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
from bench.support.replicas import Replica, replica
from bench.support.running import ORIGIN, Bench
from bench.support.screen import console

SITE = f"{ORIGIN}/ada/site/"
HOST = ORIGIN.partition("://")[2]
SMALL, LARGE = 100, 64 * 1024
MIB = 1024**2
#: More than any cache of this benchmark holds.
PLENTY = 4096 * MIB
#: Lines that are named; the rest are summed.
PLACES = 15
ROOT, LIBRARY = Path(__file__).parents[1], sysconfig.get_path("stdlib")


def text(number: int, size: int) -> bytes:
    """A text of this size that no other number has."""
    return f"/* {number:08} */".ljust(size).encode()


#: A worker has answered these before it is measured.
WARMING = {f"warm-{number}.css": text(number, SMALL) for number in range(64)}


def main() -> int:
    bench = Bench("memory", __doc__, runs=1)
    add = bench.parser.add_argument
    add("--entries", type=int, default=100_000, help="cached files (default: 100,000)")
    add("--traced", type=int, default=20_000, help="entries that are traced (default: 20,000)")
    add("--budget", type=int, default=32, help="the size of a cache in MiB (default: 32)")
    if bench.quick:
        bench.options.entries, bench.options.traced, bench.options.budget = 400, 200, 1
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from tests.support import make

    options = bench.options
    owner = make.user("ada")
    small = {f"small-{number:06}.css": text(number, SMALL) for number in range(options.entries)}
    budget = options.budget * MIB
    large = {f"large-{n:04}.css": text(n, LARGE) for n in range(2 * budget // LARGE)}
    with console.status(f"writing {options.entries:,} files"):
        make.source(SITE, owner, WARMING | small | large)
    worker, traced = "resident memory of a web worker", "traced, freed with the caches"
    entries = compare(
        "a cached answer beyond its body",
        unit="bytes an entry",
        better="lower",
        runs=bench.runs,
        cases=[
            Case(worker, partial(resident, bench, small)),
            Case(traced, partial(freed, bench, list(small)[: options.traced])),
        ],
    )
    bench.add(entries)
    bench.judge(Bar("a cached answer takes under 600 bytes beyond its body, by tracemalloc",
                    entries.median(traced), at_most=600))  # fmt: skip
    for name, bodies in (("files of 100 B", small), ("files of 64 KB", large)):
        table = compare(
            f"growth of a worker with a cache of {options.budget} MiB, {name}",
            unit="MiB",
            better="lower",
            runs=bench.runs,
            cases=[Case(name, partial(growth, bench, bodies, budget))],
        )
        bench.add(table)
        most = max(table.samples[name]) / options.budget
        bench.judge(Bar(f"memory above the budget, {name}: growth / budget", most, at_most=1.05))


def resident(bench: Bench, bodies: Mapping[str, bytes]) -> float:
    """The growth of a worker's resident memory for each answer that it cached. Unit: bytes."""
    with replica(bench.folder, REALM_CACHE_BYTES=str(PLENTY)) as ours:
        grown, rss = fill(ours, bodies)
    bench.add(Table(f"web worker with {len(bodies):,} files of {SMALL} B cached", "MiB", "lower",
                    {"resident memory": [rss / MIB]}))  # fmt: skip
    return grown / len(bodies) - SMALL


def growth(bench: Bench, bodies: Mapping[str, bytes], budget: int) -> float:
    """The growth of a worker's resident memory while more files are asked for than its cache can
    hold. Unit: MiB."""
    with replica(bench.folder, REALM_CACHE_BYTES=str(budget)) as ours:
        return fill(ours, bodies)[0] / MIB


def fill(ours: Replica, bodies: Mapping[str, bytes]) -> tuple[int, int]:
    """The growth of the worker's memory while all files are asked for, and the memory then."""
    ask(ours, WARMING)
    before = ours.worker.memory_info().rss
    ask(ours, bodies)
    after = ours.worker.memory_info().rss
    return after - before, after


def ask(ours: Replica, bodies: Mapping[str, bytes]) -> None:
    paths = [f"/{SITE.split('/', 3)[3]}{path}" for path in bodies]
    milliseconds_each(ours.port, HOST, paths, list(bodies.values()))


def freed(bench: Bench, paths: list[str]) -> float:
    """The bytes that this process frees for each entry when it drops its caches, and a table of the
    lines that allocated them."""
    from django.test import override_settings

    from realms.serving import answers
    from realms.serving.contents import Variant

    answers.caches.cache_clear()
    with override_settings(REALM_CACHE_BYTES=PLENTY):
        answers.load(Variant.MODULE, SITE + paths[0])
        tracemalloc.start()
        for path in paths:
            answers.load(Variant.MODULE, SITE + path)
        full = snapshot()
        answers.caches.cache_clear()
        empty = snapshot()
        tracemalloc.stop()
    places: dict[str, float] = {}
    for each in full.compare_to(empty, "lineno"):
        frame = each.traceback[0]
        path = frame.filename.split("site-packages/")[-1].removeprefix(f"{ROOT}/")
        place = path.removeprefix(f"{LIBRARY}/")
        places[f"{place}:{frame.lineno}"] = each.size_diff / len(paths)
    ordered = sorted(places.items(), key=lambda place: -place[1])
    rest = sum(size for _, size in ordered[PLACES:])
    samples = {name: [size] for name, size in [*ordered[:PLACES], ("all other lines", rest)]}
    bench.add(Table("where an entry was allocated, its body included", "bytes", "lower", samples))
    return sum(places.values()) - SMALL


def snapshot() -> tracemalloc.Snapshot:
    gc.collect()
    return tracemalloc.take_snapshot()


if __name__ == "__main__":
    sys.exit(main())

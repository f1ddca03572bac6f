"""Measures how fast a realm's pages are rendered, for all its cards and after a small change.

The benchmark starts two replicas and a Celery worker with two processes, on a new database and with
default settings. It publishes a realm through one replica, and measures the time until the other
replica reports that the pages are ready. There are three cases: all cards are rendered, one card
has changed, or one module that several cards use has changed.

For comparison, three other programs make pages of the same cards. Jinja2 renders all cards in one
process. Astro builds a site of all cards. Chromium opens 200 of the cards in tabs. As many tabs are
open at a time as the machine has processors. These programs make only one page for each card. The
realm server also renders the card's other formats, and makes a search document and a database row
for the card.

With --large the benchmark also renders a larger realm once. It compares the mean time for a card in
the larger realm with the mean time for a card in the usual realm.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from bench.support import pages
from bench.support.cards import card, fields_with_links, files, module, users
from bench.support.comparing import Bar, Case, Table, WrongBytes, compare
from bench.support.console import console
from bench.support.running import Bench

SITE = "http://ada.localhost:4201/"
SOURCE = "http://localhost:4201/ada/bench/"
LARGE_SITE = "http://large.localhost:4201/"
LARGE_SOURCE = "http://localhost:4201/ada/large/"
#: The benchmark changes the module with this number.
MODULE = 2
SAMPLE_SECONDS = 0.02


def main() -> int:
    bench = Bench("reindex", __doc__)
    add = bench.parser.add_argument
    add("--cards", type=int, default=10_000, help="cards of the realm (default: 10,000)")
    add("--modules", type=int, default=20, help="modules of the realm (default: 20)")
    add("--repeat", dest="runs", type=int, default=3, help="the same as --runs")
    add(
        "--large",
        type=int,
        help="also renders a larger realm, which has this many cards, for example 100000; "
        "this takes minutes",
    )
    if bench.quick:
        bench.options.cards, bench.options.modules = 60, 5
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from notifications.channels import REALM_INDEX_SWAPPED
    from notifications.listener import listen_connection
    from tests.support import make
    from tests.support.cluster import cluster

    options = bench.options
    realm = make.source(SOURCE, make.user("ada"), files(options.cards, options.modules))
    others = _others(bench)
    done: list[tuple[str, Run]] = []
    memory = Memory()
    # `cluster` would set shorter times, because tests need them. These are the server's defaults.
    with cluster(bench.folder, 2, REALM_RENDER_SECONDS="5", REALM_SWEEP_SECONDS="5") as fleet:
        fleet.start_worker()
        wait_idle()
        with memory.watched(), listen_connection() as swaps:
            swaps.execute(f"LISTEN {REALM_INDEX_SWAPPED}")

            def publish(name: str, number: int, shows: str, *, full: bool = False) -> float:
                wait_idle()
                run = measure(fleet, swaps, full=full)
                done.append((name, run))
                page = fleet.replicas[1].get(f"{SITE}card/{number}", "text/html")
                if page.status != 200 or shows not in page.text:
                    raise WrongBytes(f"{shows!r} is missing in {page.text[:300]!r}")
                return run.seconds

            def all_pages() -> float:
                return float(options.cards / publish("full", 5, "NOTE 5", full=True))

            def one_card() -> float:
                edition = f"edition {len(done)}"
                make.write_paths(realm, {"card/5.json": card(5, options, edition)})
                return publish("one card changed", 5, edition)

            def one_module() -> float:
                word = f"rank{len(done)}"
                make.write_paths(realm, {f"type{MODULE}.tsx": module(MODULE, word)})
                return publish("one module changed", MODULE, f" of {word} ")

            speeds = compare(
                f"pages of {options.cards:,} cards with types in {options.modules} modules",
                unit="pages/s", better="higher", runs=bench.runs,
                cases=[Case("realm server", all_pages), *others],
            )  # fmt: skip
            used = f"one module changed, used by {len(users(MODULE, options)):,} cards"
            changes = compare(
                f"time from a publish until its pages are ready: {options.cards:,} cards",
                unit="s", better="lower", runs=bench.runs, reference="full",
                cases=[Case("one card changed", one_card), Case(used, one_module)],
            )  # fmt: skip
            if options.large:
                _large(bench, fleet, swaps, done)
    full = [each.seconds for name, each in done if name == "full"]
    bench.add(speeds)
    bench.add(replace(changes, samples={"full": full, **changes.samples}))
    bench.judge(
        Bar(
            "at least 50 times as fast as Chromium",
            speeds.ratio("realm server", "Chromium, of 200"),
            at_least=50,
        )
    )
    bench.judge(Bar("at least as fast as Astro", speeds.ratio("realm server", "Astro"), at_least=1))
    for name, each in done:
        console.print(
            f"{name}: ready after {each.seconds:.2f} s; job queued for {each.waited:.2f} s, then "
            f"run in {each.worked:.2f} s; {each.job.rendered:,} cards rendered, "
            f"{each.job.carried:,} kept from the last index; processor seconds: "
            + ", ".join(f"{name} {cpu:.2f}" for name, cpu in each.cpu.items() if cpu > 0.005)
        )
    errors = sum(each.job.errors for _, each in done)
    if errors:
        console.print_json(data=[each.job.summary for _, each in done])
    bench.judge(Bar("number of cards with errors", errors, at_most=0, always=True))
    peak = {"prerenderer": [memory.peak / 1024**2]}
    bench.add(Table("peak memory of a prerenderer", "MiB", "lower", peak, "prerenderer"))


@dataclass
class Run:
    """One publish and the `job` that rendered its pages. `seconds` is the time from the publish
    request until the pages were ready. `waited` is the time from the publish request until a worker
    started the job. `worked` is the time from then until the job ended. `cpu` has the processor
    time that each program used. Unit: seconds."""

    seconds: float
    waited: float
    worked: float
    job: Any
    cpu: dict[str, float]


def wait_idle() -> None:
    """Waits until the workers have rendered all realms, and have built the definitions of all
    modules (descriptions of their card types). Then runs VACUUM and CHECKPOINT, so that Postgres
    doesn't run them during the next measurement."""
    from django.db import connection

    from reindex.models import ReindexJob, WantedDefinitions
    from tests.support.cluster import wait_until

    live = ReindexJob.objects.live()
    wait_until(lambda: not live.exists(), "all realms are rendered", 300)
    messages = Path(os.environ["REALM_DATA_DIR"]) / "broker" / "messages"

    def idle() -> bool:
        before = sum(cpu_seconds().values())
        time.sleep(0.2)
        busy = sum(cpu_seconds().values()) - before
        # An empty folder of messages doesn't prove that all work is done. A worker takes the
        # message about a module's definitions from the folder at once, but builds the definitions
        # only a second later.
        pending = live.exists() or WantedDefinitions.objects.exists()
        return not any(messages.glob("*.msg")) and not pending and busy < 0.05

    wait_until(idle, "the workers are idle", 300)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def prerenderers() -> list[psutil.Process]:
    """Returns the running prerenderers, the Deno processes that render cards."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == "deno":
                found.append(process)
    return found


def measure(fleet: Any, swaps: Any, *, full: bool, source: str = SOURCE, site: str = SITE) -> Run:
    """Publishes the realm `source` at `site` through the first replica. Measures the time until the
    second replica reports that the pages are ready. With `full`, all cards are rendered, even those
    that haven't changed. `swaps` is a connection that listens for index swaps. An index swap makes
    a job's pages visible in place of the old ones."""
    from django.utils import timezone

    from reindex.models import ReindexJob
    from tests.support import make

    a, b = fleet.replicas
    if full:
        # A job keeps only those old pages that the current version of the renderer made. So say
        # that another version made them. Then the next job renders every card.
        ReindexJob.objects.filter(realm_url=site).update(renderer="another")
    busy = cpu_seconds()
    began, at = time.perf_counter(), timezone.now()
    answer = a.request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept="application/vnd.api+json",
        body=json.dumps({"sourceRealmURL": source, "publishedRealmURL": site}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    generation = int(answer.headers["x-realm-generation"])
    check = f"{site}_readiness-check?awaitPrerenderHtml=true"

    def ready() -> bool:
        answer = b.get(check, "application/vnd.api+json")
        return answer.status == 200 and int(answer.headers["x-realm-generation"]) >= generation

    # Requests would slow down the rendering. So ask the replica only after an index swap, or when
    # there has been no index swap for one second.
    while True:
        swapped = next(swaps.notifies(timeout=1, stop_after=1), None)
        if (swapped is None or swapped.payload == site) and ready():
            break
    seconds = time.perf_counter() - began
    job = ReindexJob.objects.filter(realm_url=site).first()
    assert job is not None and job.status == ReindexJob.Status.DONE
    spent = {name: value - busy.get(name, 0) for name, value in cpu_seconds().items()}
    assert job.started_at is not None
    waited = (job.started_at - at).total_seconds()
    return Run(seconds, waited, job.seconds or 0, job, spent)


def _others(bench: Bench) -> list[Case]:
    """Returns a case for each installed peer. The peers are Chromium, Jinja2 and Astro."""
    shown = fields_with_links(bench.options)
    sample = shown[:4] if bench.quick else shown[:200]
    makers = {
        f"Chromium, of {len(sample)}": pages.chromium(sample),
        "Jinja2": pages.jinja(shown),
    }
    if not bench.quick:
        # A smoke test leaves Astro out, because the installation with npm takes longer than the
        # rest of the smoke test.
        makers["Astro"] = pages.astro(shown, bench.folder)
    started = ((name, bench.start(maker)) for name, maker in makers.items())
    return [Case(name, make) for name, make in started if make is not None]


def _large(bench: Bench, fleet: Any, swaps: Any, done: list[tuple[str, Run]]) -> None:
    """Renders a large realm. Compares the mean time for a card in the large realm with the mean
    time for a card in the realm of the other measurements."""
    from django.test import override_settings

    from tests.support import make

    options = bench.options
    # Without this setting, the worker would also render the cards of the source realm itself.
    with override_settings(REALM_INDEX_SOURCES=False):
        make.source(LARGE_SOURCE, make.account("ada"), files(options.large, options.modules))
    wait_idle()
    run = measure(fleet, swaps, full=True, source=LARGE_SOURCE, site=LARGE_SITE)
    usual = statistics.median(each.seconds for name, each in done if name == "full")
    done.append((f"full, {options.large:,} cards", run))
    each = {
        f"{options.cards:,} cards": [usual / options.cards * 1000],
        f"{options.large:,} cards": [run.seconds / options.large * 1000],
    }
    few, many = each
    table = Table(
        "time of a full rendering, divided by the number of cards", "ms", "lower", each, few
    )
    bench.add(table)
    text = f"a card takes at most 1.2 times as long in a realm of {many} as in a realm of {few}"
    bench.judge(Bar(text, table.ratio(many, few), at_most=1.2))


def cpu_seconds() -> dict[str, float]:
    """Returns the processor seconds of all running descendant processes, added up by program. The
    figure of `deno` also includes ended child processes of the Celery worker, because these were
    prerenderers."""
    spent: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name, times = process.name(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        ended = times.children_user + times.children_system
        spent[name] = spent.get(name, 0) + times.user + times.system
        spent["deno"] = spent.get("deno", 0) + (
            ended if "celery" in " ".join(_command(process)) else 0
        )
    return spent


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


class Memory:
    """Watches the memory of all prerenderers. `peak` is the largest resident memory that any
    prerenderer has had. Unit: bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for process in prerenderers():
                with suppress(FileNotFoundError, ProcessLookupError):
                    self.peak = max(self.peak, _high_water(process.pid))


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())

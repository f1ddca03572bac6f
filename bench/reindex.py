"""Measures how fast a realm's pages are rendered: all of them, and after a change of one card.

Starts two replicas and a Celery worker with two processes on a new database, with default settings.
Publishes a realm through one replica and measures the time until the other reports that the pages
are ready.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.support.comparing import Bar, Case, Table, compare
from bench.support.running import Bench
from bench.support.screen import console

SITE = "http://ada.localhost:4201/"
SOURCE = "http://localhost:4201/ada/bench/"
SAMPLE_SECONDS = 0.02


def main() -> int:
    bench = Bench("reindex", __doc__)
    add = bench.parser.add_argument
    add("--cards", type=int, default=10_000, help="cards (default: 10,000)")
    add("--modules", type=int, default=20, help="modules (default: 20)")
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
    done: list[tuple[str, Run]] = []
    memory = Memory()
    # The defaults: the tests' fleet has shorter times.
    with cluster(bench.folder, 2, REALM_RENDER_SECONDS="5", REALM_SWEEP_SECONDS="5") as fleet:
        fleet.start_worker()
        wait_idle()
        with memory.watched(), listen_connection() as swaps:
            swaps.execute(f"LISTEN {REALM_INDEX_SWAPPED}")

            def full() -> float:
                wait_idle()
                done.append(("full", measure(fleet, swaps, full=True)))
                return done[-1][1].seconds

            def one() -> float:
                edition = f"edition {len(done)}"
                make.write_paths(realm, {"card/5.json": card(5, options, edition)})
                wait_idle()
                done.append(("one card changed", measure(fleet, swaps, full=False)))
                return done[-1][1].seconds

            table = compare(
                f"publish until a peer's pages are ready: {options.cards:,} cards over "
                f"{options.modules} modules",
                unit="s",
                better="lower",
                runs=bench.runs,
                cases=[Case("full", full), Case("one card changed", one)],
            )
    bench.add(table)
    speeds = [options.cards / each for each in table.samples["full"]]
    bench.add(Table("full reindex", "cards/s", "higher", {"full": speeds}, "full"))
    for name, each in done:
        console.print(
            f"{name}: {each.seconds:.2f} s, queued for {each.waited:.2f}, worked {each.worked:.2f};"
            f" {each.job.rendered:,} rendered, {each.job.carried:,} carried over; "
            "processor seconds: "
            + ", ".join(f"{name} {cpu:.2f}" for name, cpu in each.cpu.items() if cpu > 0.005)
        )
    errors = sum(each.job.errors for _, each in done)
    if errors:
        console.print_json(data=[each.job.summary for _, each in done])
    bench.judge(Bar("cards with errors", errors, at_most=0, always=True))
    peak = {"prerenderer": [memory.peak / 1024**2]}
    bench.add(Table("peak of a prerenderer", "MiB", "lower", peak, "prerenderer"))


@dataclass
class Run:
    """One publish. `seconds` is the time until its pages were ready, `waited` the time until a
    worker started the job, `worked` the job's time. `cpu` is the processor seconds by program."""

    seconds: float
    waited: float
    worked: float
    job: Any
    cpu: dict[str, float]


def wait_idle() -> None:
    """Waits until no work is under way: the source realm's own index, and definitions. Then runs
    VACUUM and CHECKPOINT, which Postgres might otherwise do during the next measurement."""
    from django.db import connection

    from reindex.models import ReindexJob, WantedDefinitions
    from tests.support.cluster import wait_until

    live = ReindexJob.objects.live()
    wait_until(lambda: not live.exists(), "the source realm indexed", 300)
    messages = Path(os.environ["REALM_DATA_DIR"]) / "broker" / "messages"

    def idle() -> bool:
        before = sum(cpu_seconds().values())
        time.sleep(0.2)
        busy = sum(cpu_seconds().values()) - before
        # Definitions are built a second after the pages; workers already hold their messages.
        pending = live.exists() or WantedDefinitions.objects.exists()
        return not any(messages.glob("*.msg")) and not pending and busy < 0.05

    wait_until(idle, "nothing to do", 300)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def prerenderers() -> list[psutil.Process]:
    """The running prerenderers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == "deno":
                found.append(process)
    return found


def measure(fleet: Any, swaps: Any, *, full: bool) -> Run:
    """Publishes, and measures the time until the other replica reports that the pages are ready.
    With `full` every card is rendered. `swaps` is a connection that listens for index swaps."""
    from django.utils import timezone

    from reindex.models import ReindexJob
    from tests.support import make

    a, b = fleet.replicas
    if full:
        # After a change of the renderer no page can be carried over.
        ReindexJob.objects.filter(realm_url=SITE).update(renderer="another")
    busy = cpu_seconds()
    began, at = time.perf_counter(), timezone.now()
    answer = a.request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept="application/vnd.api+json",
        body=json.dumps({"sourceRealmURL": SOURCE, "publishedRealmURL": SITE}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    generation = int(answer.headers["x-realm-generation"])
    check = f"{SITE}_readiness-check?awaitPrerenderHtml=true"

    def ready() -> bool:
        answer = b.get(check, "application/vnd.api+json")
        return answer.status == 200 and int(answer.headers["x-realm-generation"]) >= generation

    # Requests would slow the measured work, so check only after a swap or a silent second.
    while True:
        swapped = next(swaps.notifies(timeout=1, stop_after=1), None)
        if (swapped is None or swapped.payload == SITE) and ready():
            break
    seconds = time.perf_counter() - began
    job = ReindexJob.objects.filter(realm_url=SITE).first()
    assert job is not None and job.status == ReindexJob.Status.DONE
    spent = {name: value - busy.get(name, 0) for name, value in cpu_seconds().items()}
    assert job.started_at is not None
    waited = (job.started_at - at).total_seconds()
    return Run(seconds, waited, job.seconds or 0, job, spent)


def cpu_seconds() -> dict[str, float]:
    """The processor time of all descendant processes by program, ended ones included."""
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
    """The peak resident size of any prerenderer. Unit: bytes."""

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


# --- The realm ---------------------------------------------------------------------------------


def files(cards: int, modules: int) -> dict[str, bytes]:
    """The realm: card types in modules that import from each other, and cards that link."""
    made = {"realm.json": _document("@realm/base", "RealmConfig", {"name": "Bench"}, {})}
    made["common.ts"] = b"export const shout = (text: string) => text.toUpperCase();\n"
    for number in range(modules):
        made[f"type{number}.tsx"] = _module(number, modules)
    options = argparse.Namespace(cards=cards, modules=modules)
    for number in range(cards):
        made[f"card/{number}.json"] = card(number, options, "edition 0")
    return made


def card(number: int, options: argparse.Namespace, edition: str) -> bytes:
    """A card that links to its two neighbours."""
    return _document(
        f"../type{number % options.modules}",
        "Note",
        {
            "title": f"Note {number}",
            "edition": edition,
            "body": f"Some **text** of note {number}.\n\n" + "It goes on for a while. " * 12,
            "tags": [f"tag{number % 7}", f"tag{number % 11}"],
            "rank": number,
        },
        {"next": f"./{(number + 1) % options.cards}", "far": f"./{(number * 7) % options.cards}"},
    )


def _module(number: int, modules: int) -> bytes:
    uses = f'import {{ label }} from "./type{number - 1}.tsx";' if number % 4 else ""
    return f"""\
import {{ Card, containsMany, Embed, linksTo, Markdown, markdown, number, string }}
  from "@realm/base";
import {{ shout }} from "./common.ts";
{uses}
export const label = "type {number}";
export class Note extends Card {{
  static displayName = "Note {number}";
  static fields = {{
    title: string(), edition: string(), body: markdown(), tags: containsMany(string()),
    rank: number(), next: linksTo(() => Card), far: linksTo(() => Card),
  }};
  static isolated = ({{ card }}) => (
    <article>
      <h1>{{shout(card.title)}}</h1><p>{{card.edition}} of rank {{card.rank}}</p>
      <Markdown text={{card.body}} />
      <ul>{{card.tags.map((tag) => <li>{{tag}}</li>)}}</ul>
      <Embed card={{card.next}} /><Embed card={{card.far}} format="atom" />
    </article>
  );
  static embedded = ({{ card }}) => <section><b>{{card.title}}</b> {{card.edition}}</section>;
}}
""".replace("import { label } from", f"import {{ label as before{number} }} from").encode()


def _document(module: str, name: str, attributes: dict[str, Any], links: dict[str, str]) -> bytes:
    return json.dumps({
        "data": {
            "type": "card",
            "attributes": attributes,
            "relationships": {key: {"links": {"self": link}} for key, link in links.items()},
            "meta": {"adoptsFrom": {"module": module, "name": name}},
        }
    }).encode()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

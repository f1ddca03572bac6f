"""Runs one fault campaign. A campaign starts a fleet, sends requests while it injects faults, and
then judges the answers.

The fleet consists of replicas and a Celery worker. Each replica has two web workers and a sidecar,
the process that receives notifications of changes from Postgres.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import urllib3
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg.conninfo import make_conninfo

from tests.faults import broken
from tests.faults.authors import Author
from tests.faults.clients import EDGE, WRITTEN, Client, Reader, Site, wait_all
from tests.faults.injections import Injections, Schedule
from tests.faults.judge.checker import Verdict, Violation, judge
from tests.faults.judge.history import History, marks_of
from tests.faults.judge.truth import Truth
from tests.faults.postgres import Postgres
from tests.support import make
from tests.support.cluster import Cluster, Replica, free_ports
from tests.support.servers.edge import edge
from tests.support.servers.proxy import Proxy
from tests.support.web import API

USERS = ("ada", "bo", "cy")
READERS_PER_REPLICA = 3
#: The value of REALM_EDGE_SECONDS, the number of seconds for which nginx may cache an answer.
EDGE_SECONDS = 1
READS_PER_SECOND = 600
FAULTS_PER_SECOND = 0.45
#: After the last fault, the fleet has this many seconds to bring every replica and every index up
#: to date. A realm's index is all its rendered pages.
QUIET_SECONDS = 90
LOOK_SECONDS = 0.3
_QUIET = {
    "REALM_SWEEP_SECONDS": "1",
    "REALM_BATCH_LEASE_SECONDS": "6",
    "REALM_RENDER_SECONDS": "5",
    # The pages of source realms aren't rendered, because the clients read only pages of published
    # realms.
    "REALM_INDEX_SOURCES": "0",
}


@dataclass(frozen=True)
class Plan:
    """The options of a campaign."""

    seconds: float
    seed: str
    replicas: int
    broken: str = ""
    faults: bool = True
    edge: bool = False


@dataclass
class Outcome:
    """The results of a campaign."""

    plan: Plan
    history: History
    verdict: Verdict
    settled: float | None
    back_to_hits: list[float] = field(default_factory=list)


@contextmanager
def fleet(plan: Plan, folder: Path) -> Iterator[tuple[Cluster, dict[str, Proxy]]]:
    """Runs the replicas of a campaign, and one proxy for each replica. The connection on which the
    replica's sidecar executes LISTEN goes through the proxy. Yields the replicas, and the proxies
    by the names of the replicas."""
    environment = {"DJANGO_SETTINGS_MODULE": "settings"}
    if plan.broken:
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.faults.broken",
            broken.VARIABLE: plan.broken,
        }
    if plan.edge:
        environment["REALM_EDGE_SECONDS"] = str(EDGE_SECONDS)
    made = Cluster(folder, plan.replicas, {**_QUIET, **environment})
    proxies: dict[str, Proxy] = {}
    try:
        for each in made.replicas:
            proxies[each.name] = proxy = Proxy()
            proxy.up()
            listen = make_conninfo(**proxy.parameters)
            for role, process in each.commands.items():
                own = {**process.environment, **environment}
                if role == "sidecar":
                    own["LISTEN_DATABASE_URL"] = listen
                each.commands[role] = replace(process, environment=own)
        made.start()
        yield made, proxies
    finally:
        made.stop()
        for proxy in proxies.values():
            proxy.close()


def run(
    plan: Plan,
    folder: Path,
    tell: Callable[[str], None],
    progress: Callable[[float, History], None],
) -> Outcome:
    """Runs a campaign on a new Postgres server in `folder`, at the port in DATABASE_URL. Calls
    `tell` with a line for each stage. Calls `progress` twice a second, with the seconds since the
    work began and the history so far."""
    with ExitStack() as stack:
        tell("starting Postgres and the fleet")
        postgres = Postgres(folder, urlsplit(settings.DATABASE_URL).port or 5432)
        postgres.start()
        stack.callback(postgres.stop)
        _set_up(plan, postgres)
        stack.callback(connections.close_all)
        running, proxies = stack.enter_context(fleet(plan, folder))
        history, sites = History(), [Site(user) for user in USERS]
        broker = folder / "broker" / "messages"
        injections = Injections(running, postgres, proxies, sites, broker)
        if plan.edge:
            (port,) = free_ports(1)
            upstream = [each.port for each in running.replicas]
            injections.edge = stack.enter_context(edge(folder / "edge", port, upstream))
        return _campaign(plan, postgres, running, injections, sites, history, tell, progress)


def _set_up(plan: Plan, postgres: Postgres) -> None:
    call_command("migrate", verbosity=0)
    for user in USERS:
        make.user(user)
    postgres.keep_account()
    if plan.broken:
        broken.BREAKS[plan.broken][0]()
        if sql := broken.BREAKS[plan.broken][1]:
            with postgres.connect() as connection:
                connection.execute(sql.encode())


def _campaign(
    plan: Plan, postgres: Postgres, running: Cluster, injections: Injections, sites: list[Site],
    history: History, tell: Callable[[str], None], progress: Callable[[float, History], None],
) -> Outcome:  # fmt: skip
    enough = {name: threading.Event() for name in ("authors", "readers", "faults")}
    authors = [
        Author(site, running.replicas, plan.seed, history, enough["authors"]) for site in sites
    ]
    tell("authors make their realms")
    for author in authors:
        author.create()
    asked = list(running.replicas)
    if injections.edge is not None:
        asked.append(Replica(EDGE, injections.edge.port, running, {}))
    each = READS_PER_SECOND / (len(asked) * READERS_PER_REPLICA)
    readers: list[Client] = [
        Reader(replica, number, sites, each, plan.seed, history, enough["readers"])
        for replica in asked
        for number in range(READERS_PER_REPLICA)
    ]
    looker = Looker(postgres, plan.seed, history, enough["readers"])
    faults = Schedule(injections, plan.seed, FAULTS_PER_SECOND, history, enough["faults"])
    tell(f"{plan.seconds:g} s of work" + (" and faults" if plan.faults else ""))
    began = time.monotonic()
    for thread in (*authors, *readers, looker):
        thread.start()
    if plan.faults:
        faults.start()
    while (passed := time.monotonic() - began) < plan.seconds:
        progress(passed, history)
        time.sleep(0.5)
        if faults.broken is not None:
            raise faults.broken
    enough["faults"].set()
    if plan.faults:
        faults.join()
    enough["authors"].set()
    wait_all(authors, 60)
    for author in authors:
        author.open_all()
    if plan.faults:
        # A last fault deletes the messages of the last publishes. Any message makes a worker do any
        # waiting job, so the earlier jobs must have ended. Then only the sweeper can help, a task
        # that runs every second and sends new messages.
        injections.mend()
        _wait_for_jobs(postgres)
        with injections.losing_every_message():
            for author in authors:
                author.publish()
    tell("faults and writes have ended; waiting until every replica is up to date")
    injections.mend()
    settled = _settle(running, sites, readers[0], postgres)
    enough["readers"].set()
    wait_all([*readers, looker], 30)
    tell("judging")
    truth = Truth(postgres.account(), postgres.contents())
    verdict = judge(history, truth, settings.REALM_STALENESS_BOUND, EDGE_SECONDS)
    if isinstance(settled, str):
        verdict.violations.append(
            Violation("P6", f"{QUIET_SECONDS} s after the last fault: {settled}")
        )
    seconds = settled if isinstance(settled, float) else None
    return Outcome(plan, history, verdict, seconds, injections.back_to_hits)


def _wait_for_jobs(postgres: Postgres) -> None:
    """Waits until no reindex job is unfinished and no definitions have to be built, or until
    QUIET_SECONDS have passed."""
    until = time.monotonic() + QUIET_SECONDS
    unfinished = """
        SELECT FROM reindex_reindexjob WHERE status IN ('queued', 'rendering')
        UNION ALL SELECT FROM reindex_wanteddefinitions LIMIT 1
    """
    with postgres.connect() as connection:
        while time.monotonic() < until and connection.execute(unfinished).fetchone() is not None:
            time.sleep(0.2)


def _settle(running: Cluster, sites: list[Site], reader: Client, postgres: Postgres) -> float | str:
    """Waits until every web worker serves the newest content from its cache, and every page is
    rendered. Returns how many seconds this took. If it takes longer than QUIET_SECONDS, returns a
    text that says what is still missing."""
    began, missing = time.monotonic(), "nothing was checked"
    while time.monotonic() < began + QUIET_SECONDS:
        try:
            truth = Truth(postgres.account(), postgres.contents())
            missing = next(_unsettled(running, sites, truth), "")
        except (psycopg.Error, urllib3.exceptions.HTTPError, AssertionError) as error:
            missing = f"{type(error).__name__}: {error}"
        if not missing:
            return time.monotonic() - began
        time.sleep(0.2)
    return missing


def _unsettled(running: Cluster, sites: list[Site], truth: Truth) -> Iterator[str]:
    """Requests the newest content of each realm from every web worker. Yields a text for each
    answer that is outdated or doesn't come from a cache, and for each published realm that has no
    current pages."""
    for site in sites:
        for realm in site.realms:
            newest = truth.newest(realm)
            if newest is None:
                continue
            for replica in running.replicas:
                for path in WRITTEN:
                    for worker, answer in replica.each_worker(
                        realm + path, "application/vnd.card+source"
                    ).items():
                        held = truth.marks(truth.content(realm, newest, path))
                        cache = answer.headers.get("x-boxel-cache")
                        if marks_of(answer.text) != held or cache != "hit":
                            yield f"{worker} answers {answer.status} ({cache}) for {realm}{path}"
        newest = truth.newest(site.published)
        if newest is None:
            continue
        for replica in running.replicas:
            ready = replica.get(f"{site.published}_readiness-check?awaitPrerenderHtml=true", API)
            if ready.status != 200:
                yield f"{site.published} is not ready on {replica.name}: {ready.text[:200]}"
            for worker, answer in replica.each_worker(site.published, "text/html").items():
                if answer.headers.get("x-realm-generation") != str(newest):
                    yield (
                        f"{worker} shows the pages of generation "
                        f"{answer.headers.get('x-realm-generation')}"
                    )


class Looker(Client):
    """Again and again, reads definitions and files in one snapshot of the database. A definition
    describes what a module exports. Records each definition that contradicts the files."""

    def __init__(
        self, postgres: Postgres, seed: str, history: History, stop: threading.Event
    ) -> None:
        super().__init__("looker", seed, history, stop)
        self._postgres = postgres

    def work(self) -> None:
        while not self.stop_asked.wait(LOOK_SECONDS):
            with contextlib.suppress(psycopg.Error), self._postgres.connect() as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                looked, contradictions = _look(connection)
                self.history.looks += looked
                self.history.contradictions += contradictions


_LABELS = """
SELECT r.url, convert_from(b.data, 'UTF8') AS text
FROM realms_realm r
LEFT JOIN LATERAL (
    SELECT source_id, source_generation FROM realms_publication WHERE realm_id = r.id
    ORDER BY generation DESC LIMIT 1
) p ON true
JOIN realms_fileversion v ON v.realm_id = COALESCE(p.source_id, r.id) AND v.path = 'label.ts'
    AND v.from_generation <= COALESCE(p.source_generation, r.generation)
    AND (v.until_generation IS NULL
        OR v.until_generation > COALESCE(p.source_generation, r.generation))
JOIN realms_blob b ON b.sha256 = v.sha256
"""


def _look(connection: "psycopg.Connection[Any]") -> tuple[int, list[str]]:
    """Returns the number of definitions of the modules `note.tsx`, and a text for each definition
    that contradicts the files. The display name in a definition must be the label that the realm's
    `label.ts` has in the same snapshot."""
    definitions = connection.execute(
        "SELECT d.module_url, d.realm_url, d.definitions FROM definitions d"
        " WHERE d.module_url LIKE '%note.tsx' AND d.definitions IS NOT NULL"
    ).fetchall()
    labels = {row["url"]: marks_of(row["text"]) for row in connection.execute(_LABELS).fetchall()}
    wrong = [
        f"the definition of {row['module_url']} has the label {named}, but label.ts has {held}"
        for row in definitions
        if (named := marks_of(str(row["definitions"]["Note"]["displayName"])))
        != (held := labels.get(row["realm_url"]))
    ]
    return len(definitions), wrong

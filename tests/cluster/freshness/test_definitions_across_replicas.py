"""Tests how often a fleet of real processes builds the definitions of a module, while 200 clients
request them.

The definitions of a module describe the card types that the module exports. The fleet builds the
definitions once. If the process that builds them is killed, another process builds them once more.

The tests count builds in two independent ways. They count the Deno processes that the replicas
start, and the log lines of the web services.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import urllib3
from django.db import connection

from definitions.lookup import _election
from definitions.models import Definition
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from tests.support import make
from tests.support.cluster import Answer, Cluster, Replica, cluster, wait_until
from tests.support.web import API

CLIENTS = 200
#: How many seconds the module SLOW_MODULE takes to load. A build loads the module, so a build takes
#: at least as long.
SPIN_SECONDS = 3
SLOW_MODULE = f"""\
import {{ Card, string }} from "@realm/base";
const until = Date.now() + {SPIN_SECONDS * 1000};
while (Date.now() < until);
export class Slow extends Card {{ static fields = {{ patience: string() }}; }}
"""
PATIENCE = 120
#: How many times the test requests a cached file from each replica while the build is suspended.
HITS = 50

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def two(source: Realm, tmp_path: Path) -> Iterator[Cluster]:
    """Yields a cluster of two replicas with two web workers each. A web worker is a process of a
    replica's web service. No Celery worker runs, so only web workers build definitions."""
    sync_base_realm()
    make.write(source, slow__tsx=SLOW_MODULE.encode())
    with cluster(tmp_path, 2, REALM_RENDER_SECONDS="50") as running:
        yield running


class Witness:
    """Records the prerenderers of a cluster by polling the process list. A prerenderer is a Deno
    process that runs card modules. A web worker starts one for each build."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._seen: dict[tuple[int, float], int] = {}
        self._known: set[tuple[int, float]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def prerenderers(self) -> list[psutil.Process]:
        """All prerenderers that have been recorded."""
        return [psutil.Process(pid) for pid, _ in self._seen]

    @property
    def builders(self) -> list[int]:
        """For each process in `prerenderers`, the process id of the web worker that started it."""
        return list(self._seen.values())

    def _watch(self) -> None:
        # A prerenderer runs for seconds, so polls that are 0.1 s apart miss none.
        while not self._over.wait(0.1):
            for process in psutil.process_iter():
                key = (process.pid, process.create_time())
                if key in self._known:
                    continue
                try:
                    mine = process.environ().get("DENO_DIR", "").startswith(self._folder)
                    if any(part.endswith("deno/host.ts") for part in process.cmdline()) and mine:
                        self._seen[key] = process.ppid()
                        self._known.add(key)
                except psutil.Error:
                    continue


def logged_builds(two: Cluster, module: str) -> int:
    """Counts the builds of the module's definitions that the web services have logged."""
    logs = [two.folder / f"web-{replica.name}.log" for replica in two.replicas]
    return sum(log.read_text().count(f"building the definitions of {module}") for log in logs)


@dataclass
class Told:
    """The last answer to one client. `came_again` counts the client's retries after a 503, and
    `connections_lost` counts its retries after a lost connection."""

    answer: Answer
    came_again: int = 0
    connections_lost: int = 0


def ask(replica: Replica, url: str, together: threading.Barrier) -> Told:
    """Requests a URL, and retries after a 503 and after a lost connection. Begins when all clients
    are ready."""
    together.wait()
    told = Told(Answer(0, {}, b""))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            told.answer = replica.request("GET", url, accept=API, timeout=60)
        except urllib3.exceptions.HTTPError:
            told.connections_lost += 1
            continue
        if told.answer.status != 503:
            return told
        told.came_again += 1
        time.sleep(int(told.answer.headers["retry-after"]))
    return told


@contextmanager
def asked(two: Cluster, url: str) -> Iterator[list["Future[Told]"]]:
    """Starts 200 clients, which request the URL at the same time. Half of them ask one replica, and
    half the other. Yields the clients' futures."""
    together = threading.Barrier(CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield [pool.submit(ask, two.replicas[n % 2], url, together) for n in range(CLIENTS)]


def check(clients: list["Future[Told]"], module: str) -> list[Told]:
    """Waits for all clients, and asserts that every client got the result of the same build.
    Returns what each client was told."""
    told = [client.result() for client in clients]
    assert Counter(each.answer.status for each in told) == {200: CLIENTS}
    for each in told:
        document = json.loads(each.answer.text)
        assert list(document["data"]["attributes"]["fields"]) == ["patience"]
        assert document["meta"]["module"] == module
    assert len({json.loads(each.answer.text)["meta"]["builtAt"] for each in told}) == 1
    return told


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Suspends a process during the `with` block. The code in the block may end the process."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@contextmanager
def waited_for(module: str) -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether a process waits until another process has built the
    module's definitions. The processes elect the one that builds. A process that waits tries
    repeatedly to be elected, so a second try shows that a process waits."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION note_try() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM nextval('tries'); RETURN NEW; END $$;
            CREATE TRIGGER note_try BEFORE INSERT ON notifications_election FOR EACH ROW
                WHEN (NEW.key = {_election(module)}) EXECUTE FUNCTION note_try();
            """
        )

    def tried_again() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT last_value > 1 FROM tries")
            return bool(cursor.fetchone()[0])

    try:
        yield tried_again
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION note_try CASCADE; DROP SEQUENCE tries")


def test_200_concurrent_requests_to_two_replicas_cause_one_build(
    two: Cluster, source: Realm
) -> None:
    module = f"{source.url}slow.tsx"
    with (
        waited_for(module) as waiting,
        Witness(two.folder) as witness,
        asked(two, url_of(source)) as clients,
    ):
        wait_until(waiting, "a process waits for the build")
    told = check(clients, module)
    assert len(witness.builders) == 1
    assert logged_builds(two, module) == 1
    assert not any(each.connections_lost for each in told)
    row = Definition.objects.get(module_url=module)
    assert row.build_ms >= SPIN_SECONDS * 1000


def test_cached_answers_are_served_while_200_clients_wait_for_a_build(
    two: Cluster, source: Realm
) -> None:
    """The build is suspended while the test requests the cached file, so an answer that waited for
    the build would not arrive."""
    picture = f"{source.url}dot.png"
    for replica in two.replicas:
        replica.each_worker(picture)
    with (
        waited_for(f"{source.url}slow.tsx") as waiting,
        Witness(two.folder) as witness,
        asked(two, url_of(source)) as clients,
    ):
        (prerenderer,) = wait_until(lambda: witness.prerenderers, "a build has begun")
        with suspended(prerenderer):
            wait_until(waiting, "a process waits for the build")
            hits = Counter[str]()
            for _ in range(HITS):
                for replica in two.replicas:
                    answer = replica.get(picture)
                    assert answer.cache == "hit"
                    hits[answer.worker] += 1
            assert [client.result() for client in clients if client.done()] == []
    assert set(hits) == {name for replica in two.replicas for name in replica.workers()}
    check(clients, f"{source.url}slow.tsx")
    assert len(witness.builders) == 1


def test_200_requests_cause_two_builds_if_the_first_builder_is_killed(
    two: Cluster, source: Realm
) -> None:
    module = f"{source.url}slow.tsx"
    workers = {name for replica in two.replicas for name in replica.workers()}
    with (
        waited_for(module) as waiting,
        Witness(two.folder) as witness,
        asked(two, url_of(source)) as clients,
    ):
        (builder,) = wait_until(lambda: witness.builders, "a build has begun")
        wait_until(waiting, "a process waits for the build")
        assert {name for name in workers if name.endswith(f"/{builder}")}, "not a web worker"
        psutil.Process(builder).kill()
    told = check(clients, module)
    assert len(witness.builders) == 2
    assert len(set(witness.builders)) == 2
    assert logged_builds(two, module) == 2
    assert any(each.connections_lost for each in told), "no client of the killed process retried"
    assert Definition.objects.filter(module_url=module).count() == 1


def url_of(source: Realm) -> str:
    return f"{source.url}_definition?module=slow&name=Slow"

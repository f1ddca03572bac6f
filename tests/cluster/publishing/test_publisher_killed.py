"""Kills publishing processes and rendering workers with SIGKILL at the worst moments.

After each kill, visitors see either the complete old publication or the complete new one. If the
new publication was committed, its job is done as soon as a worker runs. To kill a process at a
certain moment, the tests hold a lock that the process waits for, or suspend processes.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest
from django.db import connection

from realms.content.locks import lock_key
from realms.models import Publication, Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import (
    IndexedCard,
    IndexHead,
    ReindexBatch,
    ReindexJob,
    WantedDefinitions,
)
from tests.support import make
from tests.support.cluster import Cluster, cluster, database_url, wait_until
from tests.support.rendering import index_of

URL = "http://ada.localhost:4201/"
NAMES = ("a", "index", "slow")
Status = ReindexJob.Status

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def module(edition: str, seconds: float = 1) -> bytes:
    """Returns the source of a card module. Each rendered card contains the text `edition`. The card
    with the title "slow" takes `seconds` to render."""
    return f"""\
import {{ Card, string }} from "@realm/base";
const slow = () => {{ for (const end = Date.now() + {seconds * 1000}; Date.now() < end;); }};
export class Note extends Card {{
  static fields = {{ title: string() }};
  static isolated = ({{ card }}) => {{
    if (card.title === "slow") slow();
    return <p>{edition} {{card.title}}</p>;
  }};
}}
""".encode()


@pytest.fixture
def notes(owner: Any) -> Realm:
    """Returns a source realm with three cards."""
    sync_base_realm()
    cards = {f"{name}.json": make.card("./note", "Note", title=name) for name in NAMES}
    return make.source(
        "http://localhost:4201/ada/notes/", owner, {"note.tsx": module("one"), **cards}
    )


# --- The publisher -----------------------------------------------------------------------------


def test_a_publisher_killed_before_its_commit_changes_nothing(notes: Realm, tmp_path: Path) -> None:
    with publishers(tmp_path) as here:
        # The published realm doesn't exist yet.
        for lock in (before_anything, after_the_swap):
            with lock() as reached:
                kill(publisher := publishing(here, notes), reached)
            wait_gone(publisher)
            assert standing() == (None, [], [])

        assert publishing(here, notes).wait(20) == 0
        first, old = standing(), notes.generation
        assert first == (1, [(1, old)], [(1, Status.QUEUED)])

        # Now the published realm exists. It goes on to show the source as of the generation `old`.
        new = make.write(notes, note__tsx=module("two"))
        for lock in (before_anything, after_the_swap):
            with lock() as reached:
                kill(publisher := publishing(here, notes), reached)
            wait_gone(publisher)
            assert standing() == first

        assert publishing(here, notes).wait(20) == 0
        jobs = [(1, Status.SUPERSEDED), (2, Status.QUEUED)]
        assert standing() == (2, [(1, old), (2, new)], jobs)


def test_an_unreachable_broker_does_not_delay_a_publish(notes: Realm, tmp_path: Path) -> None:
    with publishers(tmp_path) as here:
        nowhere = "amqp://guest:guest@127.0.0.1:1//"
        publisher = publishing(here, notes, CELERY_BROKER_URL=nowhere)
        wait_until(lambda: standing()[0] == 1, "published")
        # The process must end within 3 s, including the shutdown of the interpreter. With Celery's
        # defaults, it would try for four seconds to connect to the broker.
        assert publisher.wait(3) == 0
        assert "no message was sent" in (tmp_path / "manage-publish_realm.log").read_text()


@contextmanager
def publishers(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster without replicas and workers, in which a test can start publishing
    processes. Kills these processes at the end of the block."""
    here = Cluster(folder, 0, {})
    try:
        yield here
    finally:
        here.stop()


def publishing(here: Cluster, source: Realm, **environment: str) -> "subprocess.Popen[bytes]":
    """Starts a process that publishes the source realm at URL."""
    return here.manage("publish_realm", source.url, URL, "--no-wait", **environment)


def kill(process: "subprocess.Popen[bytes]", reached: Callable[[], bool]) -> None:
    """Kills the process as soon as `reached` returns true, which shows that the process has reached
    the point at which the test wants to kill it."""
    wait_until(reached, "the publisher at the point of the kill")
    assert process.poll() is None
    process.kill()
    process.wait()


@contextmanager
def before_anything() -> Iterator[Callable[[], bool]]:
    """Stops publishers before they get the published realm's lock. At this point they have written
    nothing. Yields a function that returns whether a publisher has stopped at this point."""
    with holding("SELECT pg_advisory_lock(%s)", lock_key(URL)):
        yield lambda: waiting("advisory") == [False]


@contextmanager
def after_the_swap() -> Iterator[Callable[[], bool]]:
    """Stops publishers after they have written the publication and before they commit. Yields a
    function that returns whether a publisher has stopped at this point."""
    with holding("LOCK TABLE reindex_reindexjob IN EXCLUSIVE MODE"):
        yield lambda: waiting("relation") == [True]


@contextmanager
def holding(sql: LiteralString, *parameters: object) -> Iterator[None]:
    """Runs `sql`, which takes a lock, on a connection of its own. Holds the lock until the end of
    the block."""
    with psycopg.connect(database_url()) as other:
        other.execute(sql, parameters or None)
        yield
        other.rollback()


@contextmanager
def silent_broker() -> Iterator[str]:
    """Yields the URL of a broker that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}//"


def waiting(kind: str) -> list[bool]:
    """Returns one bool for each database client that waits for a lock of this kind. The bool says
    whether the client has written a publication."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT 1 FROM pg_locks held WHERE held.pid = l.pid AND held.granted
                AND held.relation = 'realms_publication'::regclass
                AND held.mode = 'RowExclusiveLock'
            )
            FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE NOT l.granted AND l.locktype = %s AND a.datname = current_database()
            """,
            [kind],
        )
        return [swapped for (swapped,) in cursor.fetchall()]


def wait_gone(process: "subprocess.Popen[bytes]") -> None:
    """Waits until Postgres has closed the killed process's connection. From then on, the test's
    connection is the only one."""

    def gone() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            return not cursor.fetchone()[0]

    wait_until(gone, f"the connection of {process.pid} closed")


def standing() -> tuple[int | None, list[tuple[int, int]], list[tuple[int, str]]]:
    """Returns the published realm's generation, its publications as (generation, generation of the
    source realm), and its jobs as (generation, status)."""
    realm = Realm.objects.filter(url=URL).first()
    publications = list(
        Publication.objects.filter(realm__url=URL)
        .order_by("generation")
        .values_list("generation", "source_generation")
    )
    jobs = list(
        ReindexJob.objects.filter(realm_url=URL)
        .order_by("generation")
        .values_list("generation", "status")
    )
    return (realm.generation if realm else None), publications, jobs


# --- The workers -------------------------------------------------------------------------------


def test_work_of_killed_processes_is_done_after_a_restart(notes: Realm, tmp_path: Path) -> None:
    # A lease gives a batch of cards to one worker. The test takes 26 s, because it waits until the
    # killed worker's lease expires. The lease must be longer than the slowest card and the start of
    # a publishing process together. Otherwise a suspended worker would lose its lease too early.
    told = {"REALM_BATCH_LEASE_SECONDS": "6", "REALM_RENDER_SECONDS": "5"}
    # A prerenderer is a Deno process that renders cards. Here, workers keep no idle prerenderers,
    # so each prerenderer that the test finds works on a task.
    with cluster(tmp_path, 1, **told, REALM_PRERENDERER_SECONDS="0") as running:
        watch = Visitor(running)

        # A publisher is killed after its commit and before it sends its message to the workers.
        with silent_broker() as broker:
            publisher = publishing(running, notes, CELERY_BROKER_URL=broker)
            kill(publisher, lambda: standing()[0] == 1)
        assert standing()[2] == [(1, Status.QUEUED)]
        assert not IndexHead.objects.exists()
        worker = running.start_worker("one")
        wait_until(lambda: standing()[2] == [(1, Status.DONE)], "the first index")
        wait_idle(worker)
        assert watch.sees("one") == 1

        # A worker is killed with all its child processes while it renders. Another worker can
        # render the batch only after the killed worker's lease has expired.
        make.write(notes, note__tsx=module("two", seconds=4))
        publishing(running, notes)
        stop_rendering(worker, generation=2)
        kill_family(worker)
        assert standing()[2][-1] == (2, Status.RENDERING)
        assert watch.sees("one") == 1
        worker = running.start_worker("two")
        wait_until(lambda: standing()[2][-1] == (2, Status.DONE), "the second index")
        wait_idle(worker)
        assert watch.sees("two") == 2
        assert list(batches(2).values_list("done", "attempts")) == [(True, 2)]

        # A publish comes while the cards of the previous publish are being rendered.
        make.write(notes, note__tsx=module("three", seconds=4))
        publishing(running, notes)
        stopped = stop_rendering(worker, generation=3)
        make.write(notes, note__tsx=module("four"))
        publishing(running, notes)
        wait_until(lambda: watch.look() == 4, "the fourth index")
        assert watch.sees("four") == 4
        for each in stopped:
            each.send_signal(signal.SIGCONT)
        # A worker that gets SIGTERM finishes its task before it ends.
        worker.terminate()
        worker.wait(20)
        assert watch.sees("four") == 4
        jobs = [(1, Status.DONE), (2, Status.DONE), (3, Status.SUPERSEDED), (4, Status.DONE)]
        assert standing()[2] == jobs
        assert not IndexedCard.objects.exclude(job__generation=4).exists()
        assert watch.generations == sorted(watch.generations)


class Visitor:
    """A client that repeatedly reads one card's page."""

    def __init__(self, running: Cluster) -> None:
        self._replica = running.replicas[0]
        self.generations: list[int] = []

    def look(self) -> int:
        """Reads the page and returns its generation."""
        page = self._replica.get(f"{URL}a", "text/html")
        assert page.status == 200
        self.generations.append(int(page.headers["x-realm-generation"]))
        return self.generations[-1]

    def sees(self, edition: str) -> int:
        """Asserts that all rendered cards of the realm are of this edition. Waits until the page
        shows the edition, and returns the page's generation."""
        cards = {path: card.html["isolated"] for path, card in index_of(URL).items()}
        assert cards == {name: f"<p>{edition} {name}</p>" for name in NAMES}

        def shown() -> bool:
            text = self._replica.get(f"{URL}a", "text/html").text
            return f"<p>{edition} a</p>" in text

        wait_until(shown, f"the page of edition {edition}", 5)
        return self.look()


def wait_idle(worker: "subprocess.Popen[bytes]") -> None:
    """Waits until all jobs are done, all definitions are built, and no prerenderer runs. A
    prerenderer that the test finds after this call renders the next publish."""
    live = ReindexJob.objects.live()
    wait_until(lambda: not live.exists(), "every job done")
    # The worker queues the builds of definitions before it ends the last batch's prerenderer. So
    # when this prerenderer has ended, all builds are queued.
    wait_until(lambda: not _renderers_of(worker), "the last batch's prerenderer ended")
    wait_until(lambda: not WantedDefinitions.objects.exists(), "all definitions built")
    wait_until(lambda: not _renderers_of(worker), "no prerenderer left")


def batches(generation: int) -> Any:
    return ReindexBatch.objects.filter(job__realm_url=URL, job__generation=generation)


def stop_rendering(worker: "subprocess.Popen[bytes]", *, generation: int) -> list[psutil.Process]:
    """Waits until a batch of this generation is being rendered, suspends all prerenderers of the
    worker, and returns these prerenderers."""
    taken = batches(generation).filter(done=False, lease_until__isnull=False)
    wait_until(taken.exists, f"generation {generation} being rendered")
    renderers: list[psutil.Process] = wait_until(lambda: _renderers_of(worker), "a prerenderer")
    for each in renderers:
        each.send_signal(signal.SIGSTOP)
    assert taken.exists()
    return renderers


def _renderers_of(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Returns a worker's prerenderer processes, without its transpiler processes."""
    found = []
    for child in psutil.Process(worker.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(part.endswith("host.ts") for part in child.cmdline()):
                found.append(child)
    return found


def kill_family(worker: "subprocess.Popen[bytes]") -> None:
    """Kills a worker and all its child processes."""
    for each in [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]:
        os.kill(each.pid, signal.SIGKILL)
    worker.wait()

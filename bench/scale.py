"""Measures whether frequent operations stay cheap when an installation grows.

The operations are a cache hit, a publish, a notification, a sidecar's report, and a view of the
admin's start page. A sidecar is a process that receives notifications of changes, and tells the
caches of its replica what is stale. It also reports to the database which changes it has received.

Four things grow, one at a time: the connections that listen to notifications, the realms, the
replicas that have reported, and the files of the published realm. The benchmark measures each
operation with few and with many of each, and compares the two results. No other program is
measured. The added realms, replicas and files are only rows of the database, inserted in bulk.

A hit is read from the web service's cache, without a socket. The time of a notification is the time
from its commit until a sidecar has marked the changed file on its board, the file that says what is
stale. The figure of a report is the processor time of the thread that reports. This figure doesn't
include the time in which the thread waits for notifications.
"""

import multiprocessing
import selectors
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.comparing import Bar, Table, WrongBytes
from bench.support.filling import content_of, fill, path_of
from bench.support.listeners import listening, sidecar
from bench.support.running import Bench

SOURCE = "http://localhost:4201/ada/source/"
SITE = "http://ada.localhost:4201/"
MANY = "http://localhost:4201/many/"
LIMIT = 1.5
FEW_FILES = 100
#: The start page lists at most this many realms. The small installation has as many realms. With
#: fewer realms, its start page would be shorter than that of the large installation.
PAGE = 25


@dataclass(frozen=True)
class Sizes:
    """The sizes of the large installation. `times` sets how often each operation is repeated in
    one run."""

    realms: int = 10_000
    files: int = 1_000_000
    listeners: int = 64
    replicas: int = 16
    #: How many realms are added together with the replicas. The replicas have reported the
    #: generations of these realms. A realm's generation is the number of its latest change.
    reported: int = 1_000
    times: int = 20


@dataclass(frozen=True)
class State:
    """A size of the installation. The context manager `reached` grows the installation to this
    size. `files` is the number of files of the published realm."""

    label: str
    reached: AbstractContextManager[None]
    files: int = FEW_FILES


def main() -> int:
    bench = Bench("scale", __doc__)
    with bench:
        sizes = (
            Sizes(realms=30, files=500, listeners=2, replicas=2, reported=5, times=1)
            if bench.quick
            else Sizes()
        )
        run(bench, sizes)
    return bench.finish()


def run(bench: Bench, sizes: Sizes) -> None:
    from tests.support import make

    source = make.source(SOURCE, make.user("ada"), {"index.css": b"0"})
    fill(source, FEW_FILES)
    make.publish(source, SITE)
    few, many = FEW_FILES, sizes.files
    # The smallest and the largest size of each thing that grows. The number of files grows last,
    # because the added files are never removed.
    pairs: list[tuple[State, State]] = [
        (
            State("1 listener", nullcontext()),
            State(f"{sizes.listeners} listeners", _listeners(sizes.listeners - 1)),
        ),
        (
            State(f"{PAGE} realms", _realms(PAGE)),
            State(f"{sizes.realms:,} realms", _realms(sizes.realms)),
        ),
        (
            State("1 replica", _replicas(1, sizes.reported)),
            State(f"{sizes.replicas} replicas", _replicas(sizes.replicas, sizes.reported)),
        ),
        (
            State(f"{few} files", nullcontext()),
            State(f"{many:,} files", _files(source, many - few), many),
        ),
    ]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in FIGURES}
    for pair in pairs:
        for state in pair:
            with state.reached:
                for _ in range(bench.runs):
                    for name, (_unit, figure) in FIGURES.items():
                        taken = figure(bench.folder, source, state.files, sizes.times)
                        found[name].setdefault(state.label, []).append(taken)
        least, most = (state.label for state in pair)
        for name in FIGURES:
            ratio = Table(name, "", "lower", found[name]).ratio(most, least)
            bench.judge(Bar(f"{name}: {most} versus {least}", ratio, at_most=LIMIT))
    for name, (unit, _) in FIGURES.items():
        bench.add(Table(name, unit, "lower", found[name], "1 listener"))


# --- Figures -----------------------------------------------------------------------------------
# The arguments of each function are a folder for boards, the source realm, its number of files, and
# `Sizes.times`.


def _hit(_: Path, source: Any, files: int, times: int) -> float:
    """Measures the time of a cache hit for the published realm's last file. Unit: µs."""
    from realms.front import Front
    from realms.serving import answers
    from realms.serving.contents import Variant
    from tests.support.web import vouch

    vouch()
    url = SITE + path_of(files)
    answers.load(Variant.SOURCE, url)
    answers.load(Variant.MODULE, url)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": url.removeprefix(SITE[:-1]),
        "HTTP_HOST": "ada.localhost:4201",
        "wsgi.input": BytesIO(),
    }
    front = Front(lambda environ, start_response: ())
    hits = times * 500
    at = time.perf_counter()
    for _run in range(hits):
        hit = front.read(environ)
    taken = time.perf_counter() - at
    if hit is None or hit.body != _content(files) or ("x-boxel-cache", "hit") not in hit.headers:
        raise WrongBytes(f"{url}: {hit!r}")
    return taken / hits * 1e6


def _content(files: int) -> bytes:
    """Returns the content of the last file of a realm with so many files. All files that `_files`
    adds have the content of the first file that it adds."""
    return content_of(min(files, FEW_FILES + 1))


def _publish(_: Path, source: Any, files: int, times: int) -> float:
    from realms.serving.answers import committed
    from realms.serving.contents import Variant
    from tests.support import make

    taken = []
    for _run in range(times):
        at = time.perf_counter()
        make.publish(source, SITE)
        taken.append((time.perf_counter() - at) * 1000)
    content = committed(Variant.SOURCE, SITE + path_of(files)).content
    if content.status != 200 or content.body != _content(files):
        raise WrongBytes(f"{SITE}{path_of(files)}: status {content.status}")
    return median(taken)


def _notification(folder: Path, source: Any, files: int, times: int) -> float:
    from notifications.models import Replica

    with listening(sidecar(), 1, folder, 5 * times) as found:
        taken = median(found.run(rate=100, seconds=times / 20))
    Replica.objects.filter(name=found.boards[0].name).delete()
    return taken


def _report(folder: Path, source: Any, files: int, times: int) -> float:
    from notifications.board import Board, now_ns
    from notifications.listener import ping_connection
    from notifications.models import Replica
    from notifications.reporter import Reporter
    from realms.management.commands.listen_file_changes import committed_generations
    from tests.support import make
    from tests.support.listening import sidecar as own

    taken = []
    with own.listening(Board(folder / "board-reporter"), ping_connection) as listener:
        reporter = Reporter(listener, "http://127.0.0.1:9", committed_generations)
        # The first report reads the generations of all realms, so it isn't measured.
        reporter.report()
        for number in range(max(times // 4, 2)):
            generation = make.write_paths(source, {"index.css": str(number).encode()})
            # A report contains only changes that its listener has received, so wait for the change.
            listener.wait_for_watermark(now_ns(), 30)
            at = time.thread_time()
            reporter.report()
            taken.append((time.thread_time() - at) * 1000)
    reported = Replica.objects.get(name="a").generations.get(realm_url=SOURCE)
    if reported.generation != generation:
        raise WrongBytes(f"reported generation: {reported.generation} instead of {generation}")
    Replica.objects.filter(name="a").delete()
    return median(taken)


def _start_page(_: Path, source: Any, files: int, times: int) -> float:
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from notifications.models import Replica
    from tests.support.clients.admin import browser_of

    operators = get_user_model().objects
    operator = operators.filter(username="operator").first()
    browser = browser_of(operator or operators.create_superuser("operator", password="operator"))
    browser.get("/_admin/")
    # The start page shows only replicas that have reported recently.
    Replica.objects.update(reported_at=timezone.now())
    taken = []
    for _run in range(max(times // 4, 2)):
        at = time.perf_counter()
        page = browser.get("/_admin/")
        taken.append((time.perf_counter() - at) * 1000)
        if page.status_code != 200 or SITE not in page.content.decode():
            raise WrongBytes(f"the start page: status {page.status_code}")
    return median(taken)


#: Maps the name of each operation to the unit of its figure, and to the function that measures it.
FIGURES: Mapping[str, tuple[str, Callable[[Path, Any, int, int], float]]] = {
    "hit": ("µs", _hit),
    "publish": ("ms", _publish),
    "notification": ("ms", _notification),
    "report": ("ms of processor time", _report),
    "start page": ("ms", _start_page),
}


# --- Growth ------------------------------------------------------------------------------------


@contextmanager
def _realms(count: int) -> Iterator[None]:
    """Adds `count` public source realms, and removes them at the end of the block."""
    from realms.models import EVERYONE, Realm, RealmPermission, RealmTombstone
    from tests.support import make

    owner = make.account("ada")
    added = Realm.objects.bulk_create(
        Realm(url=f"{MANY}{number}/", kind=Realm.Kind.SOURCE, owner=owner)
        for number in range(count)
    )
    RealmPermission.objects.bulk_create(
        RealmPermission(realm=realm, audience=EVERYONE, read=True) for realm in added
    )
    _analyze()
    try:
        yield
    finally:
        RealmPermission.objects.filter(realm__url__startswith=MANY).delete()
        many = Realm.objects.filter(url__startswith=MANY)
        many._raw_delete(many.db)
        RealmTombstone.objects.filter(url__startswith=MANY).delete()
        _analyze()


@contextmanager
def _files(source: Any, count: int) -> Iterator[None]:
    """Adds `count` files to the source realm, and publishes the source realm again. Doesn't remove
    the files after the block, because nothing is measured afterwards."""
    from tests.support import make

    fill(source, count, distinct=False, first=FEW_FILES + 1)
    make.publish(source, SITE)
    yield


@contextmanager
def _replicas(count: int, realms: int) -> Iterator[None]:
    """Adds `realms` realms, and the rows of `count` replicas that have reported the generations of
    all realms. Removes them at the end of the block."""
    from django.utils import timezone

    from notifications.models import Replica, ReplicaGeneration
    from realms.models import Realm

    now = timezone.now()
    with _realms(realms):
        names = [f"replica-{number:02}" for number in range(count)]
        Replica.objects.bulk_create(
            Replica(
                name=name, address="http://127.0.0.1:9", state="live", sidecar_pid=1,
                watermark_at=now, reported_at=now,
            )
            for name in names
        )  # fmt: skip
        committed = list(Realm.objects.values_list("url", "generation"))
        ReplicaGeneration.objects.bulk_create(
            ReplicaGeneration(replica_id=name, realm_url=url, generation=generation, applied_at=now)
            for name in names
            for url, generation in committed
        )
        _analyze()
        try:
            yield
        finally:
            Replica.objects.all().delete()


@contextmanager
def _listeners(count: int) -> Iterator[None]:
    """Starts a process that opens `count` connections. Each connection listens to all channels that
    a sidecar listens to. The process reads the notifications and ignores them."""
    from django.db import connections

    connections.close_all()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_listen, args=(count, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(30):
            raise WrongBytes("not all listeners were listening after 30 s")
        yield
    finally:
        process.kill()
        process.join()


def _listen(count: int, ready: Any) -> None:
    from notifications.channels import INVALIDATION_CHANNELS, REALM_HEARTBEAT
    from tests.support.listening.hearing import connect

    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection = connect()
            for channel in (*INVALIDATION_CHANNELS, REALM_HEARTBEAT):
                connection.execute(f"LISTEN {channel}")
            selector.register(connection.fileno(), selectors.EVENT_READ, connection)
        ready.set()
        while True:
            for key, _ in selector.select():
                for _ in key.data.notifies(timeout=0):
                    pass


def _analyze() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    sys.exit(main())

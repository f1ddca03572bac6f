"""Measures what a replica, a write and a publish cost, and computes from this what a fleet costs.

The script first measures the costs of single actions, by calling the project's own functions on a
new Postgres. Besides the elapsed time, the script measures the processor time of the Postgres
process that serves the connection. Other work on the machine distorts this processor time less than
the elapsed time. WAL is the number of bytes that Postgres writes to its log. Standbys and archives
receive the same bytes. Once a second, each replica's sidecar stores a report, which says which
generations (numbered states) of realms the replica has applied. A ping is a notification that a
sidecar sends to itself.

The last table computes the costs of a fleet by the formulas in its first column. The formulas also
need the processor time that Postgres uses to wake one listener (`--wake`). Measure this time with
`script/bench fleet notify`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psutil

from bench.fleet.figures import say, spread, table, timed
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.postgres import Server, scratch

SOURCE, SITE = f"{ORIGIN}/ada/bench/", "http://ada.localhost:4201/"
DAY = 86_400
TABLES = (
    "realms_fileversion", "realms_blob", "realms_publication", "reindex_reindexjob",
    "reindex_indexedcard", "notifications_replica", "notifications_replicageneration",
)  # fmt: skip
FLEET: LiteralString = """
INSERT INTO notifications_replica (name, address, state, sidecar_pid, reported_at, watermark_at,
    notifications, malformed, reconnects, missed, figures)
SELECT 'f' || n, 'http://10.0.0.1:8000', 'live', 1, now(), now(), 0, 0, 0, 0, '{}'
FROM generate_series(1, %(replicas)s) n
"""
REALMS: LiteralString = """
INSERT INTO realms_realm (id, url, kind, generation, history_from, publishable, created_at)
SELECT md5(n::text)::uuid, 'http://localhost:4201/ada/r' || n || '/', 'source', 5, 0, true, now()
FROM generate_series(1, %(realms)s) n
"""
APPLIED: LiteralString = """
INSERT INTO notifications_replicageneration (replica_id, realm_url, generation, applied_at)
SELECT 'f' || n, url, generation, now() FROM realms_realm, generate_series(1, %(replicas)s) n
WHERE url LIKE %(like)s
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--realms", type=int, default=1000)
    parser.add_argument("--replicas", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--publishes", type=int, default=100_000, help="publishes in a day")
    parser.add_argument("--writes", type=int, default=5, help="writes for each publish")
    parser.add_argument("--peak", type=float, default=10, help="peak rate / average rate")
    parser.add_argument("--web-processes", type=int, default=2)
    parser.add_argument(
        "--wake", type=float, default=20, help="µs of processor time to wake one listener"
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, realms and replicas")
    options = parser.parse_args()
    if options.quick:
        options.repeat, options.realms, options.replicas = 5, 10, [10]
    say(str(__doc__))
    with scratch("autovacuum=off") as server, installation(server) as folder:
        unit = units(server, folder, options)
        pages = [fleet_pages(count, options) for count in options.replicas]
    computed(unit, pages, options)
    return 0


@dataclass(frozen=True)
class Cost:
    """The cost of an action. `cpu` is the mean processor time of the Postgres process, in seconds.
    `wal` is the mean number of bytes that Postgres writes to its log. `seconds` has the elapsed
    time of each repetition. `statements` is the number of SQL statements of one repetition."""

    cpu: float
    wal: float
    seconds: list[float]
    statements: int


# --- Unit costs --------------------------------------------------------------------------------


def units(server: Server, folder: Path, options: argparse.Namespace) -> dict[str, Cost]:
    from notifications.board import Board, now_ns
    from notifications.emit import local_board
    from notifications.listener import Listener, ping_connection
    from notifications.reporter import Reporter
    from realms.management.commands.listen_file_changes import committed_generations
    from tests.support import make

    assert isinstance(local_board(), Board)
    realm = make.source(SOURCE, make.user("ada"), make.SITE)
    make.publish(realm, SITE)
    number = iter(range(1_000_000))
    with server.connect() as listening:
        for channel in ("realm_file_changes", "realm_registry", "definition_cache_invalidated"):
            listening.execute(f"LISTEN {channel}")

        def heard() -> list[int]:
            return [len(each.payload) for each in listening.notifies(timeout=0.3)]

        before = sizes()
        found = {
            "a write of one file": cost(
                lambda: make.write_paths(realm, {"ada.json": make.card(
                    "./person", "Person", name=f"Ada {next(number)}")}), options.repeat
            ),
        }  # fmt: skip
        written = heard()
        between = sizes()
        found["a publish"] = cost(lambda: make.publish(realm, SITE), options.repeat)
        published = heard()
    after = sizes()
    listener = Listener("r1", local_board(), ping_connection, 2.0)
    listener.watermark = now_ns() + 3600 * 10**9
    reporter = Reporter(listener, "http://127.0.0.1:9", committed_generations)
    reporter.report()

    def report() -> None:
        listener.listening_since = 1
        reporter.report()

    def report_change() -> None:
        make.write_paths(realm, {"f.txt": f"{next(number)}".encode()})
        listener.heard[SOURCE] = now_ns()

    found["a report without changes"] = cost(report, options.repeat)
    found["a report of one changed realm"] = cost(report, options.repeat, first=report_change)
    with ping_connection() as own:
        found["a ping"] = cost(
            lambda: own.execute("SELECT pg_notify('realm_heartbeat', 'web-1:1:1')"),
            50 * options.repeat, pid=own.info.backend_pid,
        )  # fmt: skip
    table(
        f"unit costs: each action was repeated {options.repeat} times, the ping 50 times as often",
        ("", "statements", "time (ms)", "server's cpu (ms)", "WAL (bytes)"),
        [
            (what, each.statements or "-", spread(each.seconds, 1000, 1), f"{each.cpu * 1000:.2f}",
             f"{each.wal:,.0f}")
            for what, each in found.items()
        ],
    )  # fmt: skip
    # `cost` has run each action once more, to count the action's statements.
    runs = options.repeat + 1
    say(
        f"a write sends {len(written) / runs:.1f} notifications with "
        f"{sum(written) / runs:.0f} bytes in total; a publish sends "
        f"{len(published) / runs:.1f} notifications with "
        f"{sum(published) / runs:.0f} bytes in total"
    )
    table(
        "growth of each table and its indexes, in bytes",
        ("table", "growth by a write", "growth by a publish"),
        [
            (name, f"{(between[name] - before[name]) / runs:,.0f}",
             f"{(after[name] - between[name]) / runs:,.0f}")
            for name in TABLES
        ],
    )  # fmt: skip
    return found


def cost(
    action: Callable[[], object],
    repeat: int,
    *,
    first: Callable[[], object] | None = None,
    pid: int | None = None,
) -> Cost:
    """Measures the cost of an action. Runs the action once to count its statements, and `repeat`
    times to measure the rest. Before each run, calls `first`, which isn't measured. The processor
    time is that of the Postgres process `pid`, by default the one that serves Django's
    connection."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        process = psutil.Process(pid or cursor.fetchone()[0])
        if first:
            first()
        with CaptureQueriesContext(connection) as captured:
            action()
        cpu, wal, seconds = 0.0, 0, []
        # The kernel counts processor time in steps of 10 ms. So without `first`, the time of all
        # repetitions is read together.
        if first is None:
            began, at = sum(process.cpu_times()[:2]), _wal(cursor)
            seconds = timed(action, repeat)
            cpu, wal = sum(process.cpu_times()[:2]) - began, _wal(cursor) - at
        for _ in range(repeat if first else 0):
            assert first is not None
            first()
            began, at = sum(process.cpu_times()[:2]), _wal(cursor)
            seconds += timed(action, 1)
            cpu += sum(process.cpu_times()[:2]) - began
            wal += _wal(cursor) - at
    return Cost(cpu / repeat, wal / repeat, seconds, len(captured))


def _wal(cursor: Any) -> int:
    cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    return int(cursor.fetchone()[0])


def sizes() -> dict[str, int]:
    """Vacuums each of the TABLES, and returns its size with its indexes, in bytes."""
    from django.db import connection

    with connection.cursor() as cursor:
        found = {}
        for name in TABLES:
            cursor.execute(f"VACUUM {name}")
            cursor.execute("SELECT pg_total_relation_size(%s)", [name])
            found[name] = int(cursor.fetchone()[0])
    return found


# --- The pages of a large fleet ----------------------------------------------------------------


def fleet_pages(replicas: int, options: argparse.Namespace) -> tuple[str, str, str]:
    """Fills the database as if `replicas` replicas had reported the generations of `options.realms`
    realms, and removes all other replicas' rows. Returns three texts: the time to compute the
    matrix (the table of realms and replicas on the admin's start page), the time to compute the
    metrics of all replicas, and the size of the table of the generations that they have applied."""
    from django.db import connection
    from django.utils import timezone

    from notifications.models import Replica
    from realms.coherence.generations import matrix
    from realms.coherence.replica_metrics import replicas as metrics
    from realms.models import Realm

    parameters = {
        "replicas": replicas, "realms": options.realms, "like": "http://localhost:4201/ada/r%"
    }  # fmt: skip
    with connection.cursor() as cursor:
        Replica.objects.all().delete()
        cursor.execute(FLEET, parameters)
        cursor.execute("SET session_replication_role = replica")
        if not Realm.objects.filter(url="http://localhost:4201/ada/r1/").exists():
            cursor.execute(REALMS, parameters)
        cursor.execute(APPLIED, parameters)
        cursor.execute("SET session_replication_role = origin")
        cursor.execute("VACUUM FULL ANALYZE notifications_replicageneration")
        cursor.execute("SELECT pg_total_relation_size('notifications_replicageneration')")
        size = int(cursor.fetchone()[0])
    repeat = 3
    shown = timed(lambda: matrix("", None), repeat)
    counted = timed(lambda: list(metrics(timezone.now())), repeat)
    return spread(shown), spread(counted), f"{size / 1e6:,.0f} MB"


# --- A fleet -----------------------------------------------------------------------------------


def computed(
    unit: dict[str, Cost], pages: list[tuple[str, str, str]], options: argparse.Namespace
) -> None:
    """Prints a table of the resources that fleets of several sizes need. The first column shows the
    formulas. `pages` has the results of `fleet_pages` for each size, which are also printed."""
    rate = options.publishes / DAY
    peak = rate * options.peak
    events = peak * (1 + options.writes)
    # A web process has this many threads with REALM_THREADS=4 (realms/web/lanes.py). Each thread
    # has at most one connection to the database.
    threads = 21
    wake = options.wake / 1e6
    idle, changed = unit["a report without changes"], unit["a report of one changed realm"]
    rows: list[tuple[str, Callable[[int], str]]] = [
        ("connections: N x (3 of the sidecar + web processes x at most 21)",
         lambda n: f"{n * (3 + options.web_processes * threads):,}"),
        ("pings a second (each ping is one commit): 2 N", lambda n: f"{2 * n:,}"),
        (f"cores that pings use: 2 N pings/s x N listeners x {options.wake:g} µs",
         lambda n: f"{2 * n * n * wake:.2f}"),
        ("cores that notifications of publishes and writes use at the peak: "
         f"{events:.0f} commits/s x N listeners x {options.wake:g} µs",
         lambda n: f"{n * events * wake:.2f}"),
        ("cores that reports use if no realm changes: N reports/s x processor time of a report",
         lambda n: f"{n * idle.cpu:.2f}"),
        ("cores that reports use if one realm changes before each report: the same formula",
         lambda n: f"{n * changed.cpu:.2f}"),
        ("GB of WAL that reports write in a day if no realm changes: N x 86,400 x WAL of a report",
         lambda n: f"{n * DAY * idle.wal / 1e9:,.1f}"),
        ("rows/s written to the table of applied generations at the peak: N x changed realms/s",
         lambda n: f"{n * peak * 2:,.0f}"),
        ("balancer's readiness checks a second: N", lambda n: f"{n:,}"),
    ]  # fmt: skip
    table(
        f"{options.publishes:,} publishes a day = {rate:.2f}/s, {options.peak:g} times as many at "
        f"the peak; {options.writes} writes for each publish; {options.realms:,} realms",
        ("N replicas", *(f"{n:,}" for n in options.replicas)),
        [
            *((what, *(formula(n) for n in options.replicas)) for what, formula in rows),
            ("measured seconds to compute the matrix of the admin", *(each[0] for each in pages)),
            ("measured seconds to compute all replicas' metrics", *(each[1] for each in pages)),
            ("measured size of the table of applied generations", *(each[2] for each in pages)),
        ],
    )
    write, publish = unit["a write of one file"], unit["a publish"]
    cpu = rate * (publish.cpu + options.writes * write.cpu)
    wal = options.publishes * (publish.wal + options.writes * write.wal)
    say(
        f"with any number of replicas, the SQL statements of publishes and writes use {cpu:.3f} "
        f"cores on average and {cpu * options.peak:.2f} cores at the peak, and write "
        f"{wal / 1e9:.1f} GB of WAL in a day"
    )

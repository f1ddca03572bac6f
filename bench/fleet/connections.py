"""Counts the database connections of a replica and of a worker, with and without PgBouncer.

PgBouncer is a pooler: its many clients share a few connections to Postgres. Many HTTP clients send
requests to one replica at once. The requests are reads of uncached files, listings and publishes.
The replica has two web processes and a sidecar. In the first measurement, the replica connects to
Postgres directly. In the second measurement, the replica's DATABASE_URL is a PgBouncer in
transaction mode, and LISTEN_DATABASE_URL is Postgres itself. Both measurements count the
connections to Postgres at rest, during the requests, and after a worker has been started. The
second measurement also counts the connections to PgBouncer. Finally the script measures what idle
connections cost Postgres.
"""

import argparse
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from bench.fleet.figures import say, shares, spread, table
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.postgres import Server, free_port, scratch

SOURCE, SITE = f"{ORIGIN}/ada/bench/", "http://ada.localhost:4201/"
COUNT: LiteralString = """
SELECT CASE WHEN application_name LIKE 'listen%' THEN 'sidecar' ELSE 'others' END, count(*)
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND application_name <> 'bench' GROUP BY 1
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--pool", type=int, default=8, help="PgBouncer's connections to Postgres")
    parser.add_argument("--idle", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument(
        "--quick", action="store_true", help="few clients, requests and idle connections"
    )
    options = parser.parse_args()
    if options.quick:
        options.clients, options.requests, options.idle = 8, 60, [10]
    if shutil.which("pgbouncer") is None:
        parser.error("there is no pgbouncer here (Debian's package is pgbouncer)")
    say(str(__doc__))
    os.environ["PGAPPNAME"] = "bench"
    with scratch() as server, installation(server) as folder:
        from tests.support import make

        files = {f"f{n}.txt": f"file {n}".encode() for n in range(max(1000, options.requests))}
        make.publish(make.source(SOURCE, make.user("ada"), files), SITE)
        rows = []
        with ExitStack() as stack:
            rows.append(("direct", *replica(server, folder, server.url(), options, None)))
            bouncer = stack.enter_context(pgbouncer(server, options.pool))
            rows.append(("PgBouncer", *replica(server, folder, bouncer, options, bouncer)))
        table(
            f"connections to Postgres, with {options.clients} HTTP clients at once",
            ("", "at rest", "under load", "with a worker of two processes",
             "PgBouncer's clients under load", "read of an uncached file (p50 / p99 / highest ms)",
             "requests/s"),
            rows,
        )  # fmt: skip
        idle(server, options.idle)
    return 0


def replica(
    server: Server, folder: Path, url: str, options: argparse.Namespace, bouncer: str | None
) -> list[str]:
    """Runs one replica with the DATABASE_URL `url`, sends requests to it, and then starts a worker.
    `bouncer` is the URL of a PgBouncer, or None if the replica connects to Postgres directly.
    Returns a row of the table: the numbers of connections, the times of reads of uncached files,
    and the number of requests per second."""
    from tests.support.cluster import cluster

    told = {
        "DATABASE_URL": url, "LISTEN_DATABASE_URL": server.url() if bouncer else "",
        "PGAPPNAME": "replica", "REALM_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    with cluster(folder, 1, **told) as fleet:
        fleet.wait_reported()
        rest = _connections(server)
        target = fleet.replicas[0]
        taken: list[float] = []

        def ask(number: int) -> None:
            began = time.perf_counter()
            if number % 40 == 0:
                target.get(f"{SITE}_mtimes")
            elif number % 40 == 1:
                _publish(target)
            else:
                target.get(f"{SITE}f{number % 1000}.txt?n={number}", "*/*", **{
                    "X-Realm-Min-Generation": "1"
                })  # fmt: skip
                taken.append(time.perf_counter() - began)

        began = time.perf_counter()
        with ThreadPoolExecutor(options.clients) as clients:
            list(clients.map(ask, range(options.requests)))
        rate = options.requests / (time.perf_counter() - began)
        load = _connections(server)
        clients_of = _clients(bouncer) if bouncer else "-"
        fleet.start_worker()
        _publish(target)
        _wait_rendered()
        worker = _connections(server)
    return [rest, load, worker, clients_of, shares(taken), f"{rate:.0f}"]


def _publish(target: Any) -> None:
    from tests.support import make

    body = f'{{"sourceRealmURL": "{SOURCE}", "publishedRealmURL": "{SITE}"}}'
    target.request(
        "POST", f"{ORIGIN}/_publish-realm", accept="application/vnd.api+json", body=body,
        headers=make.login("ada"),
    )  # fmt: skip


def _wait_rendered() -> None:
    """Waits until the worker has rendered the latest publication."""
    from realms.models import Realm
    from reindex.models import IndexHead

    deadline = time.monotonic() + 120
    generation = Realm.objects.get(url=SITE).generation
    while not IndexHead.objects.filter(realm_url=SITE, generation__gte=generation).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker hasn't rendered the latest publication in two minutes")
        time.sleep(0.1)


def _connections(server: Server) -> str:
    with server.connect(application_name="bench") as connection:
        found = dict(connection.execute(COUNT).fetchall())
    sidecar = found.get("sidecar", 0)
    return f"{sum(found.values())} ({sidecar} of the sidecar's listener)"


def _clients(bouncer: str) -> str:
    url = bouncer.rpartition("/")[0] + "/pgbouncer"
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as admin:
        return str(len(admin.execute("SHOW CLIENTS").fetchall()) - 1)


@contextmanager
def pgbouncer(server: Server, pool: int) -> Iterator[str]:
    """Runs a PgBouncer in transaction mode, with `pool` connections to the Postgres `server`, and
    yields the PgBouncer's URL."""
    port = free_port()
    folder = server.folder.parent / "pgbouncer"
    folder.mkdir()
    path = folder / "pgbouncer.ini"
    path.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
        f"default_pool_size = {pool}\nmax_client_conn = 2000\nunix_socket_dir =\n"
        f"admin_users = postgres\nlogfile = {folder}/log\nserver_idle_timeout = 600\n"
    )
    user = server.user
    if user:
        entry = pwd.getpwnam(user)
        for each in (folder, path):
            os.chown(each, entry.pw_uid, entry.pw_gid)
    process = subprocess.Popen(
        ["pgbouncer", "--quiet", str(path)], user=user, stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        deadline = time.monotonic() + 20
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def idle(server: Server, counts: list[int]) -> None:
    """Opens as many idle connections as each of the `counts` says. Measures the time to open each
    connection, the memory that it takes, and the time of a statement on another connection."""
    rows = []
    for count in counts:
        opened: list[float] = []
        memory: list[int] = []
        with ExitStack() as stack:
            for _ in range(count):
                began = time.perf_counter()
                connection = stack.enter_context(server.connect(application_name="bench"))
                connection.execute("SELECT count(*) FROM realms_realm").fetchone()
                opened.append(time.perf_counter() - began)
                if len(memory) < 50:
                    process = psutil.Process(connection.info.backend_pid)
                    memory.append(process.memory_full_info().pss)
            with server.connect(application_name="bench") as busy:
                snapshots = []
                for _ in range(300):
                    began = time.perf_counter()
                    busy.execute("SELECT 1")
                    snapshots.append(time.perf_counter() - began)
        rows.append(
            (f"{count:,}", spread(opened, 1000, 1), f"{sum(memory) / len(memory) / 1e6:.1f}",
             shares(snapshots, digits=2))
        )  # fmt: skip
    table(
        "idle connections",
        (
            "",
            "time to open a connection (ms)",
            "memory of a connection's process (MB, PSS)",
            "a SELECT 1 on another connection (p50 / p99 / highest ms)",
        ),
        rows,
    )

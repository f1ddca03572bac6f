"""Measures how fast a replica serves files and modules that are not in its caches.

A client requests 10,000 files and 500 modules, each once, on 8 connections. In the first case, the
web worker has just started. In the second case, the web worker has cached all the answers, but a
wildcard notification has made them stale. A wildcard notification says that all files of a realm
have changed. In truth no file has changed, so the web worker needn't read any bytes again. In a
third case, which is only for modules, the web worker has just started and the fleet has not
transpiled any of the modules yet.

One peer reads the same bytes with one query by key, without Django, under the same web server with
the same number of threads. The other peer, nginx, shows how long files take without a database.
nginx is faster than the client, so the figure of nginx is mostly the time of the client itself.
The time of a GET is the time of all requests divided by the number of requests.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.support import peers
from bench.support.asking import CONNECTIONS, milliseconds_each
from bench.support.comparing import Bar, Case, compare
from bench.support.replicas import Replica, replica
from bench.support.running import ORIGIN, Bench

SITE = f"{ORIGIN}/ada/site/"
HOST = ORIGIN.partition("://")[2]
FOLDER = "/ada/site/"
WARMING = 64

FIRST, AGAIN = "first GET of a replica", "after a wildcard notification"
UNTRANSPILED = "first GET of the fleet"
QUERY, NGINX = "one bare query, granian", "nginx, static files"


def main() -> int:
    bench = Bench("miss", __doc__)
    bench.parser.add_argument("--files", type=int, default=10_000, help="(default: 10,000)")
    bench.parser.add_argument("--modules", type=int, default=500, help="(default: 500)")
    if bench.quick:
        bench.options.files, bench.options.modules = 200, 10
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from realms.serving.answers import committed
    from realms.serving.contents import Variant
    from tests.support import make

    files = {f"file-{number:05}.css": text_of(number) for number in range(bench.options.files)}
    modules = {f"note-{number:03}.ts": module(number) for number in range(bench.options.modules)}
    warming = {f"warm-{number}.css": text_of(number) for number in range(WARMING)}
    make.source(SITE, make.user("ada"), files | modules | warming)
    scripts = {path: committed(Variant.MODULE, SITE + path).content.body for path in modules}
    servers = start_peers(bench, files | scripts)
    with Current(bench.folder, warming) as current:
        measured = partial(measure, bench, current, servers)
        measured(f"{len(files):,} files of 2 KB", files, {})
        measured(f"{len(modules):,} modules", scripts, {UNTRANSPILED: current.untranspiled})


class Current:
    """The replica that is measured. Each new replica first answers requests for the `warming`
    files. So the new replica is warm before the measurement, but has cached none of the measured
    files."""

    def __init__(self, folder: Path, warming: Mapping[str, bytes]) -> None:
        self._folder, self._warming = folder, warming
        self._stack = ExitStack()
        self._replica: Replica | None = None

    def __enter__(self) -> "Current":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def first(self, bodies: Mapping[str, bytes]) -> float:
        """Measures the mean time of a GET to a new replica. Unit: ms."""
        self._stack.close()
        self._replica = self._stack.enter_context(replica(self._folder))
        ask(self._replica.port, self._warming)
        return ask(self._replica.port, bodies, cache="miss")

    def untranspiled(self, bodies: Mapping[str, bytes]) -> float:
        """Measures the mean time of a GET to a new replica while no module is transpiled yet. Unit:
        ms."""
        from realms.models import TranspiledModule

        TranspiledModule.objects.all().delete()
        return self.first(bodies)

    def again(self, bodies: Mapping[str, bytes]) -> float:
        """Measures the mean time of a GET to a replica with cached answers after a notification has
        made all of them stale. Unit: ms."""
        if self._replica is None:
            self.first(bodies)
        assert self._replica is not None
        ask(self._replica.port, bodies)
        self._replica.change_everything(SITE)
        return ask(self._replica.port, bodies, cache="miss")


def ask(port: int, bodies: Mapping[str, bytes], cache: str = "") -> float:
    paths = [FOLDER + path for path in bodies]
    return milliseconds_each(port, HOST, paths, list(bodies.values()), cache=cache)


def measure(
    bench: Bench,
    current: Current,
    servers: Mapping[str, int],
    title: str,
    bodies: Mapping[str, bytes],
    more: Mapping[str, Callable[[Mapping[str, bytes]], float]],
) -> None:
    """Compares the replica with the peers, and adds the table and its bars to the result. The
    replica is measured in the cases FIRST and AGAIN, and in the cases that `more` adds."""
    ours = {FIRST: current.first, AGAIN: current.again, **more}
    # `check` lets each peer answer all requests once before the measurement, so that the peer's
    # database connections are open. The replica opens its connections for the warming files.
    theirs = {name: partial(ask, port, bodies) for name, port in servers.items()}
    table = compare(
        f"{title}, each once, {CONNECTIONS} connections",
        unit="ms a GET",
        better="lower",
        runs=bench.runs,
        reference=QUERY,
        cases=[
            *(Case(name, partial(case, bodies)) for name, case in ours.items()),
            *(Case(name, each, check=each) for name, each in theirs.items()),
        ],
    )
    bench.add(table)
    for name in (FIRST, AGAIN):
        text = f"{title}, {name}: at most 1.5 times the bare query"
        bench.judge(Bar(text, table.ratio(name, QUERY), at_most=1.5))


def start_peers(bench: Bench, bodies: Mapping[str, bytes]) -> dict[str, int]:
    """Starts the peers that serve `bodies`. Returns their ports by name."""
    from django.conf import settings
    from django.db import connection

    from tests.support.cluster import database_url

    rows = [(FOLDER + path, body) for path, body in bodies.items()]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_answers (path text PRIMARY KEY, body bytea NOT NULL)")
        cursor.executemany("INSERT INTO bench_answers VALUES (%s, %s)", rows)
        cursor.execute("VACUUM ANALYZE")
    root = bench.folder / "static"
    (root / FOLDER[1:]).mkdir(parents=True)
    for path, body in rows:
        (root / path[1:]).write_bytes(body)
    environment = {"DATABASE_URL": database_url(), "BENCH_THREADS": str(settings.REALM_THREADS)}
    query = peers.granian("bench.peers.one_query:asgi", environment=environment)
    started = {
        QUERY: bench.start(query),
        NGINX: bench.start(peers.nginx(bench.folder / "nginx", root)),
    }
    return {name: port for name, port in started.items() if port is not None}


def text_of(number: int) -> bytes:
    """Returns a style sheet of 2 KB. Two different values of `number` give two different sheets."""
    return (f"/* {number} */\n" + ".rule { color: #123456; }\n" * 100)[:2048].encode()


def module(number: int) -> bytes:
    """Returns a module of 2 KB. Two different values of `number` give two different modules."""
    line = "export const note{n} = (title: string): string => title + {n};\n"
    return "".join(line.format(n=number * 1000 + each) for each in range(32)).encode()


if __name__ == "__main__":
    sys.exit(main())

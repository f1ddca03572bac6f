"""Measures how fast a replica answers from its caches: files, a module, a page, and 304s.

The benchmark compares the replica with other servers. Each server has one worker process, and all
serve the same bytes. The load generator wrk requests one URL over and over, on 1 connection and on
32 connections. Every second run measures the servers in reverse order.

The bare applications run under granian, which is also the replica's web server. They take their
answers from a dictionary, with the same bytes and headers as the replica's answers. So they show
how fast Python code can be under granian. nginx and Varnish show what is possible without Python.
The edge is nginx with the configuration of deploy/nginx.conf, and caches the replica's answers.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.peers import recorded
from bench.peers.recorded import Recorded
from bench.support import peers
from bench.support.comparing import Bar, Case, Ratio, Series, Table, WrongBytes, compare
from bench.support.console import console
from bench.support.replicas import Replica, replica
from bench.support.running import Bench

HOST = "ada.localhost:4201"
SITE = f"http://{HOST}/"
PAGE = "<article><h1>A page</h1>" + "<p>Some text of a page of the usual size.</p>" * 180
MODULE = "export class Note {\n  title: string = 'a note';\n}\n" * 40
PATHS = {
    "2 KB file": "/small.css", "64 KB file": "/large.css", "module": "/note.ts", "page": "/page",
}  # fmt: skip
ACCEPT = {"page": "text/html,*/*;q=0.8"}

HIT, EDGE = "cached hit", "cached hit through the edge"
ASGI, WSGI = "bare ASGI, granian", "bare WSGI, granian"
NGINX, VARNISH = "nginx, static files", "Varnish in front of the replica"
WHITENOISE = "WhiteNoise, granian"
DJANGO, GUNICORN = "Django view, granian", "Django view, gunicorn"


@dataclass(frozen=True)
class What:
    """A path that the benchmark requests, its request headers, and the expected answer."""

    name: str
    path: str
    headers: Mapping[str, str]
    answer: Recorded


def main() -> int:
    bench = Bench("serve", __doc__)
    bench.parser.add_argument(
        "--seconds", type=int, default=3, help="seconds of load for each measurement (default: 3)"
    )
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    make_site()
    with replica(bench.folder, REALM_EDGE_SECONDS="1") as ours:
        answers = {name: record(ours, path, name) for name, path in PATHS.items()}
        ports = start_peers(bench, ours, {PATHS[name]: each for name, each in answers.items()})
        rates, delays = [], []
        whats = [
            What(name, PATHS[name], accepting(name), answer) for name, answer in answers.items()
        ]
        for what in whats:
            for name, port in ports.items():
                check(port, what, name)
        for what, known in [*((what, False) for what in whats), (whats[0], True)]:
            for connections in (1, 32):
                # A smoke test measures only one file and the file's 304s.
                if not bench.quick or (what is whats[0] and connections == 32):
                    rate, delay = measure(bench, ports, what, connections, known=known)
                    rates.append(rate)
                    delays.append(delay)
    for table in rates:
        bench.add(table, plot=", 32 connections" in table.title)
    for table in delays:
        bench.add(table, plot=False)
    worst = partial(extreme, rates, min)
    for peer in (ASGI, WSGI):
        bench.judge(
            Bar(
                *worst(f'rate of hits: at least 0.95 times that of "{peer}"', HIT, peer),
                at_least=0.95,
            )
        )
    text = "rate of hits through the edge: at least 0.8 times that of nginx's static files"
    bench.judge(Bar(*worst(text, EDGE, NGINX), at_least=0.8))
    for peer in (DJANGO, GUNICORN):
        bench.judge(
            Bar(*worst(f'rate of hits: at least 6 times that of "{peer}"', HIT, peer), at_least=6)
        )
    text = "the p99 of a hit through the edge is at most twice that of nginx's static files"
    bench.judge(Bar(*extreme(delays, max, text, EDGE, NGINX), at_most=2))


def make_site() -> None:
    """Makes a published realm with two files, a module, and a page that is stored without
    rendering."""
    from reindex.models import IndexedCard
    from tests.support import make
    from tests.support.data import published

    files = {
        "small.css": text_of(2048),
        "large.css": text_of(65536),
        "note.ts": MODULE.encode(),
        "page.json": make.card("@realm/base", "Card"),
    }
    source = make.source("http://localhost:4201/ada/site/", make.user("ada"), files)
    make.publish(source, SITE)
    published.indexed(SITE)
    IndexedCard.objects.filter(realm_url=SITE).update(path="page", html={"isolated": PAGE})


def text_of(size: int) -> bytes:
    """Returns a style sheet of `size` bytes."""
    rules = "".join(f".rule-{number} {{ color: #{number:06x}; }}\n" for number in range(size // 20))
    return rules[:size].encode()


def accepting(name: str) -> dict[str, str]:
    return {"Host": HOST, "Accept": ACCEPT.get(name, "*/*")}


def record(ours: Replica, path: str, name: str) -> Recorded:
    """Returns the replica's cached answer for `path`, and the headers of the 304 that a client with
    this answer gets."""
    from tests.support.web import ask

    headers = accepting(name)
    ask(ours.port, "GET", SITE + path[1:], headers=headers)
    answer = ask(ours.port, "GET", SITE + path[1:], headers=headers)
    if answer.status != 200 or answer.cache != "hit":
        raise WrongBytes(f"{path}: {answer.status}, {answer.cache}, {answer.text[:200]}")
    known = {**headers, "If-None-Match": answer.headers["etag"]}
    unchanged = ask(ours.port, "GET", SITE + path[1:], headers=known)
    if unchanged.status != 304:
        raise WrongBytes(f"{path}: {unchanged.status} instead of 304")
    # granian adds these headers to every answer, also to the answers of peers that run under it.
    added = ("server", "date")
    kept = [
        [pair for pair in each.headers.items() if pair[0] not in added]
        for each in (answer, unchanged)
    ]
    return Recorded(answer.body, *kept)


def start_peers(bench: Bench, ours: Replica, answers: Mapping[str, Recorded]) -> dict[str, int]:
    """Starts the installed peers. `answers` has the replica's answers by URL path, for those peers
    that don't ask the replica. Returns the ports of the replica and the peers by name."""
    root = bench.folder / "static"
    root.mkdir()
    for path, answer in answers.items():
        (root / path[1:]).write_bytes(answer.body)
    environment = recorded.save(bench.folder / "answers.json", answers)
    environment["BENCH_ROOT"] = str(root)
    granian = partial(peers.granian, environment=environment)
    django = "bench.peers.plain_django:application"
    started = {
        ASGI: bench.start(granian("bench.peers.bare:asgi")),
        WSGI: bench.start(granian("bench.peers.bare:wsgi", interface="wsgi")),
        NGINX: bench.start(peers.nginx(bench.folder / "nginx", root)),
        EDGE: bench.start(peers.edge(bench.folder / "edge", ours.port)),
        VARNISH: bench.start(peers.varnish(bench.folder / "varnish", ours.port)),
        WHITENOISE: bench.start(
            granian("bench.peers.static_files:application", interface="wsgi")
        ),
        DJANGO: bench.start(granian(django, interface="wsgi")),
        GUNICORN: bench.start(peers.gunicorn(django, environment=environment)),
    }  # fmt: skip
    edge = started[EDGE]
    if edge is not None and not is_kept(edge):
        bench.skipped[EDGE] = "the replica doesn't let the edge keep answers"
        started[EDGE] = None
    return {HIT: ours.port} | {name: port for name, port in started.items() if port is not None}


def is_kept(edge: int) -> bool:
    """Returns whether the edge answers from its cache. Asks several times, because the edge keeps
    an answer for a second at most."""
    from tests.support.web import ask

    url = SITE + PATHS["2 KB file"][1:]
    said = [ask(edge, "GET", url, headers=accepting("")).headers.get("x-edge") for _ in range(20)]
    return any("HIT" in (each or "") for each in said)


def check(port: int, what: What, name: str) -> None:
    """Raises WrongBytes if a server's answer doesn't have the expected bytes. Also raises it if the
    server doesn't answer with a 304 to a client that already has these bytes."""
    from tests.support.web import ask

    url = SITE + what.path[1:]
    answer = ask(port, "GET", url, headers=what.headers)
    if answer.status != 200 or answer.body != what.answer.body:
        raise WrongBytes(f"{name}, {what.path}: {answer.status}, {answer.body[:200]!r}")
    known = condition(answer.headers)
    again = ask(port, "GET", url, headers={**what.headers, **known})
    if again.status != 304:
        raise WrongBytes(f"{name}, {what.path} with {known}: {again.status} instead of 304")


def condition(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the conditional header with which a client asks whether an answer has changed.
    `headers` are the headers of this answer."""
    if "etag" in headers:
        return {"If-None-Match": headers["etag"]}
    return {"If-Modified-Since": headers["last-modified"]}


def measure(
    bench: Bench, ports: Mapping[str, int], what: What, connections: int, *, known: bool
) -> tuple[Table, Table]:
    """Measures each server's requests per second and p99 latency. With `known`, wrk sends
    conditional requests, as if it had the answer already. So the servers answer with 304s."""
    from tests.support.web import ask

    p99 = Series()

    def load(name: str, port: int) -> float:
        headers = dict(what.headers)
        if known:
            url = SITE + what.path[1:]
            headers |= condition(ask(port, "GET", url, headers=headers).headers)
        seconds = 1 if bench.quick else bench.options.seconds
        load = peers.wrk(
            port, what.path, connections=connections, seconds=seconds, headers=headers
        )  # fmt: skip
        if load.refused:
            raise WrongBytes(
                f"{name}, {what.path}: {load.refused} errors in {load.requests} answers"
            )
        if load.lost:
            console.print(
                f"{name}, {what.path}: {load.lost} requests lost, {load.requests} answered"
            )
        p99.note(name, load.p99)
        return load.per_second

    said = "304s for the " if known else ""
    title = f"{said}{what.name}, {connections} connection{'s' if connections > 1 else ''}"
    rates = compare(
        title, unit="requests/s", better="higher", runs=bench.runs, reference=HIT,
        cases=[Case(name, partial(load, name, port)) for name, port in ports.items()],
    )  # fmt: skip
    ordered = {name: p99.samples[name] for name in ports}
    return rates, Table(f"{title}, p99", "ms", "lower", ordered, HIT)


def extreme(
    tables: Sequence[Table],
    choose: Callable[..., tuple[float, str, Ratio]],
    text: str,
    case: str,
    to: str,
) -> tuple[str, Ratio | None]:
    """Finds the table with the worst ratio of `case` to `to`. Returns the text and the figure of a
    bar. The text is `text` with the title of the found table, and the figure is the ratio. `choose`
    is `min` if low ratios are bad, or `max` if high ratios are bad. If no table has both cases,
    returns `text` and None."""
    ratios = [(table.ratio(case, to), table.title) for table in tables]
    found = [(ratio.median, title, ratio) for ratio, title in ratios if ratio is not None]
    if not found:
        return text, None
    _, title, ratio = choose(found, key=lambda each: each[0])
    return f"{text} (worst case: {title})", ratio


if __name__ == "__main__":
    sys.exit(main())

"""Tests which answers the edge keeps, and for how long. The edge is nginx, as a cache in front of
the replicas."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from realms.models import Realm
from reindex.reading import pins
from tests.support import make
from tests.support.cluster import Answer, free_ports, wait_until
from tests.support.data.published import indexed
from tests.support.servers.edge import ADMIN_HOST, ONE_SECOND, Edge, differences, edge, need_nginx
from tests.support.web import ORIGIN, SOURCE, Web, ask, send_raw

SITE = f"{ORIGIN}/ada/site/"
PAGES = "http://ada.localhost:4201/"
CLOSED = f"{ORIGIN}/ada/closed/"
PAGE = "text/html,application/xhtml+xml,*/*;q=0.8"
#: The server allows shared caches to keep an answer for this many seconds. No test takes that long.
_LONG = 60


@pytest.fixture
def edged(web: Web, live: None, source: Realm, settings: Any, tmp_path: Path) -> Iterator[Edge]:
    """Yields an edge that may keep an answer for a minute. The directive ONE_SECOND of nginx.conf,
    which ends an answer with the clock's second, is replaced."""
    need_nginx()
    settings.REALM_EDGE_SECONDS = _LONG
    (port,) = free_ports(1)
    with edge(tmp_path / "edge", port, [web.port], replace=[ONE_SECOND]) as running:
        yield running


def through(
    edged: Edge, url: str, accept: str | None = "*/*", /, method: str = "GET", **headers: str
) -> Answer:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(edged.port, method, url, accept=accept, headers=told)


@pytest.fixture
def sites(source: Realm, owner: Any) -> None:
    """Makes a published site with pages, and a realm that only its owner may read."""
    make.publish(source, PAGES)
    indexed(PAGES)
    make.source(CLOSED, owner, {"a.md": b"# secret\n"}, public=False)


def test_a_repeated_accept_header_does_not_change_others_answers(edged: Edge, web: Web) -> None:
    """In nginx 1.22 a cache key contains only the first of several Accept lines, but the server
    joins all lines that it gets. If nginx passed on all lines, it would keep the answer to all of
    them under the key of the first line."""
    for first, second in (("*/*", SOURCE), ("text/html", SOURCE), ("*/*", "text/html")):
        request = (
            f"GET /ada/site/post.tsx HTTP/1.1\r\nHost: localhost:4201\r\nAccept: {first}\r\n"
            f"Accept: {second}\r\nConnection: close\r\n\r\n"
        )
        send_raw(edged.port, request.encode())
        wanted = web.get(f"{SITE}post.tsx", first)
        assert differences(through(edged, f"{SITE}post.tsx", first), wanted) == []


def test_no_request_can_forge_the_cache_key_of_another(edged: Edge, web: Web) -> None:
    """A line break separates the parts of a cache key. No part can contain a line break, so no part
    can look like two parts."""
    url = f"{SITE}post.tsx"
    wanted = web.get(url)
    for target, host in (
        ("/post.tsx", "localhost:4201/ada/site"),
        ("/ada/site/post.tsx\\n*/*", "localhost:4201"),
        ("/ada/site/post.tsx%0a*/*", "localhost:4201"),
        ("/ada/site/post.tsx", "localhost:4201%0a"),
    ):
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        send_raw(edged.port, request.encode())
    assert differences(through(edged, url), wanted) == []


def test_an_absolute_request_target_is_cached_under_its_real_host(
    edged: Edge, web: Web, sites: None
) -> None:
    for target, host in (
        ("http://evil.example/", "ada.localhost:4201"),
        ("http://ada.localhost:4201/", "evil.example"),
        (f"http://{ADMIN_HOST}/", "ada.localhost:4201"),
        ("http://ada.localhost:4201/", ADMIN_HOST),
    ):
        request = (
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        send_raw(edged.port, request.encode())
    assert differences(through(edged, PAGES), web.get(PAGES)) == []
    evil = "http://evil.example/"
    assert differences(through(edged, evil), web.get(evil)) == []


@pytest.mark.parametrize(
    "path",
    ["//post.tsx", "./post.tsx", "x/../post.tsx", "%2e/post.tsx", "%70ost.tsx", "post%2etsx",
     "%2Fpost.tsx", "POST.tsx", "post.tsx/", "post.tsx?", "post.tsx#x", "post.tsx%00", "%ff"],
)  # fmt: skip
def test_a_url_reaches_the_server_unchanged(edged: Edge, web: Web, path: str) -> None:
    for _ in range(2):
        answer, wanted = through(edged, SITE + path), web.get(SITE + path)
        if answer.status == 400 and "nginx" in answer.headers.get("server", ""):
            # nginx itself refuses this path, and would refuse it without a cache too.
            continue
        assert differences(answer, wanted) == []


def test_a_private_answer_is_never_kept(edged: Edge, sites: None) -> None:
    owner = make.realm_login(Realm.objects.get(url=CLOSED), "ada")
    for _ in range(2):
        mine = ask(edged.port, "GET", f"{CLOSED}a.md", headers=owner)
        assert (mine.status, mine.body) == (200, b"# secret\n")
        others = through(edged, f"{CLOSED}a.md")
        assert others.status == 401 and b"secret" not in others.body
        assert mine.headers.get("x-edge", "") == "" and others.headers["x-edge"] == "MISS"


def test_an_owner_sees_the_draft_where_others_see_a_notice(edged: Edge, web: Web) -> None:
    login = make.realm_login(Realm.objects.get(url=SITE), "ada")
    for _ in range(2):
        others = through(edged, SITE, PAGE)
        assert "is not published yet" in others.text
        assert "s-maxage" not in others.headers["cache-control"]
        mine = ask(edged.port, "GET", SITE, accept=PAGE, headers=login)
        assert mine.status == 503 and "being prepared" in mine.text
        assert mine.headers["cache-control"] == "private, no-store"


def test_a_read_that_names_a_generation_passes_the_edge(edged: Edge, source: Realm) -> None:
    url = f"{SITE}label.ts"
    make.write(source, label__ts=b"old")
    assert through(edged, url, SOURCE).body == b"old"
    generation = make.write(source, label__ts=b"new")
    assert through(edged, url, SOURCE).headers.get("x-edge", "") == "HIT", (
        "the edge has not kept the old answer"
    )
    pinned = ask(
        edged.port, "GET", url, accept=SOURCE,
        headers={"X-Realm-Min-Generation": str(generation)},
    )  # fmt: skip
    assert pinned.body == b"new"


def test_a_query_passes_the_edge(edged: Edge, source: Realm) -> None:
    url = f"{SITE}label.ts"
    make.write(source, label__ts=b"old")
    assert through(edged, f"{url}?noCache", SOURCE).body == b"old"
    make.write(source, label__ts=b"new")
    answer = through(edged, f"{url}?noCache", SOURCE)
    assert answer.body == b"new"
    assert answer.headers["cache-control"] == "public, max-age=0"


def test_logins_and_the_admin_are_never_kept(edged: Edge, sites: None) -> None:
    ada = b'{"username": "ada", "password": "ada"}'
    for _ in range(2):
        tokens = {
            ask(edged.port, "POST", f"{SITE}_session", body=ada).headers["authorization"]
            for _ in range(2)
        }
        assert tokens and all(tokens)
        for url in (f"{ORIGIN}/_admin/login/", f"http://{ADMIN_HOST}/_admin/login/"):
            assert through(edged, url, PAGE).headers.get("x-edge", "") == ""
    assert through(edged, f"{ORIGIN}/_at/label.ts").status == 404


def test_no_shared_cache_may_keep_a_pinned_read(web: Web, source: Realm, settings: Any) -> None:
    """A pinned read, a request to `/_at/<path>`, names its realm and generation only in the header
    X-Realm-Pin. Shared caches ignore this header, so they must not keep the answer."""
    settings.REALM_EDGE_SECONDS = _LONG
    pin = {pins.PIN_HEADER: pins.sign(pins.Pin(SITE, source.generation), pins.ITSELF)}
    for accept in ("*/*", SOURCE):
        answer = web.request("GET", f"{ORIGIN}/_at/post.tsx", accept=accept, headers=pin)
        assert answer.status == 200
        assert "s-maxage" not in answer.headers["cache-control"]
    assert "s-maxage" in web.get(f"{SITE}post.tsx").headers["cache-control"]


def test_only_answers_that_a_replica_allows_are_kept(
    edged: Edge, sites: None, settings: Any
) -> None:
    settings.REALM_EDGE_SECONDS = 0
    for url in (SITE, PAGES, f"{SITE}dot.png", f"{PAGES}post.tsx", f"{PAGES}none"):
        for _ in range(2):
            assert through(edged, url).headers.get("x-edge", "") in ("", "MISS"), url


# --- An origin that is slow, busy or away -------------------------------------------------------


class Origin:
    """A server that takes the place of the replicas behind the edge. It answers the first request
    with 1, the second with 2, and so on. While the event `let` isn't set, all answers wait."""

    def __init__(self, seconds: int = _LONG) -> None:
        self.asked, self.let = 0, threading.Event()
        self.let.set()
        self._lock = threading.Lock()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                with origin._lock:
                    origin.asked += 1
                    body = b"%d" % origin.asked
                assert origin.let.wait(30)
                self.send_response(200)
                self.send_header("Cache-Control", f"public, max-age=0, s-maxage={seconds}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.let.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_many_concurrent_requests_cost_the_origin_one_request(
    origin: Origin, tmp_path: Path
) -> None:
    need_nginx()
    (port,) = free_ports(1)
    # One request fetches the answer. nginx lets the other requests wait for `lock_timeout`, and
    # then passes them on too. On a busy machine the fetch may take longer than 5 ms.
    changes = (ONE_SECOND, ("lock_timeout 5ms", "lock_timeout 20s"))
    with (
        edge(tmp_path / "edge", port, [origin.port], replace=changes),
        ThreadPoolExecutor(40) as all,
    ):
        origin.let.clear()
        herd = [all.submit(ask, port, "GET", f"{SITE}a") for _ in range(40)]
        wait_until(lambda: origin.asked == 1, "the origin gets the first request")
        origin.let.set()
        assert {each.result().body for each in herd} == {b"1"}
    assert origin.asked == 1


def test_a_slow_answer_is_kept_only_in_the_second_of_its_request(
    origin: Origin, tmp_path: Path
) -> None:
    """nginx reuses an answer only for requests that arrive in the same second of the clock as the
    request that fetched it. If an answer arrives after this second, nginx never reuses the answer,
    even if the origin allows it."""
    need_nginx()
    (port,) = free_ports(1)
    with edge(tmp_path / "edge", port, [origin.port]), ThreadPoolExecutor(1) as other:
        wait_until(lambda: int(time.time()) % 2 == 0, "an even second begins")
        origin.let.clear()
        late = other.submit(ask, port, "GET", f"{SITE}a")
        wait_until(lambda: origin.asked == 1, "the origin gets the request")
        second = int(time.time())
        wait_until(lambda: time.time() > second + 1.1, "a second passes")
        origin.let.set()
        assert late.result().body == b"1"
        assert ask(port, "GET", f"{SITE}a").body == b"2"

        def kept() -> bool:
            return ask(port, "GET", f"{SITE}a").headers.get("x-edge", "") == "HIT"

        wait_until(kept, "the edge keeps an answer that arrives at once")


def test_an_edge_serves_nothing_stale_while_the_origin_is_away(
    origin: Origin, tmp_path: Path
) -> None:
    need_nginx()
    (port, nobody) = free_ports(2)
    with edge(tmp_path / "edge", port, [origin.port]) as running:
        assert ask(port, "GET", f"{SITE}a").status == 200
        (running.folder / "replicas.conf").write_text(f"server 127.0.0.1:{nobody};\n")
        running.reload()
        wait_until(lambda: ask(port, "GET", f"{SITE}a").status != 200, "the origin is away", 5)
        answer = ask(port, "GET", f"{SITE}a")
        assert answer.status == 503 and "no replica answers" in answer.text
        assert answer.headers["retry-after"] == "1"

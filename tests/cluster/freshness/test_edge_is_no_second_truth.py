"""Tests that an edge gives the same answers as the replica behind the edge. The edge is nginx, a
proxy that caches the replica's answers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern

from realms.api.routes import ENDPOINTS
from realms.models import Realm
from settings.urls import urlpatterns
from tests.support import make
from tests.support.cluster import Answer, cluster, free_ports
from tests.support.data.published import indexed
from tests.support.servers.edge import ADMIN_HOST, ONE_SECOND, Edge, differences, edge, need_nginx
from tests.support.web import API, ORIGIN, SOURCE, ask

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

SITE = f"{ORIGIN}/ada/site/"
PAGES = "http://ada.localhost:4201/"
CLOSED = f"{ORIGIN}/ada/closed/"
CARD = "application/vnd.card+json"
PAGE = "text/html,application/xhtml+xml,*/*;q=0.8"
#: The value of REALM_EDGE_SECONDS: for how many seconds the edge may keep an answer. The time is
#: long, so that an answer doesn't expire between the requests that a test compares.
LONG = "60"


@dataclass(frozen=True)
class Pair:
    """A replica at the port `replica`, and an edge in front of the replica. The edge keeps answers
    as long as their headers allow. `login` is the Authorization header of a user who may read the
    private realm CLOSED."""

    replica: int
    edge: Edge
    login: Mapping[str, str]

    def direct(self, method: str, url: str, **options: Any) -> Answer:
        return ask(self.replica, method, url, **options)

    def through(self, method: str, url: str, **options: Any) -> Answer:
        return ask(self.edge.port, method, url, **options)

    def compare(self, method: str, url: str, options: Mapping[str, Any], wanted: Answer) -> bool:
        """Asserts that the edge gives the answer `wanted`, which the replica gave. If the edge may
        cache the answer, sends the request to the edge twice. Returns whether the edge took its
        last answer from its cache."""
        may = "s-maxage" in wanted.headers.get("cache-control", "")
        for _ in range(1 + may):
            answer = self.through(method, url, **options)
            assert differences(answer, wanted) == [], (method, url, options)
        hit = answer.headers.get("x-edge") == "HIT"
        assert may or not hit, (method, url, options)
        return hit


@pytest.fixture
def pair(source: Realm, owner: Any, base: None, tmp_path: Path) -> Iterator[Pair]:
    need_nginx()
    files = {
        "style.css": b"p { color: red }\n" * 200, "large.txt": b"line\n" * 4000, "empty.txt": b"",
        "deep/index.json": make.card("../post", "Post", title="Deep"), "bad.ts": b"const = ;",
        "n\u00e4me.md": b"# name\n",
    }  # fmt: skip
    make.write_paths(source, files)
    make.publish(source, PAGES)
    indexed(PAGES)
    closed = make.source(CLOSED, owner, {"a.md": b"# secret\n"}, public=False)
    with cluster(
        tmp_path, 1, REALM_EDGE_SECONDS=LONG, REALM_ADMIN_ORIGIN=f"http://{ADMIN_HOST}"
    ) as running:
        (port,) = free_ports(1)
        (replica,) = running.replicas
        with edge(tmp_path / "edge", port, [replica.port], replace=[ONE_SECOND]) as before:
            yield Pair(replica.port, before, make.realm_login(closed, "ada"))


def table() -> list[str]:
    """Returns a URL for each endpoint of the server, except those in OF_THE_MOMENT, and URLs for
    all kinds of answers that a realm can give."""
    of_server = [
        str(each.pattern)
        for each in urlpatterns
        if isinstance(each, URLPattern) and re.fullmatch(r"[\w-]+", str(each.pattern))
    ]
    assert len(of_server) == 11
    paths = ("", "post.tsx", "post", "index.json", "index", "dot.png", "style.css", "large.txt",
             "empty.txt", "deep", "deep/", "bad.ts", "n%C3%A4me.md", "none", "none.png",
             "robots.txt", "sitemap.xml", "_unknown", "a.md", *ENDPOINTS)  # fmt: skip
    return [
        *(f"{ORIGIN}/{path}" for path in of_server if path not in OF_THE_MOMENT),
        *(f"{realm}{path}" for realm in (SITE, PAGES, CLOSED) for path in paths),
        f"{ORIGIN}/", f"{ORIGIN}/ada", f"{ORIGIN}/ada/site", f"{ORIGIN}/base/mod.ts",
        f"{ORIGIN}/_unknown", f"{ORIGIN}/nowhere/x", "http://nobody.example/", f"{ORIGIN}/_admin/",
        f"http://{ADMIN_HOST}/ada/site/post.tsx",
        f"{SITE}post.tsx?x=1", f"{SITE}?noCache", f"{SITE}post.tsx?acceptHeader=text/html",
    ]  # fmt: skip


#: The test sends all requests in ASKED for a URL that begins with one of these, and otherwise only
#: the first four.
IN_FULL = tuple(
    f"{realm}{path}"
    for realm, paths in (
        (SITE, ("post.tsx", "dot.png", "style.css", "none", "_info")),
        (PAGES, ("index", "deep", "large.txt", "sitemap.xml")),
        (CLOSED, ("a.md",)),
    )
    for path in paths
)
#: The endpoints that give a different answer each time.
OF_THE_MOMENT = ("_metrics", "_readiness", "_liveness")
#: The requests that the test sends for a URL: the method, the Accept header and other headers of
#: each request.
ASKED: tuple[tuple[str, str | None, Mapping[str, str]], ...] = (
    ("GET", "*/*", {}),
    ("GET", None, {}),
    ("GET", PAGE, {}),
    ("GET", SOURCE, {}),
    ("GET", CARD, {}),
    ("GET", API, {}),
    ("GET", "image/avif,image/webp,*/*;q=0.5", {"Accept-Encoding": "gzip, deflate, br, zstd"}),
    ("GET", "*/*", {"Accept-Encoding": "gzip"}),
    ("HEAD", "*/*", {}),
    ("HEAD", PAGE, {}),
    ("GET", "*/*", {"Range": "bytes=0-9"}),
    ("GET", "*/*", {"Range": "bytes=2-3,5-"}),
    ("GET", "*/*", {"Range": "bytes=999999-"}),
    ("GET", "*/*", {"If-None-Match": "*"}),
    ("GET", "*/*", {"If-None-Match": '"none"'}),
    ("GET", "*/*", {"If-Match": '"none"'}),
    ("GET", "*/*", {"If-Modified-Since": "Wed, 21 Oct 2099 07:28:00 GMT"}),
    ("GET", "*/*", {"X-Realm-Min-Generation": "1"}),
    ("GET", "*/*", {"X-Realm-Min-Generation": "999"}),
    ("GET", "*/*", {"X-HTTP-Method-Override": "QUERY"}),
    ("GET", "*/*", {"Authorization": "Bearer nonsense"}),
    ("GET", PAGE, {"Cookie": "theme=dark"}),
    ("POST", "*/*", {}),
    ("DELETE", SOURCE, {}),
    ("OPTIONS", "*/*", {}),
    ("PUT", "*/*", {}),
)


def test_an_edge_answers_as_the_server_does(pair: Pair) -> None:
    """Compares the status, the body and the headers of the edge's and the replica's answers. Leaves
    out headers that differ for each request, such as Date. If the edge may keep an answer, compares
    the kept answer too."""
    kept = 0
    for url in table():
        for method, accept, headers in ASKED if url.startswith(IN_FULL) else ASKED[:4]:
            options = {"accept": accept, "headers": headers}
            wanted = pair.direct(method, url, **options)
            if method == "GET" and not headers and "etag" in wanted.headers:
                # A visitor repeats a request with the ETag of the first answer.
                again = {**options, "headers": {"If-None-Match": wanted.headers["etag"]}}
                pair.compare(method, url, again, pair.direct(method, url, **again))
            kept += pair.compare(method, url, options, wanted)
        mine = {"accept": PAGE, "headers": pair.login}
        assert not pair.compare("GET", url, mine, pair.direct("GET", url, **mine))
    assert kept > 100
    assert pair.edge.errors == ""


#: Each entry has the headers of a forged request. With such a request, an attacker may try to make
#: the edge store a wrong answer for other clients.
FORGED: tuple[Mapping[str, str], ...] = (
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-For": "10.0.0.1"},
    {"Forwarded": "host=evil.example;proto=https"},
    {"X-Original-URL": "/ada/site/dot.png"},
    {"X-Rewrite-URL": "/ada/site/dot.png"},
    {"X-HTTP-Method-Override": "QUERY"},
    {"X-HTTP-Method": "DELETE"},
    {"X-Boxel-Assume-User": "ada"},
    {"X-Realm-Pin": "forged"},
    {"X-Realm-Min-Generation": "99"},
    {"X-Realm-Min-Generation": "none"},
    {"Content-Type": SOURCE},
    {"Content-Type": "application/vnd.card+json"},
    {"Range": "bytes=0-3"},
    {"Range": "bytes=900000-"},
    {"Range": "bytes=0-3", "If-Range": '"x"'},
    {"If-Match": '"x"'},
    {"If-Unmodified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"},
    {"If-None-Match": "*"},
    {"If-None-Match": 'W/"x", "y"'},
    {"If-Modified-Since": "Wed, 21 Oct 2099 07:28:00 GMT"},
    {"Accept": SOURCE},
    {"Accept": f"{SOURCE};q=0.1, */*"},
    {"Accept": "text/html;q=1"},
    {"Accept": API},
    {"Accept": "x" * 400},
    {"Accept": ""},
    {"Accept-Encoding": "gzip, br, zstd"},
    {"Accept-Encoding": "identity;q=0"},
    {"Accept-Encoding": "x" * 200},
    {"Authorization": "Bearer forged"},
    {"Cookie": "realm_session=forged"},
    {"Cookie": "anything=1"},
    {"Cache-Control": "max-stale=1000"},
    {"Pragma": "no-cache"},
    {"Origin": "https://evil.example"},
    {"Content-Length": "0"},
    {"Transfer-Encoding": "chunked"},
    {"Expect": "100-continue"},
    {"Upgrade": "h2c"},
    {"Connection": "close, X-Realm-Generation"},
    {"Accept-Language": "de"},
    {"User-Agent": "Googlebot"},
    {"Save-Data": "on"},
)
METHODS = ("HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "QUERY")
URLS = (
    f"{SITE}post.tsx", f"{SITE}post", f"{SITE}index.json", f"{SITE}dot.png", f"{SITE}none.png",
    SITE,     f"{SITE}_info", f"{SITE}_readiness-check", PAGES, f"{PAGES}index", f"{PAGES}nothing",
    f"{PAGES}post.tsx", f"{PAGES}robots.txt", f"{CLOSED}a.md", f"{ORIGIN}/nowhere/x",
)  # fmt: skip


def test_no_forged_request_changes_the_answer_for_others(pair: Pair) -> None:
    """After a forged request through the edge, or a request with another method than GET, the next
    visitor of the edge gets the answer that the replica gives without the edge."""
    for url in URLS:
        for accept in ("*/*", PAGE) if url.startswith(PAGES) else ("*/*",):
            wanted = pair.direct("GET", url, accept=accept)
            for forged in FORGED:
                body = b"0\r\n\r\n" if "Transfer-Encoding" in forged else None
                pair.through("GET", url, accept=accept, headers=forged, body=body)
                shown = pair.through("GET", url, accept=accept)
                assert differences(shown, wanted) == [], (url, forged)
            for method in METHODS:
                pair.through(method, url, accept=accept)
                shown = pair.through("GET", url, accept=accept)
                assert differences(shown, wanted) == [], (url, method)

"""Tests that an author's scripts run only at the hosts of the author's own realms.

TABLE lists requests for every route, and a test fails if a route is missing. Each request is sent
to several hosts. Except at a realm's own host, every answer must have a `sandbox` policy, which
forbids scripts. An answer of the admin may instead forbid that other sites show it in a frame.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest
from django.urls import get_resolver

from realms.api import routes
from realms.models import Realm
from reindex.reading import pins
from settings.wsgi import application
from tests.support import make
from tests.support.cluster import Answer
from tests.support.data.indexed import put_index
from tests.support.web import API, ORIGIN, SOURCE, Web, vouch

pytestmark = pytest.mark.django_db(transaction=True)

ADAS = f"{ORIGIN}/ada/site/"
DIARY = f"{ORIGIN}/ada/diary/"
SHOWN = "http://ada.localhost:4201/"
BLOG = "http://ada.localhost:4201/blog/"
PATH = f"{ORIGIN}/ada/shown/"
NEW = "http://new.localhost:4201/"
BOBS = "http://bob.localhost:4201/"
REALMS = (ADAS, DIARY, SHOWN, BLOG, PATH, NEW, BOBS)

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CARD = "application/vnd.card+json"

ADAS_SCRIPT, BOBS_SCRIPT = b"alert('ada')", b"alert('bob')"
EVIL = b"<script xmlns='http://www.w3.org/1999/xhtml'>" + ADAS_SCRIPT + b"</script>"
#: Paths of the same malicious file. At some, a browser may open the file and run its script.
NAMES = (
    "evil.html", "EVIL.HTML", "evil.HtM", "evil.xhtml", "evil.xht", "evil.svg", "evil.SVG",
    "evil.xml", "evil.xsl", "evil.xslt", "evil.rss", "evil.atom", "evil.rdf", "evil.mml",
    "evil.wsdl", "evil.mhtml", "evil.mht", "evil.eml", "evil.pdf", "evil.swf", "evil.hta",
    "evil.shtml", "evil.svgz", "evil.html.gz", "evil.html.", "evil.html;.png", "evil.html ", "evil",
    "evil.nothing", "evil.md", "evil.js", "evil.json", "evil.txt", "evil.css", "evil.webmanifest",
    "evil.vcf", "a b.html", "ä.html", "dir/index.html", "_under.html", ".html", "404.html",
    "robots.txt", "sitemap.xml",
)  # fmt: skip
FILES = {
    **dict.fromkeys(NAMES, EVIL),
    "broken.tsx": b"export const = <script>",
    "evil.tsx": b'export const evil = "<script>' + ADAS_SCRIPT + b'</script>";',
    "index.json": make.card("./evil", "Evil", title="<script>"),
    "page.json": make.card("./evil", "Evil", title="<script>"),
    "bad.json": make.card("./evil", "Evil", title="<script>"),
}


class To(StrEnum):
    """The hosts that get a request."""

    #: The hosts that serve the realm.
    SERVED = "served"
    #: One host of each kind: the public host, the replica's, the authors' and an unknown host.
    KINDS = "kinds"
    #: All hosts, including unusual spellings of host names. If the request's path has a placeholder
    #: for a realm, the request is sent for every realm.
    ALL = "all"


@dataclass(frozen=True)
class Ask:
    """A request that is sent to several hosts, for one or more realms. `{realm}` in the path stands
    for the realm's path, and `{slashless}` for this path without its final slash. A request below
    `/_at/` gets a pin, a token for reading the realm."""

    path: str
    method: str = "GET"
    accept: str = "*/*"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: The request is sent with this user's realm token.
    user: str = ""
    #: The hosts that get the request.
    to: To = To.KINDS


def reads(path: str, *accepts: str) -> Iterator[Ask]:
    """Yields two equal GETs, a HEAD, and GETs with the query parameters `noCache` and
    `acceptHeader`."""
    for accept in accepts:
        yield from (Ask(path, accept=accept), Ask(path, accept=accept))
        yield Ask(path, "HEAD", accept)
        yield Ask(f"{path}?noCache", accept=accept)
        yield Ask(f"{path}?acceptHeader={accept.partition(',')[0]}")


def partly(path: str, *accepts: str) -> Iterator[Ask]:
    """Yields a GET and a HEAD with each of the headers below."""
    for accept in accepts:
        for told in (
            {"Range": "bytes=0-20"}, {"Range": "bytes=99999-"}, {"If-None-Match": "*"},
            {"X-Realm-Min-Generation": "99"}, {"X-Realm-Min-Generation": "x"},
            {"X-HTTP-Method-Override": "QUERY"}, {"Cookie": "realm_session=x"},
            {"Authorization": "x"},
        ):  # fmt: skip
            yield Ask(path, accept=accept, headers=told)
            yield Ask(path, "HEAD", accept, headers=told)


def escaped(name: str) -> str:
    return quote(name, safe="/;")


#: The requests for each route. A route is a URL pattern, or the name and method of an endpoint.
TABLE: dict[str, list[Ask]] = {
    "_admin": [Ask("/_admin", accept=BROWSER)],
    "_admin/": [
        Ask("/_admin/", accept=BROWSER), Ask("/_admin/login/", accept=BROWSER),
        Ask("/_admin/login/", "POST", body=b"username=x"), Ask("/_admin/<script>"),
        Ask("/_admin/realms/realm/?q=<script>"), Ask("/_static/admin/css/base.css"),
        Ask("/_static/evil.html"),
    ],
    **{
        name: [
            Ask(f"/{name}", method, BROWSER, body)
            for method, body in (("GET", None), ("POST", b"<script>"), ("OPTIONS", None))
        ]
        for name in (
            "_server-session", "_realm-auth", "_create-realm", "_publish-realm", "_unpublish-realm",
            "_delete-realm", "_metrics", "_publish-progress", "_liveness", "_readiness",
        )
    },
    r"^_at/(?P<path>(?s:.*))\Z": [
        *(
            Ask("/_at/" + escaped(name), method, accept, to=To.SERVED)
            for name in (*NAMES, "evil.tsx", "broken.tsx", "nothing", "bad", "page")
            for accept in ("*/*", SOURCE)
            for method in ("GET", "GET", "HEAD")
        ),
        Ask("/_at/evil.html", to=To.ALL),
        *partly("/_at/evil.html", "*/*", SOURCE, BROWSER),
        Ask("/_at/", accept=API),
        Ask("/_at/", "POST", body=b'{"paths": ["evil.html"]}'),
        Ask("/_at/evil.html", "PUT", body=b""),
        Ask("/_at/evil.html", headers={pins.PIN_HEADER: "<script>"}),
        Ask("/_at/evil.html?noCache"), Ask("/_at/evil"),
    ],
    str(get_resolver().url_patterns[-2].pattern): [
        *(
            Ask("{realm}" + escaped(name), accept=accept, to=To.SERVED)
            for name in NAMES
            for accept in (BROWSER, BROWSER, "*/*", "*/*", SOURCE)
        ),
        *(Ask("{realm}" + name, accept=BROWSER, to=To.ALL) for name in ("evil.html", "page")),
        *(
            ask
            for path in ("", "page", "bad", "nothing", "broken.tsx", "evil.SVG", "dir",
                         "x/../evil.html", "%ff", "%00", "a" * 5000, "sitemap.xml?part=<script>")
            for ask in reads("{realm}" + path, BROWSER, SOURCE, CARD)
        ),
        *partly("{realm}evil.html", BROWSER, SOURCE), *partly("{realm}page", BROWSER),
        *(
            Ask("{realm}" + path, method, accept, body, user=user)
            for path in ("evil.html", "page")
            for method in ("PUT", "POST", "PATCH", "DELETE", "OPTIONS")
            for body in (b"<script>",)
            for accept in (BROWSER, SOURCE, CARD)
            for user in ("", "bob")
        ),
        *(Ask("{slashless}", accept=accept, to=To.ALL) for accept in (BROWSER, API)),
        *(
            Ask("{realm}" + path, accept=accept, user=user, to=To.ALL)
            for path in ("", "page", "evil.html")
            for accept in (BROWSER, SOURCE)
            for user in ("ada", "bob")
        ),
    ],
    "^_": [Ask("/_nothing/<script>", accept=BROWSER), Ask("/_at/x"), Ask("/_<script>", "POST")],
    **{
        f"{name} {method}": [
            Ask("{realm}" + name, method, accept, None if method == "GET" else body, user=user)
            for accept, body in ((BROWSER, b"<script>"), (API, b"{}"))
            for user in ("", "ada", "bob")
        ]
        for name, methods in routes.ENDPOINTS.items()
        for method in methods
    },
}  # fmt: skip


def test_every_route_is_in_the_table() -> None:
    patterns = {str(pattern.pattern) for pattern in get_resolver().url_patterns}
    endpoints = {f"{n} {m}" for n, methods in routes.ENDPOINTS.items() for m in methods}
    assert set(TABLE) == patterns | endpoints


@pytest.fixture
def published(web: Web, owner: Any) -> dict[str, Realm]:
    """Makes Ada's and Bob's realms, and returns them by URL. Each has malicious files. Each except
    NEW also has rendered pages, and a page that could not be rendered."""
    bob = make.user("bob")
    site = make.source(ADAS, owner, FILES)
    make.source(DIARY, owner, FILES, public=False)
    for url in (SHOWN, BLOG, PATH, NEW):
        make.publish(site, url)
    bobs = {path: data.replace(ADAS_SCRIPT, BOBS_SCRIPT) for path, data in FILES.items()}
    make.publish(make.source(f"{ORIGIN}/bob/site/", bob, bobs), BOBS)
    realms = {realm.url: realm for realm in Realm.objects.filter(url__in=REALMS)}
    assert len(realms) == len(REALMS)
    for url, realm in realms.items():
        if url != NEW:
            pages: dict[str, Any] = {"index": {}, "page": {}}
            put_index(url, realm.generation, pages, {"bad": {"message": "<script>"}})
    vouch()
    return realms


def hosts(web: Web, realm: Realm, to: To) -> tuple[str, ...]:
    """Returns the hosts that get a request for a realm."""
    own = urlsplit(realm.url).netloc
    public, replica = "localhost:4201", f"127.0.0.1:{web.port}"
    if to is To.SERVED:
        return own, replica if own == public else own.replace("4201", str(web.port))
    kinds = (public, replica, "ada.localhost:4201", "bob.localhost:4201", "unknown.localhost:4201")
    if to is To.KINDS:
        return kinds
    return (
        *kinds, f"localhost:{web.port}", f"ada.localhost:{web.port}", "new.localhost:4201",
        "ADA.localhost:4201", "ada.localhost", "ada.localhost:80", "ada.localhost:4201.",
        "ada.localhost.:4201", "ada.localhost:4201,bob.localhost:4201", "admin.localhost:4201",
        "127.0.0.1:1", "[::1]:4201", "",
    )  # fmt: skip


def sent(web: Web, ask: Ask, host: str, realm: Realm) -> Answer:
    """Sends a request to the WSGI application without a socket, because thousands of requests over
    a socket would be slow."""
    path = urlsplit(realm.url).path or "/"
    target = ask.path.replace("{realm}", path).replace("{slashless}", path[:-1] or "/")
    headers: dict[str, str] = {**ask.headers, "Host": host}
    if ask.path.startswith("/_at/"):
        headers.setdefault(pins.PIN_HEADER, pins.sign(pins.Pin(realm.url, realm.generation)))
    if ask.user:
        headers |= make.realm_login(realm, ask.user)
    raw, _, query = target.partition("?")
    body = ask.body or b""
    environ = {
        "REQUEST_METHOD": ask.method, "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1",
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"), "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(web.port), "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr, "HTTP_ACCEPT": ask.accept,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }  # fmt: skip
    started: list[Any] = []
    answered = application(environ, lambda *told: started.append(told))
    try:
        data = b"".join(answered)
    finally:
        getattr(answered, "close", lambda: None)()
    ((status, told),) = started
    return Answer(int(status[:3]), {name.lower(): value for name, value in told}, data)


def sandboxed(answer: Answer) -> bool:
    """Returns whether the answer's Content-Security-Policy has a directive `sandbox` that contains
    neither `allow-scripts` nor `allow-same-origin`."""
    for policy in answer.headers.get("content-security-policy", "").split(","):
        words = policy.partition(";")[0].split()
        if words[:1] == ["sandbox"] and not {"allow-scripts", "allow-same-origin"} & set(words):
            return True
    return False


#: Maps each host of a single owner to the realms at this host, and to the script of a different
#: owner. No answer at this host may contain this script.
OWN = {
    "ada.localhost:4201": ((SHOWN, BLOG), BOBS_SCRIPT),
    "new.localhost:4201": ((NEW,), BOBS_SCRIPT),
    "bob.localhost:4201": ((BOBS,), ADAS_SCRIPT),
}


def at_own_host(answer: Answer, host: str) -> bool:
    """Returns true if the requested host belongs to the answer's realm, and the body doesn't
    contain a different owner's script."""
    # A dot at the end of a host name doesn't change the host.
    realms, foreign = OWN.get(host.lower().replace(".:", ":"), ((), b""))
    return answer.headers.get("x-boxel-realm-url") in realms and foreign not in answer.body


def wrong_with(answer: Answer, ask: Ask, host: str) -> str | None:
    if answer.headers.get("x-content-type-options") != "nosniff":
        return "has no `nosniff`, so a browser may guess another content type"
    if sandboxed(answer) or at_own_host(answer, host):
        return None
    if ask.path.startswith("/_admin"):
        return None if answer.headers.get("x-frame-options") == "DENY" else "can be framed"
    return "has no sandbox policy"


def walk(web: Web, realms: dict[str, Realm], asks: list[Ask]) -> set[object]:
    """Sends the requests to their hosts and asserts that every answer is safe. Returns the statuses
    of the answers, and their cache results (`hit` or `miss`)."""
    seen: set[object] = set()
    wrong = []
    for ask in asks:
        about = (SHOWN,) if "{" not in ask.path else REALMS if ask.to is To.ALL else (ADAS, SHOWN)
        for realm in map(realms.__getitem__, about):
            for host in hosts(web, realm, ask.to):
                answer = sent(web, ask, host, realm)
                seen |= {answer.status, answer.headers.get("x-boxel-cache")}
                why = wrong_with(answer, ask, host)
                if why:
                    wrong.append(f"{ask} of {realm.url} at {host!r}: {answer.status} {why}")
    assert not wrong, f"{len(wrong)} unsafe answers:\n" + "\n".join(wrong[:40])
    return seen


def test_author_bytes_are_sandboxed_at_every_host_but_their_own(
    web: Web, published: dict[str, Realm]
) -> None:
    seen: set[object] = set()
    for asks in TABLE.values():
        seen |= walk(web, published, asks)
    statuses = {200, 204, 206, 302, 304, 400, 401, 403, 404, 405, 406, 409, 414, 416, 500, 503}
    assert seen >= {*statuses, "hit", "miss"}, "a status or a cache result never occurs"


def test_a_site_is_not_sandboxed_at_its_own_host(web: Web, published: dict[str, Realm]) -> None:
    for url in (f"{SHOWN}evil.html", f"{SHOWN}page", f"{BLOG}evil.svg", f"{SHOWN}nothing"):
        for cache in ("miss", "hit"):
            answer = web.get(url, BROWSER)
            assert answer.cache == cache
            assert "content-security-policy" not in answer.headers, url
            assert "x-frame-options" not in answer.headers, url


def test_a_shared_host_on_another_port_is_sandboxed_too(web: Web, owner: Any) -> None:
    for host in ("localhost:9000", "127.0.0.1:9000"):
        make.source(f"http://{host}/", owner, FILES)
        vouch()
        for _ in range(2):
            answer = web.get(f"http://{host}/evil.html")
            assert answer.status == 200 and sandboxed(answer)


def test_an_unexpected_error_is_sandboxed_too(
    web: Web, published: dict[str, Realm], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("<script>")

    monkeypatch.setattr("realms.serving.answers.load", fail)
    monkeypatch.setattr("realms.serving.answers.cached", lambda *_: None)
    answer = web.get(f"{ADAS}evil.html", BROWSER)
    assert answer.status == 500 and sandboxed(answer) and b"<script>" not in answer.body


@pytest.mark.usefixtures("published")
def test_a_page_in_preparation_refreshes_itself_by_a_header(web: Web) -> None:
    answer = web.get(NEW, BROWSER)
    assert answer.status == 503
    assert answer.headers["refresh"] == answer.headers["retry-after"] == "1"
    assert b"http-equiv" not in answer.body, "browsers ignore <meta> in a sandboxed page"


# --- Drafts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:4201", "replica"])
def test_the_preview_of_a_draft_can_connect_to_no_other_host(
    web: Web, published: dict[str, Realm], host: str
) -> None:
    """The preview shows private content in the owner's browser. Card code makes the preview's HTML,
    which could otherwise send the content to another host."""
    host = f"127.0.0.1:{web.port}" if host == "replica" else host
    for path in ("", "page", "bad", "nothing"):
        ask = Ask("{realm}" + path, accept=BROWSER, user="ada")
        answer = sent(web, ask, host, published[DIARY])
        rules = {
            words[0]: words[1:]
            for policy in answer.headers["content-security-policy"].split(",")
            for words in map(str.split, policy.split(";"))
        }
        assert sandboxed(answer)
        assert rules["sandbox"] == [], "`sandbox` must allow no scripts, forms or windows"
        assert rules["default-src"] == rules["form-action"] == rules["base-uri"] == ["'none'"]
        assert not rules.keys() & {"connect-src", "script-src", "frame-src", "object-src"}
        realm = [f"http://{each}/ada/diary/" for each in dict.fromkeys((host, "localhost:4201"))]
        for name, more in (("img-src", ["data:"]), ("style-src", ["'unsafe-inline'"])):
            assert rules[name] == more + realm
        assert rules["frame-ancestors"] == ["'none'"]
        assert answer.headers["referrer-policy"] == "no-referrer"

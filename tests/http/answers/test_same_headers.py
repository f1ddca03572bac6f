"""Tests that an answer has the same headers whether it comes from a cache or from the database."""

from io import BytesIO
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest

from realms.front import Front
from realms.http.packed import Packed
from realms.models import Realm
from realms.serving import answers
from realms.serving.responses import VARIANTS
from realms.web import asgi
from reindex.models import IndexedCard
from reindex.reading.media_types import CARD, SOURCE
from settings.wsgi import application
from tests.support import make
from tests.support.data.indexed import put_index
from tests.support.web import API, ORIGIN, Web, vouch

DRAFT = f"{ORIGIN}/ada/site/"
PATH = f"{ORIGIN}/ada/shown/"
SITE = "http://ada.localhost:4201/"
NEW = "http://new.localhost:4201/"
PRIVATE = f"{ORIGIN}/ada/private/"
NOWHERE = "http://nobody.localhost:4201/"
REALMS = (DRAFT, PATH, SITE, NEW, PRIVATE, NOWHERE)
PATHS = (
    "", "page", "bad", "stale", "foreign", "nothing", "nothing.png", "sec", "sec/", "person",
    "person.tsx", "broken.tsx", "page.json", "page.html", "dot.png", "empty.md", "a.svgz",
    "robots.txt", "sitemap.xml", "dir/", "%ff", "%00", "_info", "_nothing",
)  # fmt: skip
ACCEPTS = (
    *VARIANTS, CARD, API, "text/html,application/xhtml+xml,*/*;q=0.8", "application/json, */*",
    "image/*",
)  # fmt: skip
CONDITIONS: tuple[dict[str, str], ...] = (
    {}, {"Range": "bytes=0-1"}, {"Range": "bytes=9999-"}, {"If-None-Match": "*"},
    {"If-Match": '"x"'}, {"X-Realm-Min-Generation": "99"}, {"X-Realm-Min-Generation": "x"},
    {"If-Modified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"},
)  # fmt: skip
CODINGS = ("gzip", "gzip, deflate, br, zstd", "br;q=0, identity")
SERVER = asgi.RealmServer(application)
#: Headers that may differ between cached and uncached answers.
ALLOWED = {"x-boxel-cache", "date"}


@pytest.fixture
def realms(web: Web, owner: Any) -> None:
    """Makes realms that give every kind of answer. Also makes the board live, so that requests are
    answered from caches."""
    files = {
        **make.SITE,
        "page.json": make.card("./person", "Person"),
        "broken.tsx": b"export const = 1;",
        "page.html": b"<p>page</p>",
        "empty.md": b"",
        "a.svgz": b"\x1f\x8b",
    }
    site = make.source(DRAFT, owner, files)
    stranger = make.source(f"{ORIGIN}/bob/code/", make.user("bob"), {})
    make.source(PRIVATE, owner, files, public=False)
    for url in (PATH, SITE, NEW):
        make.publish(site, url)
    for url in (PATH, SITE):
        generation = Realm.objects.get(url=url).generation
        documents: dict[str, Any] = {"index": {}, "page": {}, "sec/index": {}, "stale": {}}
        put_index(url, generation, documents | {"foreign": {}}, {"bad": {"message": "no"}})
        cards = IndexedCard.objects.filter(realm_url=url)
        cards.filter(path="stale").update(error={"message": "no"})
        cards.filter(path="foreign").update(strangers=[stranger.url])
    vouch()


def answer(
    url: str, method: str, headers: dict[str, str], query: str = "", host: str = ""
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Returns the status, headers and body that the application passes to the web server."""
    parts = urlsplit(url)
    scope = {
        "type": "http", "method": method, "raw_path": parts.path.encode(),
        "query_string": query.encode(), "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 1),
        "scheme": "http", "http_version": "1.1",
        "headers": [
            (b"host", (host or parts.netloc).encode()),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ],
    }  # fmt: skip
    environ = {**asgi._environ(scope), "wsgi.input": BytesIO()}
    reply = SERVER._hit(scope) or asgi._call(application, environ)
    kept = [each for each in reply.headers if each[0] not in ALLOWED]
    if method == "HEAD":
        return str(reply.status), sorted(kept), b""
    pieces = reply.body.pieces(10**6) if isinstance(reply.body, Packed) else [reply.body]
    return str(reply.status), sorted(kept), b"".join(pieces)


def differences(url: str, method: str, headers: dict[str, str], host: str = "") -> list[str]:
    """Requests a URL uncached, cached, without the front, and with `noCache`. The front is the code
    that answers reads without Django. Returns how the other answers differ from the uncached
    answer."""
    for cache in answers.caches().values():
        cache.drop(url)
    asked = {
        "miss": answer(url, method, headers, host=host),
        "shared": answer(url, method, headers, host=host),
        "hit": answer(url, method, headers, host=host),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Front, "reply", lambda *asked: None)
        asked["without the front"] = answer(url, method, headers, host=host)
    asked["alone"] = answer(url, method, headers, "noCache", host)
    status, told, _ = asked["miss"]
    # A redirect keeps the query string, so `?noCache` is removed before the comparison.
    seen = {
        name: (status, [(n, v.removesuffix("?noCache")) for n, v in told], body)
        for name, (status, told, body) in asked.items()
    }
    return [
        f"{method} {url} at {host!r} {headers} {name}: {status} {set(told) ^ set(other[1])}"
        for name, other in seen.items()
        if other != seen["miss"]
    ]


def walk(*asked: tuple[str, str, dict[str, str], str]) -> set[str]:
    """Asserts that each request gets equal answers from the caches and the database. Returns the
    statuses of the answers."""
    wrong = [each for one in asked for each in differences(*one)]
    assert not wrong, f"{len(wrong)} answers differ:\n" + "\n".join(wrong[:40])
    return {answer(url, method, headers, host=host)[0] for url, method, headers, host in asked}


def test_a_hit_a_miss_and_an_uncached_read_have_the_same_headers(realms: None) -> None:
    """Covers every kind of realm and path, and different Accept headers."""
    everywhere = [
        (realm + path, "GET", {"Accept": accept}, "")
        for realm, path, accept in product(
            REALMS, ("", "page", "foreign", "nothing", "dot.png"), ACCEPTS
        )
    ]
    published = [
        (SITE + path, "GET", {"Accept": accept}, host)
        for path in PATHS
        for accept, host in (("*/*", ""), ("text/html", "ada.localhost.:4201"), (SOURCE, ""))
    ]
    conditional = [
        (SITE + path, method, {"Accept": accept, **condition}, "")
        for (path, accept, method), condition in product(
            (("page", "*/*", "GET"), ("dot.png", "*/*", "GET"), ("foreign", "text/html", "HEAD")),
            CONDITIONS,
        )
    ]
    coded = [
        (SITE + path, method, {"Accept": accept, "Accept-Encoding": coding, **condition}, "")
        for (path, accept, method), coding, condition in product(
            (("page", "*/*", "GET"), ("page", "text/html", "HEAD"), ("person", "*/*", "GET"),
             ("person", SOURCE, "GET"), ("dot.png", "*/*", "GET"), ("broken", "*/*", "GET")),
            CODINGS,
            ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}),
        )
    ]  # fmt: skip
    statuses = walk(*everywhere, *published, *conditional, *coded)
    assert statuses >= {"200", "206", "302", "304", "401", "404", "406", "412", "416", "500", "503"}


# --- 304s --------------------------------------------------------------------------------------

OLD, LATE = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 2100 00:00:00 GMT"
#: Conditions that are sent together with the current ETag in If-None-Match, and the status of each
#: answer.
BESIDE: tuple[tuple[dict[str, str], str], ...] = (
    ({}, "304"), ({"If-Modified-Since": OLD}, "304"), ({"If-Modified-Since": LATE}, "304"),
    ({"If-Match": '"x"'}, "412"), ({"If-Unmodified-Since": OLD}, "412"),
    ({"If-Unmodified-Since": LATE}, "304"), ({"If-Range": OLD}, "304"),
)  # fmt: skip


def etag_of(url: str, headers: dict[str, str]) -> str:
    return dict(answer(url, "GET", headers)[1])["etag"]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("path", ["person", "page.json", "page.html"])
def test_a_304_is_the_same_from_a_cache_and_from_the_database(
    realms: None, path: str, coding: str
) -> None:
    url, asked = SITE + path, {"Accept": "*/*", "Accept-Encoding": coding}
    etag = etag_of(url, asked)
    for method in ("GET", "HEAD"):
        for beside, status in BESIDE:
            for copy in (etag, f"W/{etag}"):
                seen = walk((url, method, {**asked, "If-None-Match": copy, **beside}, ""))
                assert (beside, seen) == (beside, {status})


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_only_the_etag_of_this_very_text_gets_a_304(realms: None, coding: str) -> None:
    """The requests in `etag_of` fill the cache, and all later requests are answered from the
    cache."""
    url, asked = f"{SITE}person.tsx", {"Accept": "*/*", "Accept-Encoding": coding}
    etag, source = etag_of(url, asked), etag_of(url, {"Accept": SOURCE})
    other = etag_of(url, {**asked, "Accept-Encoding": "br"})
    assert len({etag, source, other}) == 3
    for beside, status in BESIDE:
        for copy in (
            etag, source, other, f"W/{etag}", f'"x", {etag}', "*", etag[:-1], etag.strip('"'), "",
            f"w/{etag}", f"W/W/{etag}", etag,
        ):  # fmt: skip
            wanted = "304" if etag in copy and copy[:2] != "w/" and "W/W" not in copy else "200"
            wanted = wanted if copy != "*" else "304"
            if status == "412":
                wanted = status
            known = {**asked, "If-None-Match": copy, **beside}
            seen = [answer(url, "GET", known)[0] for _ in range(2)]
            assert (copy, beside, seen) == (copy, beside, [wanted] * 2)


def test_a_304_ends_when_the_text_changes_and_is_only_for_readers(realms: None) -> None:
    asked = {"Accept": "*/*"}
    for url, after in ((f"{DRAFT}page.html", "200"), (f"{PRIVATE}page.html", "401")):
        realm = Realm.objects.get(url=url.removesuffix("page.html"))
        login = make.realm_login(realm, "ada")
        known = {**asked, "If-None-Match": etag_of(url, {**asked, **login})}
        for _ in range(3):
            assert answer(url, "GET", {**known, **login})[0] == "304"
        assert answer(url, "GET", known)[0] == ("304" if after == "200" else "401")
        make.write_paths(realm, {"page.html": b"<p>another page</p>"})
        for _ in range(2):
            assert answer(url, "GET", known)[0] == after


def test_each_coding_gets_its_own_cached_reply(realms: None) -> None:
    url = f"{SITE}person.tsx"
    for _ in range(3):
        etags = set()
        for coding in ("identity", "gzip", "br"):
            told = dict(answer(url, "GET", {"Accept": "*/*", "Accept-Encoding": coding})[1])
            assert told.get("content-encoding", "identity") == coding
            etags.add(told["etag"])
            known = {"Accept": "*/*", "Accept-Encoding": coding, "If-None-Match": told["etag"]}
            assert answer(url, "GET", known)[0] == "304"
        assert len(etags) == 3

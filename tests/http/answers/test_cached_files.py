"""Tests how the server and clients cache files: hits, misses, ETags, and the generation of an
answer."""

import pytest

from notifications.board import Board
from notifications.emit import local_board
from realms.models import Realm
from tests.support import make
from tests.support.web import SOURCE, Web

PAGE = "http://ada.localhost:4201/"


@pytest.mark.parametrize("accept", [SOURCE, "*/*"])
@pytest.mark.parametrize("path", ["person.tsx", "index.json", "dot.png"])
def test_a_client_that_has_the_content_gets_a_304(
    web: Web, live: None, source: Realm, path: str, accept: str
) -> None:
    etag = web.get(source.url + path, accept).headers["etag"]
    for _ in ("from the cache", "and past it"):
        for known in (etag, f"W/{etag}", "*", f'"x", {etag}', f'"a,b" , W/{etag}, "c"'):
            answer = web.get(source.url + path, accept, **{"If-None-Match": known})
            assert (answer.status, answer.body) == (304, b""), known
            assert answer.headers["etag"] == etag
            assert "cache-control" in answer.headers
            assert "last-modified" in answer.headers
        for unknown in (
            '"x"',
            etag.strip('"'),
            etag.replace(":", ";"),
            etag.upper(),
            "rubbish",
            '"',
        ):
            answer = web.get(source.url + path, accept, **{"If-None-Match": unknown})
            assert answer.status == 200, unknown
        local_board().bump_epoch()


def test_a_missing_file_is_a_404_even_with_if_none_match(web: Web, source: Realm) -> None:
    assert web.get(f"{source.url}none.md", SOURCE, **{"If-None-Match": "*"}).status == 404


def test_two_writes_in_one_second_have_different_etags(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    """An ETag is made from the content, so it doesn't depend on the clock's resolution."""
    url = f"{source.url}quick.md"
    etags = set()
    for text in (b"one", b"two", b"three"):
        web.upload(url, text, ada)
        etags.add(web.get(url, SOURCE).headers["etag"])
    assert len(etags) == 3


@pytest.mark.parametrize("accept", [SOURCE, "*/*"])
@pytest.mark.parametrize("path", ["person", "index.json", "dot.png", "none.md"])
def test_a_second_read_is_a_hit_until_the_file_changes(
    web: Web, live: None, source: Realm, ada: dict[str, str], path: str, accept: str
) -> None:
    """A cached answer stays valid until the answer's own file changes. A change of another file
    doesn't matter."""
    caches = [web.get(source.url + path, accept).cache for _ in range(3)]
    assert caches == ["miss", "hit", "hit"]
    web.upload(f"{source.url}other.md", b"x", ada)
    assert web.get(source.url + path, accept).cache == "hit"
    name = "person.tsx" if path == "person" else path
    web.upload(source.url + name, b"export const changed = 1;", ada)
    answer = web.get(source.url + path, accept)
    assert answer.cache == "miss"
    assert "changed" in web.get(source.url + name, accept).text
    assert web.get(source.url + path, accept).cache == "hit"


def test_without_a_sidecar_every_read_is_a_miss(web: Web, source: Realm) -> None:
    """A replica's sidecar is the process that receives notifications of changes. Without a sidecar,
    the replica still serves files, but doesn't use its caches."""
    assert [web.get(f"{source.url}person").cache for _ in range(3)] == ["miss"] * 3


def test_no_cache_reads_the_database_whatever_is_cached(
    web: Web, live: None, source: Realm
) -> None:
    """A request with `noCache` reads the database, even if a cached answer is outdated and the
    replica doesn't know it."""
    url = f"{source.url}index.json"
    web.get(url, SOURCE)
    assert web.get(f"{url}?noCache", SOURCE).cache == "miss"
    assert web.get(f"{url}?noCache=false", SOURCE).cache == "miss"
    web.get(url, SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        # Without `Board.bump`, this write doesn't invalidate the cached answer. This is the same as
        # if another process had written the file and the replica hadn't been notified.
        patch.setattr(Board, "bump", lambda board, keys: None)
        make.write(source, index__json=b'{"new": 1}')
    assert web.get(url, SOURCE).body == make.SITE["index.json"]
    assert web.get(f"{url}?noCache", SOURCE).body == b'{"new": 1}'


def test_an_answer_has_its_generation_and_at_least_the_requested_one(
    web: Web, live: None, source: Realm
) -> None:
    url = f"{source.url}index.json"
    assert web.get(url, SOURCE).headers["x-realm-generation"] == "2"
    make.write(source, other__md=b"x")
    assert web.get(url, SOURCE).headers["x-realm-generation"] == "2", "this answer is cached"
    pinned = web.get(url, SOURCE, **{"X-Realm-Min-Generation": "3"})
    assert (pinned.status, pinned.headers["x-realm-generation"]) == (200, "3")
    assert web.get(url, SOURCE, **{"X-Realm-Min-Generation": "3"}).cache == "hit"
    beyond = web.get(url, SOURCE, **{"X-Realm-Min-Generation": "4"})
    assert beyond.status == 409
    assert "generation 4 has not been committed" in beyond.text


def test_a_page_at_a_generation_that_is_not_rendered_is_a_503(web: Web, source: Realm) -> None:
    done = make.publish(source, PAGE)
    answer = web.get(PAGE, "text/html", **{"X-Realm-Min-Generation": str(done.generation)})
    assert answer.status == 503
    assert answer.headers["x-boxel-not-ready"] == "prerender-html"

"""Tests which requests get a page of a site, which is a published realm. Also tests the site's 404
pages, sitemaps and robots.txt."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from notifications.channels import index_key, realm_key
from notifications.emit import local_board
from realms.models import Realm, RealmPermission
from realms.serving import site as module
from tests.support import make
from tests.support.cluster import Answer
from tests.support.data.indexed import put_index
from tests.support.data.site import BROWSER, DRAFT, NAMESPACE, SITE, swapped
from tests.support.web import ORIGIN, Web

# --- Requests that get a page ------------------------------------------------------------------

#: Accept headers of requests that get a page. Browsers, link previews and command-line tools send
#: these headers; some are unusual.
TAKE_PAGES = (
    BROWSER, "*/*", None, "", "text/*", "text/html;q=0.5", "text/html; charset=utf-8", "TEXT/HTML",
    "text/css,*/*;q=0.1", "application/json, text/plain, */*", "image/*, text/html;q=0.1",
    "text/html, image/gif, *; q=.2", "application/vnd.card+json;q=0.1, text/html",
    "*/*;q=0.1, text/plain", "text/html, application/json",
)  # fmt: skip
TAKE_NO_PAGES = (
    "application/json", "text/html;q=0, */*", "text/html;q=0.0", "image/*", "text/css",
    "text/*;q=0, */*", "application/xml", "*/*;q=0",
)  # fmt: skip


def test_every_request_that_accepts_html_gets_a_page(web: Web, shown: Realm, live: None) -> None:
    for accept in TAKE_PAGES:
        for path, cards in (("", "index"), ("a%20b/ada", "a b/ada")):
            for method in ("GET", "GET", "HEAD"):
                answer = web.request(method, SITE + path, accept=accept)
                assert answer.status == 200, (accept, path)
                assert answer.headers["content-type"] == "text/html; charset=utf-8"
                assert (f"page of {cards}" in answer.text) == (method == "GET")
            assert answer.cache == "hit", (accept, path)
        assert web.request("GET", f"{SITE}bad", accept=accept).status == 500
    for accept in TAKE_NO_PAGES:
        for _ in ("miss", "hit"):
            answer = web.request("GET", f"{SITE}a%20b/ada", accept=accept)
            assert answer.status == 404, accept
            assert answer.headers["content-type"] == "application/vnd.api+json"


def test_a_file_is_served_before_a_page_unless_html_is_preferred(web: Web, source: Realm) -> None:
    published = make.publish(source, SITE)
    put_index(SITE, published.generation, {"post": {}, "dot.png": {}})
    for accept in ("*/*", "text/html;q=0.9, */*", "text/css, */*;q=0.1", "text/javascript", None):
        answer = web.request("GET", f"{SITE}post", accept=accept)
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8", accept
    for accept in (BROWSER, "text/html", "text/*", "text/html, text/javascript;q=0.9"):
        assert "page of post" in web.get(f"{SITE}post", accept).text
    assert web.get(f"{SITE}dot.png", "text/html").headers["content-type"] == "image/png"


def test_a_request_for_any_type_follows_new_and_deleted_pages(
    web: Web, shown: Realm, live: None
) -> None:
    assert [web.get(f"{SITE}new").status for _ in range(2)] == [404, 404]
    swapped(shown, {"index": {}, "new": {}})
    assert [web.get(f"{SITE}new").status for _ in range(2)] == [200, 200]
    assert web.get(f"{SITE}new").cache == "hit"
    swapped(shown, {"index": {}})
    assert [web.get(f"{SITE}new").status for _ in range(2)] == [404, 404]


def test_a_request_for_any_type_is_redirected_from_a_source_to_its_pages(
    web: Web, shown: Realm, live: None
) -> None:
    draft = Realm.objects.get(url=DRAFT)
    assert [web.get(f"{DRAFT}a%20b/").status for _ in ("miss", "hit")] == [404, 404]
    make.write_paths(draft, {"a b/index.json": make.SITE["index.json"]})
    for path in ("", "a%20b/"):
        for _ in ("miss", "hit"):
            answer = web.get(f"{DRAFT}{path}?from=mail")
            assert answer.status == 302
            assert answer.headers["location"] == f"{SITE}{path}?from=mail"
    for path in ("none", "none.ts", "none.png", "folder/none.json"):
        assert web.get(DRAFT + path).status == 404


def test_a_request_for_any_type_gets_a_503_before_the_first_pages(
    web: Web, source: Realm, live: None
) -> None:
    make.publish(source, SITE)
    for _ in ("miss", "hit"):
        assert [web.get(SITE + path).status for path in ("", "ada", "none")] == [503, 503, 404]


def test_no_page_is_served_to_a_visitor_who_may_not_read(
    web: Web, shown: Realm, live: None
) -> None:
    assert [web.get(SITE).status for _ in range(2)] == [200, 200]
    RealmPermission.objects.filter(realm=shown).delete()
    local_board().bump([realm_key(SITE)])
    for accept in ("*/*", "text/*", None):
        assert web.request("GET", SITE, accept=accept).status == 401


def test_a_folder_url_without_a_slash_redirects_if_it_has_a_page(
    web: Web, source: Realm, live: None
) -> None:
    published = make.publish(source, SITE)
    documents: dict[str, Any] = {
        "sec/index": {},
        "a b/deep/index": {},
        "both": {},
        "both/index": {},
    }
    put_index(SITE, published.generation, documents, {"bad/index": {"message": "no"}})
    for accept in (BROWSER, "*/*"):
        for path in ("sec", "a%20b/deep", "bad"):
            for _ in ("miss", "hit"):
                answer = web.get(f"{SITE}{path}", accept)
                assert (answer.status, answer.headers["location"]) == (302, f"/{path}/")
            answer = web.get(f"{SITE}{path}?a=b", accept)
            assert answer.headers["location"] == f"/{path}/?a=b"
        assert "page of both" in web.get(f"{SITE}both", accept).text
        for path in ("nothing", "a%20b", "person.tsx/", "sec/index.json"):
            assert web.get(f"{SITE}{path}", accept).status in (200, 404)
    swapped(Realm.objects.get(url=SITE), {"index": {}})
    assert web.get(f"{SITE}sec", BROWSER).status == 404


# --- 404 ---------------------------------------------------------------------------------------


def test_a_missing_page_is_a_404_in_html(web: Web, shown: Realm) -> None:
    answer = web.get(f"{SITE}nothing", BROWSER)
    assert answer.status == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"There is nothing at this address" in answer.body
    assert f'href="{SITE}"'.encode() in answer.body
    nobody = web.get("http://nobody.localhost:4201/x", BROWSER)
    assert nobody.status == 404 and b"There is no site" in nobody.body
    assert web.get(f"{SITE}nothing").headers["content-type"] == "application/vnd.api+json"


def test_a_realm_can_have_its_own_404_page(web: Web, source: Realm, live: None) -> None:
    make.write(source, **{"404__html": b"<h1>Lost &amp; found</h1>"})
    source.refresh_from_db()
    published = make.publish(source, SITE)
    put_index(SITE, published.generation, {"index": {}})
    for _ in range(2):
        answer = web.get(f"{SITE}nothing/there", BROWSER)
        assert (answer.status, answer.body) == (404, b"<h1>Lost &amp; found</h1>")
    # A card named 404 is preferred to the file.
    put_index(SITE, published.generation, {"index": {}, "404": {}})
    # `put_index` sends no notification of the new index, so the test moves the index's slot on the
    # board. While the board is live, answers come from caches.
    from notifications.board import now_ns

    local_board().bump([index_key(SITE)])
    local_board().go_live(now_ns() + 60_000_000_000)
    answer = web.get(f"{SITE}nothing/there", BROWSER)
    assert answer.status == 404 and b"page of 404" in answer.body


# --- Sitemaps and robots.txt -------------------------------------------------------------------


def locations(answer: Answer) -> list[str]:
    """Returns every URL that a sitemap lists."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/xml; charset=utf-8"
    return [each.text or "" for each in ET.fromstring(answer.body).iter(f"{NAMESPACE}loc")]


@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_a_sitemap_lists_the_pages_that_visitors_see(
    web: Web, source: Realm, shown: Realm, accept: str
) -> None:
    answer = web.get(f"{SITE}sitemap.xml", accept)
    assert locations(answer) == [f"{SITE}a%20b/ada", SITE]
    (lastmod,) = [each.text for each in ET.fromstring(answer.body).iter(f"{NAMESPACE}lastmod")]
    version = source.versions.get(path="index.json")
    assert lastmod == version.modified_at.isoformat(timespec="seconds")
    make.publish(source, SITE)
    assert locations(web.get(f"{SITE}sitemap.xml", accept)) == [f"{SITE}a%20b/ada", SITE]


def test_a_sitemap_follows_the_index_even_if_caches_are_live(
    web: Web, shown: Realm, live: None
) -> None:
    assert len(locations(web.get(f"{SITE}sitemap.xml"))) == 2
    put_index(SITE, shown.generation, {"index": {}, "404": {}, "blog/index": {}, "new": {}})
    assert locations(web.get(f"{SITE}sitemap.xml")) == [f"{SITE}blog/", SITE, f"{SITE}new"]


def test_a_large_sitemap_is_split_into_parts(
    web: Web, shown: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_URLS", 2)
    put_index(SITE, shown.generation, {name: {} for name in "abcde"})
    parts = locations(web.get(f"{SITE}sitemap.xml"))
    assert parts == [f"{SITE}sitemap.xml?part={part}" for part in (1, 2, 3)]
    listed = [url for part in parts for url in locations(web.get(part))]
    assert listed == [f"{SITE}{name}" for name in "abcde"]
    for part in ("0", "4", "-1", "x", "1e9", "%C2%B2", ""):
        assert web.get(f"{SITE}sitemap.xml?part={part}").status in (400, 404)


def test_only_public_published_realms_have_a_sitemap(web: Web, source: Realm, shown: Realm) -> None:
    assert web.get(f"{DRAFT}sitemap.xml").status == 404
    assert web.get("http://nobody.localhost:4201/sitemap.xml").status == 404
    RealmPermission.objects.filter(realm=shown, audience="everyone").delete()
    assert web.get(f"{SITE}sitemap.xml").status == 401


def test_robots_txt_allows_only_public_published_realms(
    web: Web, source: Realm, shown: Realm, owner: Any
) -> None:
    def robots(url: str) -> list[str]:
        for accept in ("*/*", BROWSER):
            answer = web.get(f"{url}robots.txt", accept)
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        return answer.body.decode().splitlines()

    closed = ["User-agent: *", "Disallow: /"]
    assert robots(SITE) == ["User-agent: *", "Allow: /", f"Sitemap: {SITE}sitemap.xml"]
    assert robots(DRAFT) == closed
    private = make.source(f"{ORIGIN}/ada/diary/", owner, {}, public=False)
    # A stranger can't see whether the realm has its own robots.txt.
    assert web.get(f"{private.url}robots.txt").status == 401
    assert robots("http://nobody.localhost:4201/") == closed
    published = make.publish(source, f"{ORIGIN}/ada/blog/")
    assert robots(f"{ORIGIN}/") == [
        "User-agent: *",
        "Allow: /ada/blog/",
        "Disallow: /",
        f"Sitemap: {published.url}sitemap.xml",
    ]
    RealmPermission.objects.filter(realm=shown, audience="everyone").delete()
    assert web.get(f"{SITE}robots.txt").status == 401
    assert robots(f"{ORIGIN}/")[1] == "Allow: /ada/blog/"


def test_an_authors_own_robots_txt_and_sitemap_are_served(
    web: Web, source: Realm, live: None
) -> None:
    make.write(source, robots__txt=b"User-agent: x", sitemap__xml=b"<urlset/>")
    source.refresh_from_db()
    make.publish(source, SITE)
    for _ in range(2):
        assert web.get(f"{SITE}robots.txt").body == b"User-agent: x"
        assert web.get(f"{SITE}sitemap.xml", BROWSER).body == b"<urlset/>"

"""The preview of a site's draft, and where a source realm's pages are."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from realms.access.auth import Caller
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.data.indexed import put_index
from tests.support.data.site import BROWSER, DRAFT, SESSION, SITE, session_of
from tests.support.rendering import WORK, work_off
from tests.support.web import ORIGIN, Web

# --- The draft ---------------------------------------------------------------------------------


def test_an_owner_sees_the_draft_where_others_are_redirected(
    web: Web, source: Realm, shown: Realm, live: None
) -> None:
    make.user("bob")
    put_index(DRAFT, source.generation, {"index": {}, "ada": {}}, {"bad": {"message": "no <b>"}})
    for _ in range(2):
        for headers in (
            {}, session_of("bob"), make.login("ada"), {"Authorization": "Bearer nonsense"},
            make.realm_login(source, "bob"), {"Cookie": f"{SESSION}=nonsense"},
        ):  # fmt: skip
            answer = web.get(f"{DRAFT}ada", BROWSER, **headers)
            assert (answer.status, answer.headers["location"]) == (302, f"{SITE}ada")
        for headers in (session_of("ada"), make.realm_login(source, "ada")):
            answer = web.get(f"{DRAFT}ada", BROWSER, **headers)
            assert answer.status == 200 and b"page of ada" in answer.body
            assert answer.headers["cache-control"] == "private, no-store"
            assert "etag" not in answer.headers
            assert answer.headers["x-robots-tag"] == "noindex"
            assert answer.headers["content-security-policy"].startswith("sandbox")
            assert answer.headers["x-realm-generation"] == str(source.generation)
            assert "refresh" not in answer.headers
    mine = session_of("ada")
    assert b"page of index" in web.get(DRAFT, BROWSER, **mine).body
    assert web.get(f"{DRAFT}nothing", BROWSER, **mine).status == 404
    broken = web.get(f"{DRAFT}bad", BROWSER, **mine)
    assert broken.status == 500 and b"no &lt;b&gt;" in broken.body
    # A file is a file, and what is published is what it is for everyone.
    assert web.get(f"{DRAFT}dot.png", BROWSER, **mine).headers["content-type"] == "image/png"
    assert b"page of index" in web.get(SITE, BROWSER, **mine).body
    assert web.get(f"{SITE}ada", BROWSER, **mine).status == 404


def test_a_source_realm_that_is_published_nowhere_says_so(web: Web, source: Realm) -> None:
    answer = web.get(DRAFT, BROWSER)
    assert answer.status == 200
    assert b"not published yet" in answer.body and DRAFT.encode() in answer.body


def test_a_private_draft_is_previewed_by_its_owner_only(web: Web, owner: Any) -> None:
    private = make.source(f"{ORIGIN}/ada/diary/", owner, make.SITE, public=False)
    put_index(private.url, private.generation, {"index": {}})
    make.user("bob")
    assert web.get(private.url, BROWSER, **session_of("ada")).status == 200
    for headers in ({}, session_of("bob"), make.login("ada")):
        answer = web.get(private.url, BROWSER, **headers)
        assert answer.status == 401 and b"page of" not in answer.body
    get_user_model().objects.filter(username="ada").update(is_active=False)
    assert web.get(private.url, BROWSER, **session_of("bob")).status == 401


def test_a_draft_that_has_changed_is_rendered_while_its_owner_looks(
    web: Web, source: Realm, sent: list[Any]
) -> None:
    mine = session_of("ada")
    first = web.get(DRAFT, BROWSER, **mine)
    assert first.status == 503 and b"being prepared" in first.body
    assert ReindexJob.objects.filter(realm_url=DRAFT).count() == 1
    assert web.get(DRAFT, BROWSER, **mine).status == 503
    assert sent == [WORK]
    put_index(DRAFT, source.generation, {"index": {}})
    assert "refresh" not in web.get(DRAFT, BROWSER, **mine).headers
    newer = make.write(source, index__json=make.card("./post", "Post", title="New"))
    stale = web.get(DRAFT, BROWSER, **mine)
    assert stale.status == 200 and stale.headers["refresh"] == "2"
    assert ReindexJob.objects.get(realm_url=DRAFT, status="queued").generation == newer
    # Nobody else has a realm rendered by looking at it.
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {})
    web.get(other.url, BROWSER)
    assert not ReindexJob.objects.filter(realm_url=other.url).exists()


@pytest.mark.cluster
def test_a_draft_is_rendered_as_it_is_now(
    web: Web, owner: Any, sent: list[tuple[str, Any]]
) -> None:
    sync_base_realm()
    private = make.source(f"{ORIGIN}/ada/diary/", owner, make.SITE, public=False)
    mine = session_of("ada")
    assert web.get(private.url, BROWSER, **mine).status == 503
    work_off(sent)
    answer = web.get(private.url, BROWSER, **mine)
    assert answer.status == 200, answer.body
    assert b"<h1>Home</h1>" in answer.body and b"edition one" in answer.body
    make.write(private, index__json=make.card("./post", "Post", title="Second thoughts"))
    assert "refresh" in web.get(private.url, BROWSER, **mine).headers
    work_off(sent)
    answer = web.get(private.url, BROWSER, **mine)
    assert b"<h1>Second thoughts</h1>" in answer.body and "refresh" not in answer.headers


# --- Where a source realm's pages are -----------------------------------------------------------


def test_a_source_realm_leads_to_where_it_is_published_now(
    web: Web, source: Realm, live: None
) -> None:
    """The redirect of a source realm depends on every realm that points at it. Asked before and
    after each change, so that what a cache kept of the time before would be seen."""
    ada = Caller("ada")
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {})
    second = "http://ada.localhost:4201/second/"

    def leads(realm: Realm) -> str | None:
        answer = web.get(realm.url, BROWSER)
        assert web.get(realm.url, BROWSER).headers.get("location") == answer.headers.get("location")
        return answer.headers.get("location")

    def both() -> tuple[str | None, str | None]:
        return leads(source), leads(other)

    assert both() == (None, None)
    make.publish(source, SITE)
    assert both() == (SITE, None)
    make.publish(other, SITE)
    assert both() == (None, SITE)
    make.publish(source, SITE)
    assert both() == (SITE, None)
    make.publish(source, second)
    make.publish(other, SITE)
    assert both() == (second, SITE)
    rollback_realm(SITE, ada)
    assert both() == (SITE, None), "the older of its two, whichever was pointed at it last"
    rollback_realm(SITE, ada, Realm.objects.get(url=SITE).generation - 1)
    assert both() == (second, SITE)
    unpublish_realm(second, ada)
    assert both() == (None, SITE)
    delete_realm(other.url, ada)
    assert leads(source) is None
    assert web.get(SITE, BROWSER).status == 404

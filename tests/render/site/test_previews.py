"""Tests the preview of a draft, and the redirect from a source realm to its published pages. A
draft is a rendered page of a source realm. Only the realm's owner sees it."""

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

# --- Drafts ------------------------------------------------------------------------------------


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
    # The owner gets the same files and published pages as other visitors.
    assert web.get(f"{DRAFT}dot.png", BROWSER, **mine).headers["content-type"] == "image/png"
    assert b"page of index" in web.get(SITE, BROWSER, **mine).body
    assert web.get(f"{SITE}ada", BROWSER, **mine).status == 404


def test_a_source_realm_that_is_not_published_shows_a_notice(web: Web, source: Realm) -> None:
    answer = web.get(DRAFT, BROWSER)
    assert answer.status == 200
    assert b"not published yet" in answer.body and DRAFT.encode() in answer.body


def test_only_its_owner_can_preview_a_private_draft(web: Web, owner: Any) -> None:
    private = make.source(f"{ORIGIN}/ada/diary/", owner, make.SITE, public=False)
    put_index(private.url, private.generation, {"index": {}})
    make.user("bob")
    assert web.get(private.url, BROWSER, **session_of("ada")).status == 200
    for headers in ({}, session_of("bob"), make.login("ada")):
        answer = web.get(private.url, BROWSER, **headers)
        assert answer.status == 401 and b"page of" not in answer.body
    get_user_model().objects.filter(username="ada").update(is_active=False)
    assert web.get(private.url, BROWSER, **session_of("bob")).status == 401


def test_a_preview_of_a_changed_draft_starts_a_rendering(
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
    # A visitor who isn't the owner doesn't cause a rendering.
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {})
    web.get(other.url, BROWSER)
    assert not ReindexJob.objects.filter(realm_url=other.url).exists()


@pytest.mark.cluster
def test_a_preview_shows_the_current_draft_after_rendering(
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


# --- Redirects of source realms -----------------------------------------------------------------


def test_a_source_realm_redirects_to_its_current_published_realm(
    web: Web, source: Realm, live: None
) -> None:
    """The redirect depends on every realm that shows the source. Each URL is requested before and
    after each change, to detect stale cached redirects."""
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
    assert both() == (SITE, None), "the older of the two realms that show the source"
    rollback_realm(SITE, ada, Realm.objects.get(url=SITE).generation - 1)
    assert both() == (second, SITE)
    unpublish_realm(second, ada)
    assert both() == (None, SITE)
    delete_realm(other.url, ada)
    assert leads(source) is None
    assert web.get(SITE, BROWSER).status == 404

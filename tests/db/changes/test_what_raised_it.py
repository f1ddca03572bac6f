"""Tests that realms and counters of definitions record when their generations were last raised, and
the cause. Definitions describe what modules export. A counter of definitions rises when definitions
are dropped."""

import json
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.management import call_command
from django.test import Client

from definitions.causes import MAX_CAUSE
from definitions.models import CacheGeneration
from definitions.rows import make_counters
from notifications.channels import REALM_REGISTRY
from notifications.listener import listen_connection
from realms.access.auth import Caller
from realms.access.permissions import readers_change
from realms.content.locks import realm_write_lock
from realms.models import Realm
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from tests.support import make
from tests.support.clients.admin import PUBLISHED, browser_of, heard_by, make_staff, words_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

POST = "http://localhost:4201/ada/site/post.tsx"


def by(scope: str, key: str) -> str:
    """Returns the cause of the last increase of a definitions counter, from the counter's row."""
    return CacheGeneration.objects.get(scope=scope, key=key).bumped_by


def told(url: str) -> str:
    """Returns the cause of the last increase of a realm's generation, from the realm's row. Asserts
    that the row also has the time of this increase."""
    realm = Realm.objects.get(url=url)
    assert realm.bumped_at is not None
    return realm.bumped_by


def ada() -> Caller:
    return Caller.of(make.account("ada"))


def test_the_cause_of_a_write_or_deletion_names_a_file(source: Realm) -> None:
    make.write(source, post__tsx=b"export {};")
    assert told(source.url) == "write of post.tsx"
    assert by("module", POST) == f"write of post.tsx in {source.url}"
    make.write_paths(source, {"a.ts": b"1", "b.ts": b"2", "c.ts": b"3"})
    assert told(source.url) == "write of a.ts and 2 more"
    make.remove(source, "post.tsx")
    assert told(source.url) == "deletion of post.tsx"
    assert by("module", POST) == f"deletion of post.tsx in {source.url}"


def test_the_cause_of_a_publish_or_takedown_names_the_user(source: Realm) -> None:
    make.publish(source, PUBLISHED)
    assert told(PUBLISHED) == by("realm", PUBLISHED) == "publish by ada"
    make.write(source, post__tsx=b"export {};")
    make.publish(source, PUBLISHED)
    rollback_realm(PUBLISHED, ada())
    assert told(PUBLISHED) == by("realm", PUBLISHED) == "rollback by ada"
    unpublish_realm(PUBLISHED, ada())
    assert by("realm", PUBLISHED) == "unpublish by ada"
    delete_realm(source.url, ada())
    assert by("realm", source.url) == "deletion by ada"


def test_a_new_inner_realm_is_named_as_the_cause_at_the_outer_realm(
    source: Realm, owner: Any
) -> None:
    assert told(make.source(f"{source.url}in/", owner, {}).url) == "creation"
    assert told(source.url) == by("realm", source.url) == "creation of the inner realm in/"


def test_the_cause_of_many_changes_names_three_and_counts_the_others(
    source: Realm, owner: Any
) -> None:
    other = make.source("http://localhost:4201/ada/other/", owner, {})
    make.publish(source, PUBLISHED)
    for i in range(5):
        make.publish(other, f"{PUBLISHED}p{i}/")
    delete_realm(other.url, ada())
    cause = by("realm", PUBLISHED)
    assert cause.count("deletion by ada") == 3
    assert cause.endswith(" and 3 more")


def test_a_long_cause_is_cut(source: Realm) -> None:
    path = f"{'a' * 200}/{'b' * 200}/{'c' * 200}.ts"
    make.write_paths(source, {path: b"1"})
    assert len(told(source.url)) == len(by("module", f"{source.url}{path}")) == MAX_CAUSE
    assert told(source.url).endswith("c…")


def test_changes_of_permissions_and_clears_have_different_causes(source: Realm) -> None:
    with realm_write_lock(source.url), readers_change(source):
        pass
    assert by("realm", source.url) == "change of permissions"
    before = Realm.objects.get(url=source.url).generation
    call_command("clear_caches", source.url, "--as", "ada", stdout=StringIO())
    assert by("realm", source.url) == "clear by ada"
    assert Realm.objects.get(url=source.url).generation == before
    call_command("clear_caches", "--definitions", stdout=StringIO())
    assert by("global", "") == "clear by realm_server"


def test_a_write_is_not_announced_as_a_change_of_the_registry(source: Realm) -> None:
    with listen_connection() as ear:
        ear.execute(f"LISTEN {REALM_REGISTRY}".encode())
        make.write(source, post__tsx=b"export {};")
        assert heard_by(ear) == set()


def test_the_command_lists_all_generations_the_last_raised_first(source: Realm) -> None:
    make.write(source, post__tsx=b"export {};")
    make.publish(source, PUBLISHED)
    Realm.objects.filter(url=source.url).update(bumped_at=None, bumped_by="")
    out = StringIO()
    call_command("generations", "--counters", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert {each["kind"] for each in found} == {
        "realm", "definitions, realm", "definitions, module"
    }  # fmt: skip
    assert {each["bumpedBy"] for each in found[:2]} == {"publish by ada"}
    assert (found[-1]["of"], found[-1]["bumpedAt"], found[-1]["generation"]) == (
        source.url,
        None,
        3,
    )
    out = StringIO()
    call_command("generations", "PUBLISH", "--counters", stdout=out)
    assert "publish by ada" in out.getvalue()
    assert "write of" not in out.getvalue()


def test_the_admin_page_lists_and_searches_causes_and_links_to_clear(source: Realm) -> None:
    make.write(source, post__tsx=b"export {};")
    make.publish(source, PUBLISHED)
    CacheGeneration.objects.create(scope="global", key="", bumped_by="clear by root")
    viewer = browser_of(make_staff("lin", "view_cachegeneration", "view_realm"))
    said = viewer.get("/_admin/generations/").content.decode()
    assert "Clear…</a>" not in said
    clearer = browser_of(make_staff("sam", "view_cachegeneration", "view_realm", "clear_realm"))
    shown = words_of(clearer.get("/_admin/generations/", {"q": "publish by"}))
    assert f"{PUBLISHED} realm 1" in shown
    assert f"{PUBLISHED} definitions, realm 1" in shown
    assert "write of" not in shown
    assert_leads_to_clear(clearer)
    assert browser_of(make_staff("eve")).get("/_admin/generations/").status_code == 403


def test_only_users_who_may_view_realms_see_causes_and_realms(source: Realm) -> None:
    make.write(source, post__tsx=b"export {};")
    viewer = browser_of(make_staff("lin", "view_cachegeneration"))
    counter = CacheGeneration.objects.get(scope="module", key=POST)
    listed = "/_admin/definitions/cachegeneration/"
    for address in ("/_admin/generations/", listed, f"{listed}{counter.pk}/change/"):
        said = words_of(viewer.get(address))
        assert POST in said
        assert "write of" not in said
        assert f"{source.url} realm" not in said
    assert POST not in words_of(viewer.get("/_admin/generations/", {"q": "write of"}))
    assert POST not in words_of(viewer.get(listed, {"q": "write of"}))
    all_of_it = browser_of(make_staff("sam", "view_cachegeneration", "view_realm"))
    assert "write of" in words_of(all_of_it.get(listed, {"q": "write of"}))


def test_a_counter_of_a_missing_realm_or_module_offers_no_clear() -> None:
    for scope, key in (("realm", PUBLISHED), ("module", POST)):
        CacheGeneration.objects.create(scope=scope, key=key, generation=2)
        clearer = browser_of(make_staff(scope, "view_cachegeneration", "clear_realm"))
        page = clearer.get("/_admin/generations/").content.decode()
        assert key in page
        assert urlencode({scope: key}) not in page


def test_counters_that_were_never_raised_come_last(source: Realm) -> None:
    make.write(source, post__tsx=b"export {};")
    make_counters([("module", f"{source.url}new.tsx")])
    out = StringIO()
    call_command("generations", "--counters", "--json", stdout=out)
    last = json.loads(out.getvalue())[-1]
    assert (last["of"], last["bumpedAt"]) == (f"{source.url}new.tsx", None)


def assert_leads_to_clear(browser: Client) -> None:
    """Asserts that the page links to the questions whether to clear all definitions or the caches
    of the realm PUBLISHED. Then clears all definitions as the browser's user, sam."""
    page = browser.get("/_admin/generations/").content.decode()
    for query, asked in (
        ("definitions=on", "Clear all definitions?"),
        ("realm=http%3A%2F%2Fada.localhost%3A4201%2F", f"Clear the caches of {PUBLISHED}?"),
    ):
        assert f"/_admin/clear/?{query}" in page
        assert asked in words_of(browser.get(f"/_admin/clear/?{query}"))
    assert browser.post("/_admin/clear/", {"definitions": "on"}).status_code == 302
    assert by("global", "") == "clear by sam"

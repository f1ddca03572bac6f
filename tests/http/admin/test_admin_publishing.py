"""Publishes, rolls back and takes down realms from the admin. Each action lists its changes and
asks for confirmation first."""

from typing import Any

import pytest
from django.test import Client

from notifications.channels import REALM_FILE_CHANGES
from realms.models import Publication, Realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.clients.admin import (
    PUBLISHED,
    Heard,
    address_of,
    heard_by,
    make_replica,
    newest_of,
    press,
    words_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

CLEAR = "/_admin/clear/"


def test_publish_again_lists_changes_and_shows_the_current_source(
    root: Client, source: Realm, published: Realm, ear: Heard
) -> None:
    make.write(source, post__tsx=b"export const edition = 3;")
    heard_by(ear)
    assert "1 file differs: post.tsx" in words_of(root.get(address_of(published, "publish")))
    answer = root.post(address_of(published, "publish"))
    assert answer["Location"] == f"/_admin/timeline/?q={PUBLISHED}"
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in heard_by(ear)
    newest = newest_of(published)
    assert (newest.generation, newest.source_generation) == (3, 4)
    assert ReindexJob.objects.get(status="queued").generation == 3


def test_a_source_can_be_published_to_its_urls_or_a_new_one(
    root: Client, source: Realm, published: Realm
) -> None:
    offered = root.get(address_of(source, "publish")).content.decode()
    assert f'name="target" value="{PUBLISHED}"' in offered
    new = "http://docs.ada.localhost:4201/"
    answer = root.post(address_of(source, "publish"), {"target": new}, follow=True)
    assert f"Published generation 3 of {source.url} to {new}, which is at generation 1" in words_of(
        answer
    )
    assert Realm.objects.get(url=new).source == source


def test_the_timeline_shows_applied_replicas_pages_and_lock_times(
    root: Client, published: Realm
) -> None:
    make_replica("a", {PUBLISHED: 2})
    make_replica("b", {PUBLISHED: 1})
    ReindexJob.objects.filter(realm_url=PUBLISHED, generation=2).update(
        status="rendering", total=10, seen=4
    )
    said = words_of(root.get("/_admin/timeline/", {"q": PUBLISHED}))
    assert "ada 2 http://localhost:4201/ada/site/ as of 3 1 of 2 replicas rendered 4 of 10" in said
    Publication.objects.filter(generation=1).update(lock_waited=None)
    Publication.objects.filter(generation=2).update(lock_waited=0.0124, lock_held=1.25)
    said = words_of(root.get("/_admin/timeline/", {"q": PUBLISHED}))
    assert f"{PUBLISHED} 1.2 s, after 12 ms " in said
    assert f"{PUBLISHED} not recorded " in said


def test_a_rollback_page_names_its_target_before_it_rolls_back(
    root: Client, published: Realm, ear: Heard
) -> None:
    asked = root.get(address_of(published, "rollback"))
    words = words_of(asked)
    assert "goes from generation 2 back to what it showed at generation 1" in words
    assert "by ada" in words
    assert "1 file differs: post.tsx" in words
    assert newest_of(published).generation == 2
    answer = root.post(address_of(published, "rollback"), {"publication": "1"}, follow=True)
    assert "back to what it showed at generation 1; it is at generation 3" in words_of(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in heard_by(ear)
    newest = newest_of(published)
    assert (newest.generation, newest.source_generation) == (3, 2)


def test_unpublish_and_delete_ask_first_and_list_what_is_removed(
    root: Client, source: Realm, published: Realm
) -> None:
    other = "http://docs.ada.localhost:4201/"
    make.publish(source, other)
    assert f"Unpublish {other}?" in words_of(
        root.get(address_of(Realm.objects.get(url=other), "remove"))
    )
    root.post(address_of(Realm.objects.get(url=other), "remove"))
    assert not Realm.objects.filter(url=other).exists()
    asked = words_of(root.get(address_of(source, "remove")))
    assert f"Delete {source.url}?" in asked
    assert f"This also removes its published realms: {PUBLISHED}" in asked
    assert root.post(address_of(source, "remove")).status_code == 302
    assert not Realm.objects.filter(url__in=[source.url, PUBLISHED]).exists()


def test_the_admin_compares_two_publications(root: Client, published: Realm) -> None:
    said = words_of(root.get(address_of(published, "diff"), {"from": "1", "to": "2"}))
    assert "1 file differs. post.tsx" in said


def test_refusals_are_shown_as_messages(root: Client, source: Realm) -> None:
    make.publish(source, PUBLISHED)
    realm = Realm.objects.get(url=PUBLISHED)
    gone = Realm(url="http://gone.localhost:4201/")
    asked: list[tuple[Any, str]] = [
        (root.get(address_of(realm, "rollback"), follow=True), "no publication before this one"),
        (press(root, realm, "rollback", publication="7"), "no publication of generation 7"),
        (press(root, realm, "rollback", publication="-1"), "expected a generation"),
        (press(root, source, "rollback", publication="1"), f"{source.url} not found"),
        (press(root, source, "publish", target="http://example.com/"), "not below a domain"),
        (press(root, source, "publish", target="\0"), "Invalid realm URL"),
        (press(root, source, "publish"), "Invalid realm URL"),
        (press(root, gone, "publish"), "was not found"),
        (root.get(CLEAR, {"realm": gone.url}, follow=True), "was not found"),
        (root.post(CLEAR, {}, follow=True), "choose a realm or a module, or everything"),
    ]
    for answer, why in asked:
        assert answer.status_code == 200
        assert [why for told in answer.context["messages"] if why in str(told)], why
        assert answer.context["messages"]._loaded_data[0].level_tag == "error"

"""Tests that an unpublish removes only the published realm, that a delete removes only the source
realm and the realms that are published from it, and that the card library can't be removed."""

import json
from typing import Any

import pytest
from django.test import RequestFactory

from definitions.models import Definition
from realms.access.auth import Caller
from realms.content.history import versions_at
from realms.errors import (
    HistoryEnds,
    IsASourceRealm,
    NotARealm,
    NotFound,
    NotPublished,
    Reserved,
    Unprocessable,
)
from realms.models import Publication, Realm, RealmPermission
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.importing import Folder, import_files
from realms.publishing.publish import delete_realm, publish_realm, unpublish_realm
from realms.serving import pinned_reads
from realms.serving.answers import load_at, source_at
from reindex.models import IndexedCard, IndexHead, ReindexJob
from reindex.reading.pins import Pin
from tests.support import make
from tests.support.data.published import indexed, shown
from tests.support.web import ORIGIN, Web, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
SECOND_PAGE = "http://ada.localhost:4201/second/"
ADA = Caller("ada")


def test_an_unpublish_leaves_only_the_source(source: Realm) -> None:
    """An unpublish never changes the files of the source."""
    make.publish(source, PAGE)
    indexed(PAGE)
    make.publish(source, PAGE)
    unpublish_realm(PAGE, ADA)
    assert not Realm.objects.filter(url=PAGE).exists()
    assert not Publication.objects.exists()
    assert not IndexHead.objects.exists()
    assert not IndexedCard.objects.exists()
    assert not Definition.objects.exists()
    assert not ReindexJob.objects.live().exists()
    assert not RealmPermission.objects.filter(realm__url=PAGE).exists()
    assert shown(source.url) == make.SITE


def test_a_delete_removes_all_copies_and_no_other_realm(source: Realm, owner: Any) -> None:
    """Other source realms, and the realms that are published from them, keep every row."""
    bob = make.user("bob")
    bobs = make.source(f"{ORIGIN}/bob/site/", bob, make.SITE)
    adas_other = make.source(f"{ORIGIN}/ada/other/", owner, make.SITE)
    make.publish(bobs, "http://bob.localhost:4201/")
    indexed("http://bob.localhost:4201/")
    make.publish(adas_other, f"{PAGE}other/")
    before = everything()
    make.publish(source, PAGE)
    make.publish(source, SECOND_PAGE)
    indexed(PAGE)

    assert delete_realm(source.url, ADA) == [source.url, PAGE, SECOND_PAGE]
    after = everything()
    gone = {source.url, PAGE, SECOND_PAGE}
    for table in before:
        if table in ("RealmTombstone", "ReindexJob", "CacheGeneration", "Blob"):
            continue
        kept = [row for row in before[table] if source.pk not in row]
        assert after[table] == kept, table
    assert {row[0] for row in after["RealmTombstone"]} == gone
    assert not ReindexJob.objects.live().filter(realm_url__in=gone).exists()
    assert shown(bobs.url) == shown("http://bob.localhost:4201/") == make.SITE


def test_taking_down_a_missing_realm_is_refused_and_changes_nothing(source: Realm) -> None:
    before = everything()
    with pytest.raises(NotPublished):
        unpublish_realm(PAGE, ADA)
    with pytest.raises(NotFound):
        delete_realm(f"{ORIGIN}/ada/none/", ADA)
    assert everything() == before


def test_the_card_library_cannot_be_deleted_or_published_over(source: Realm) -> None:
    """The realm with the card library belongs to the release, so not even the operator may remove
    it."""
    sync_base_realm()
    base, operator = f"{ORIGIN}/base/", Caller("realm_server", operator=True)
    before = everything()
    with pytest.raises(Unprocessable):
        delete_realm(base, operator)
    with pytest.raises(IsASourceRealm):
        publish_realm(source.url, base, operator)
    with pytest.raises(NotPublished):
        unpublish_realm(base, operator)
    with pytest.raises(NotARealm):
        publish_realm(base, PAGE, operator)
    assert everything() == before


def test_nobody_can_make_a_realm_within_the_card_library(
    web: Web, source: Realm, base: None
) -> None:
    """A user may have got the name `base` before the name was reserved."""
    namesake = make.old_user("base")
    attributes = {"endpoint": "site", "name": "Mine"}
    body = {"data": {"type": "realm", "attributes": attributes}}
    before = everything()
    answer = web.post(f"{ORIGIN}/_create-realm", body, make.login("base"))
    assert answer.status == 403
    assert json.loads(answer.body) == {
        "errors": [
            f"{ORIGIN}/base/site/ lies within {ORIGIN}/base/, reserved for this server's own"
            " library; choose another name"
        ]
    }
    with pytest.raises(Reserved):
        import_files(Folder({}, {}), f"{ORIGIN}/base/site/", owner=namesake)
    with pytest.raises(Reserved):
        import_files(Folder({}, {}), f"{ORIGIN}/base/site/", owner=namesake, dry_run=True)
    with pytest.raises(Reserved):
        publish_realm(source.url, f"{ORIGIN}/base/site/", Caller("@realm_server", operator=True))
    assert everything() == before
    # Only the exact name `base` is reserved, so `basement` is allowed.
    make.source(f"{ORIGIN}/basement/site/", namesake, make.SITE)


def test_a_generation_whose_source_was_deleted_is_gone(
    source: Realm,
) -> None:
    """A pin is a token for one generation of a realm. A read with a pin gets this generation or an
    error, never another generation."""
    assert source.owner is not None
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {"post.tsx": b"another's"})
    first = make.publish(source, PAGE).generation
    between = make.publish(other, PAGE).generation
    make.publish(source, PAGE)
    assert source_at(PAGE, between, "post.tsx").content.body == b"another's"
    delete_realm(other.url, Caller("ada"))
    for path in ("post.tsx", "never.tsx"):
        assert source_at(PAGE, between, path).content.status == 410
        assert load_at(PAGE, between, path).content.status == 410
    asked = RequestFactory().post("/", '{"paths": ["post.tsx"]}', content_type="application/json")
    for read in (pinned_reads.manifest, pinned_reads.many):
        with pytest.raises(HistoryEnds):
            read(asked, Pin(PAGE, between))
    realm = Realm.objects.get(url=PAGE)
    assert not versions_at(realm, between).exists()
    for generation in (first, realm.generation):
        assert source_at(PAGE, generation, "post.tsx").content.body == make.SITE["post.tsx"]

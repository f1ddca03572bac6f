"""Tests the publish of a source realm. The published realm shows the source's files at the source's
current generation, a number that each change raises. A publish can be repeated, and only the owner
of both URLs may publish."""

import pytest

from definitions.models import Definition
from realms.access.auth import Caller
from realms.errors import Forbidden, InvalidURL, IsASourceRealm
from realms.models import FileVersion, Publication, Realm, RealmPermission
from realms.publishing.publish import delete_realm, publish_realm, rollback_realm, unpublish_realm
from reindex.models import IndexHead, ReindexJob
from tests.support import make
from tests.support.data.published import indexed, shown
from tests.support.web import ORIGIN, everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"


def test_a_published_realm_shows_its_source_at_the_published_generation(source: Realm) -> None:
    """The row of the published realm names the owner and the source, and says that the published
    realm can't be published itself."""
    done = make.publish(source, PAGE)
    realm = Realm.objects.get(url=PAGE)
    assert (realm.kind, realm.owner, realm.source, realm.publishable) == (
        "published", source.owner, source, False,
    )  # fmt: skip
    publication = Publication.objects.get(realm=realm)
    assert (publication.generation, publication.source_generation) == (realm.generation, 2)
    assert publication.by == "ada"
    assert shown(PAGE) == make.SITE
    rows = RealmPermission.objects.filter(realm=realm).order_by("audience")
    assert [(r.whom, r.read, r.write, r.realm_owner) for r in rows] == [
        ("everyone", True, False, False),
        ("ada", True, True, True),
    ]
    make.write(source, index__json=b"{}")
    assert shown(PAGE) == make.SITE, "a write to the source must not change the published realm"
    assert done.source_generation == 2
    assert not FileVersion.objects.filter(realm=realm).exists(), "a publish copies no files"


def test_a_second_publish_keeps_the_realm_and_shows_the_current_source(source: Realm) -> None:
    """The republished realm has the source's changes and deletions, and a new time of
    publication."""
    first = make.publish(source, PAGE)
    before = Realm.objects.get(url=PAGE).last_published_at
    make.write(source, index__json=b"{}", new__md=b"new")
    make.remove(source, "ada.json")
    again = make.publish(source, PAGE)
    assert again.realm_id == first.realm_id
    assert again.generation == first.generation + 1
    realm = Realm.objects.get(url=PAGE)
    assert realm.last_published_at == again.at
    assert before is not None
    assert again.at > before
    assert shown(PAGE) == {
        **{k: v for k, v in make.SITE.items() if k != "ada.json"},
        "index.json": b"{}",
        "new.md": b"new",
    }


def test_a_publish_drops_definitions_at_once_and_keeps_the_old_pages(source: Realm) -> None:
    """A definition says what a module exports. The publish drops every definition that was built
    from the old files. But visitors see the old pages until the new pages are rendered."""
    make.publish(source, PAGE)
    indexed(PAGE)
    done = make.publish(source, PAGE)
    assert not Definition.objects.exists()
    head = IndexHead.objects.get(realm_url=PAGE)
    assert head.generation < done.generation
    live = ReindexJob.objects.get(realm_url=PAGE, status="queued")
    assert live.generation == done.generation
    later = make.publish(source, PAGE)
    assert ReindexJob.objects.get(pk=live.pk).status == "superseded"
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == later.generation


def test_a_user_cannot_change_publications_or_sources_of_others(source: Realm) -> None:
    """Bob can neither replace Ada's realms, nor publish below them, nor take them down."""
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    make.publish(source, PAGE)
    before = everything()
    bob = Caller("bob")
    for url in (PAGE, f"{PAGE}below/", f"{ORIGIN}/ada/new/"):
        with pytest.raises(Forbidden):
            publish_realm(bobs.url, url, bob)
    with pytest.raises(IsASourceRealm):
        publish_realm(bobs.url, source.url, bob)
    for act in (unpublish_realm, rollback_realm):
        with pytest.raises(Forbidden):
            act(PAGE, bob)
    with pytest.raises(Forbidden):
        delete_realm(source.url, bob)
    with pytest.raises(InvalidURL):
        publish_realm(bobs.url, "http://bob.localhost:4201/_x/", bob)
    assert everything() == before

"""Tests published pages with links to another source realm. If that source realm is published too,
the pages show its published files, and not its draft (its current files)."""

from typing import Any

import pytest
from pytest_django import Settings

from realms.access.auth import Caller
from realms.access.permissions import change_permissions
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.rendering import index_of, work_off
from tests.support.web import ORIGIN, Web

PEOPLE = f"{ORIGIN}/ada/people/"
OTHERS = f"{ORIGIN}/ada/others/"
NOTES = f"{ORIGIN}/ada/notes/"
#: URLs at which the tests publish source realms. If a test uses both, SHOWN is published first.
SHOWN, LATER = "http://people.localhost:4201/", "http://later.localhost:4201/"
URL = "http://ada.localhost:4201/"
CALLER = Caller("ada")
Sent = list[tuple[str, Any]]

PERSON = """\
import { Card, linksTo, string } from "@realm/base";
export class Person extends Card {
  static fields = { name: string(), friend: linksTo(() => Person) };
  static embedded = ({ card }) => <i>EDITION {card.name}</i>;
}
"""
NOTE = f"""\
import {{ Card, Embed, Link, linksTo, string }} from "@realm/base";
import {{ Person }} from "{PEOPLE}person";
export class Note extends Card {{
  static fields = {{ title: string(), author: linksTo(() => Person) }};
  static isolated = ({{ card }}) => (
    <p>
      {{card.title}} <Embed card={{card.author}} />
      {{card.author instanceof Person ? "typed" : "none"}}
      <Link card={{card.author?.friend}}>friend</Link>
    </p>
  );
}}
"""


def person(name: str, friend: str = "./bob") -> bytes:
    return make.card("./person", "Person", {"friend": friend}, name=name)


def people(edition: str) -> dict[str, bytes]:
    """Returns the files of a realm with two people's cards. The module and the card `ann` contain
    the name of the edition, so a page shows which edition it was made from."""
    return {
        "person.tsx": PERSON.replace("EDITION", f"{edition} code").encode(),
        "ann.json": person(f"{edition} ann"),
        "bob.json": make.card("./person", "Person", name="bob"),
    }


@pytest.fixture
def source(web: Web, owner: Any) -> Realm:
    sync_base_realm()
    return make.source(PEOPLE, owner, people("first"))


@pytest.fixture
def notes(source: Realm, owner: Any) -> Realm:
    home = make.card("./note", "Note", {"author": f"{PEOPLE}ann"}, title="home")
    return make.source(NOTES, owner, {"note.tsx": NOTE.encode(), "index.json": home})


def page(url: str = URL) -> str:
    card = index_of(url)["index"]
    assert card.error is None, card.error
    return str(card.html["isolated"])


def newest(url: str = URL) -> ReindexJob:
    return ReindexJob.objects.filter(realm_url=url).latest("pk")


def edit(realm: Realm, edition: str) -> None:
    make.write_paths(realm, people(edition))


@pytest.mark.parametrize("public", [True, False])
def test_a_link_shows_the_published_version_and_follows_only_publishes(
    public: bool, source: Realm, notes: Realm, sent: Sent
) -> None:
    change_permissions(source, {"*": ["read"] if public else None})
    make.publish(source, SHOWN)
    edit(source, "draft")
    make.publish(notes, URL)
    work_off(sent)
    assert "first code first ann" in page() and "typed" in page()
    assert f'href="{SHOWN}bob"' in page() and PEOPLE not in page()

    job = newest()
    edit(source, "newer")
    assert newest() == job
    make.publish(source, SHOWN)
    assert newest() != job
    work_off(sent)
    assert "newer code newer ann" in page() and "typed" in page()
    rollback_realm(SHOWN, CALLER)
    work_off(sent)
    assert "first code first ann" in page()


def test_a_source_published_later_is_shown_in_its_published_version(
    source: Realm, notes: Realm, sent: Sent
) -> None:
    make.publish(notes, URL)
    work_off(sent)
    edit(source, "draft")
    work_off(sent)
    assert "draft code draft ann" in page()
    make.publish(source, SHOWN)
    edit(source, "newer")
    work_off(sent)
    assert "draft code draft ann" in page() and f'href="{SHOWN}bob"' in page()
    job = newest()
    edit(source, "newest")
    assert newest() == job
    make.publish(notes, URL)
    work_off(sent)
    assert "draft code draft ann" in page()
    # After the unpublish, pages show the source realm's current files, because it is public.
    unpublish_realm(SHOWN, CALLER)
    work_off(sent)
    assert "newest code newest ann" in page() and f'href="{PEOPLE}bob"' in page()
    edit(source, "last")
    work_off(sent)
    assert "last code last ann" in page()


def test_a_private_source_is_shown_only_while_it_is_published(
    source: Realm, notes: Realm, sent: Sent
) -> None:
    change_permissions(source, {"*": None})
    make.publish(notes, URL)
    work_off(sent)
    assert index_of(URL)["index"].error
    make.publish(source, SHOWN)
    edit(source, "draft")
    work_off(sent)
    assert "first code first ann" in page()
    unpublish_realm(SHOWN, CALLER)
    work_off(sent)
    assert index_of(URL)["index"].error
    assert "ann" not in str(index_of(URL)["index"].search)


def test_a_link_leads_to_the_oldest_published_realm_of_its_source(
    source: Realm, notes: Realm, owner: Any, sent: Sent
) -> None:
    others = make.source(OTHERS, owner, {})
    make.publish(others, SHOWN)
    make.publish(source, LATER)
    make.publish(notes, URL)
    work_off(sent)
    assert f'href="{LATER}bob"' in page()
    # The source is published at SHOWN too. SHOWN was published before LATER, so links lead there.
    edit(source, "second")
    make.publish(source, SHOWN)
    work_off(sent)
    assert f'href="{SHOWN}bob"' in page() and "second code second ann" in page()
    edit(source, "third")
    job = newest()
    make.publish(others, SHOWN)
    assert newest() != job
    work_off(sent)
    assert f'href="{LATER}bob"' in page() and "first code first ann" in page()
    make.publish(source, LATER)
    work_off(sent)
    assert "third code third ann" in page()


def test_a_private_published_realm_is_not_shown_on_public_pages(
    source: Realm, notes: Realm, sent: Sent
) -> None:
    make.publish(source, SHOWN)
    change_permissions(Realm.objects.get(url=SHOWN), {"*": None})
    make.publish(notes, URL)
    work_off(sent)
    assert index_of(URL)["index"].error
    change_permissions(Realm.objects.get(url=SHOWN), {"*": ["read"]})
    edit(source, "draft")
    work_off(sent)
    assert "first code first ann" in page()


def test_a_draft_shows_the_drafts_of_linked_realms(
    source: Realm, notes: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_INDEX_SOURCES = True
    make.publish(source, SHOWN)
    edit(source, "draft")
    make.write(notes, other__json=make.card("./note", "Note", {"author": f"{PEOPLE}ann"}))
    for job in ReindexJob.objects.filter(realm_url=NOTES):
        ReindexJob.objects.filter(pk=job.pk).update(due_at=None)
    sent.append(("reindex.tasks.work", 0))
    work_off(sent)
    assert "draft code draft ann" in page(NOTES)


def test_a_link_into_an_inner_realm_of_a_source_shows_the_inner_realm(
    source: Realm, notes: Realm, owner: Any, sent: Sent
) -> None:
    inner = f"{PEOPLE}inner/"
    make.write_paths(source, {"inner/ann.json": make.card("../person", "Person", name="outer")})
    make.publish(source, SHOWN)
    ann = make.card("../person", "Person", name="inner")
    make.source(inner, owner, {"ann.json": ann})
    link = make.card("./note", "Note", {"author": f"{inner}ann"}, title="home")
    make.write_paths(notes, {"index.json": link})
    make.publish(notes, URL)
    work_off(sent)
    assert "first code inner" in page()
    delete_realm(inner, CALLER)
    work_off(sent)
    assert "first code outer" in page()


def test_a_link_into_a_published_inner_realm_leads_to_its_public_url(
    source: Realm, notes: Realm, owner: Any, sent: Sent
) -> None:
    make.write_paths(source, {"in/ann.json": make.card("../person", "Person", name="outer")})
    make.publish(source, SHOWN)
    ann = make.card(f"{PEOPLE}person", "Person", name="inner")
    make.publish(make.source(OTHERS, owner, {"ann.json": ann}), f"{SHOWN}in/")
    link = make.card("./note", "Note", {"author": f"{PEOPLE}in/ann"}, title="home")
    make.write_paths(notes, {"index.json": link})
    make.publish(notes, URL)
    work_off(sent)
    assert "first code inner" in page() and "typed" in page()


def test_a_page_that_links_to_its_own_source_shows_its_own_publication(
    source: Realm, sent: Sent
) -> None:
    make.publish(source, SHOWN)
    edit(source, "second")
    copy = NOTE.encode()
    home = make.card("./note", "Note", {"author": f"{PEOPLE}ann"}, title="home")
    make.write_paths(source, {"note.tsx": copy, "index.json": home})
    make.publish(source, URL)
    edit(source, "draft")
    work_off(sent)
    assert "second code second ann" in page() and "typed" in page()
    assert f'href="{URL}bob"' in page()


def test_a_link_to_a_deleted_source_becomes_an_error(
    source: Realm, notes: Realm, sent: Sent
) -> None:
    make.publish(source, SHOWN)
    make.publish(notes, URL)
    work_off(sent)
    assert "first ann" in page()
    delete_realm(PEOPLE, CALLER)
    work_off(sent)
    assert index_of(URL)["index"].error

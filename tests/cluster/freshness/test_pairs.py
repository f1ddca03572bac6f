"""Tests that after every kind of change, all replicas give answers that agree with the database.

A situation is the state of some realms after one kind of change. For example, a realm is published
inside another realm. The test makes the realms of each situation, and fills the caches of two
replicas with requests of every kind. After the changes, the test repeats all requests. So it tests
each pair of a situation and a kind of request.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from realms.access.auth import Caller, realm_token
from realms.access.permissions import change_permissions
from realms.errors import RealmError
from realms.housekeeping.garbage import collect_garbage
from realms.models import EVERYONE, Publication, Realm
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.publish import (
    delete_realm,
    make_realm,
    publish_realm,
    rollback_realm,
    rollback_target,
    unpublish_realm,
)
from reindex.models import ReindexJob, WantedDefinitions
from reindex.reading import pins
from tests.support import make
from tests.support.cluster import Answer, Cluster, Replica, cluster, wait_until
from tests.support.data.held import Held, cards, held_at, look_anew
from tests.support.web import API, ORIGIN, SOURCE

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

NOTE = b"""\
import { Card, linksTo, string } from "@realm/base";
import { label } from "./label.ts";
export class Note extends Card {
  static displayName = label;
  static fields = { title: string(), next: linksTo(() => Note) };
  static isolated = ({ card }) => (
    <p>{`${label}, ${card.title}, ${card.next ? card.next.title : "alone"}`}</p>
  );
}
"""
ADA = Caller("ada")
#: A caller who may not read a realm gets one of these HTTP statuses.
REFUSED = (401, 403, 404)


def note(title: str, link: str = "") -> bytes:
    return make.card("./note", "Note", {"next": link} if link else None, title=title)


def files(mark: str) -> dict[str, bytes]:
    """Returns a realm's files. Each file contains the text `mark` or imports a module that contains
    this text. The card `index` links to the card `deep/a`, which is in another realm if a realm is
    published at `deep/`."""
    return {
        "note.tsx": NOTE,
        "label.ts": f'export const label = "{mark}";\n'.encode(),
        "text.md": f"# {mark}\n".encode(),
        "index.json": note(f"{mark} home", "./deep/a"),
        "a.json": note(f"{mark} a"),
        "deep/note.tsx": NOTE.replace(b"./label.ts", b"../label.ts"),
        "deep/a.json": note(f"{mark} deep a"),
        "deep/text.md": f"# deep {mark}\n".encode(),
    }


# --- Requests ----------------------------------------------------------------------------------


@dataclass
class Look:
    """Sends all kinds of requests about some realms to one replica. Collects the answers that
    contradict the database."""

    replica: Replica
    situation: str
    owner: str
    problems: list[str] = field(default_factory=list)

    def all(self, urls: list[str]) -> None:
        for url in urls:
            held = held_at(url)
            for name in ("cached", "pinned", "page", "definition", "search", "sitemap", "progress"):
                try:
                    told = list(getattr(self, name)(url, held))
                except (KeyError, ValueError, ElementTree.ParseError) as error:
                    told = [f"the answer can't be read: {error!r}"]
                self.problems += [
                    f"{self.situation} x {name} on {self.replica.name}: {url}: {each}"
                    for each in told
                ]

    def ask(self, url: str, accept: str, held: Held | None = None, **headers: str) -> Answer:
        """Requests a URL. If the realm `held` is private, the request has a token of its owner."""
        if held is not None and not held.public:
            headers["Authorization"] = realm_token(
                self.owner, held.url, ["read", "realm-owner", "write"], 600
            )
        return self.replica.get(url, accept, **headers)

    def refused(self, url: str, accept: str, held: Held | None) -> Iterator[str]:
        """Yields a problem if a private realm answers a request without a token."""
        if held is not None and not held.public:
            answer = self.replica.get(url, accept)
            if answer.status not in REFUSED:
                yield f"{answer.status} without a token"

    def cached(self, realm_url: str, held: Held | None) -> Iterator[str]:
        for path in ("text.md", "label.ts", "index.json", "deep/text.md", "deep/a.json"):
            url = realm_url + path
            there = held_at(url)
            expected = there.files().get(url.removeprefix(there.url)) if there else None
            answer = self.ask(url, SOURCE, there)
            yield from self.refused(url, SOURCE, there)
            if (answer.body if answer.status == 200 else None) != expected:
                yield f"{path}: {answer.status} {answer.body[:60]!r}, not {expected!r}"

    def pinned(self, realm_url: str, held: Held | None) -> Iterator[str]:
        if held is None or held.url != realm_url:
            return
        generations = {held.generation}
        if held.published:
            known = Publication.objects.filter(realm=held.realm)
            generations |= set(known.values_list("generation", flat=True))
        for generation in generations:
            expected = Held(held.realm, generation).files()["text.md"]
            pin = pins.sign(pins.Pin(realm_url, generation), pins.ITSELF)
            answer = self.ask(
                f"{self.replica.address}/_at/text.md", "*/*", None, **{pins.PIN_HEADER: pin}
            )
            if answer.body != expected:
                yield f"at {generation}: {answer.status} {answer.body[:60]!r}"
        least = {"X-Realm-Min-Generation": str(held.generation)}
        answer = self.ask(f"{realm_url}text.md", SOURCE, held, **least)
        if answer.body != held.files()["text.md"]:
            yield f"at least {held.generation}: {answer.status} {answer.body[:60]!r}"

    def page(self, realm_url: str, held: Held | None) -> Iterator[str]:
        if held is None or held.url != realm_url:
            return
        if not held.published:
            shown = Realm.objects.filter(source=held.realm).order_by("created_at").first()
            answer = self.ask(realm_url, "text/html", held)
            if answer.headers.get("location") != (shown.url if shown else None):
                yield f"redirects to {answer.headers.get('location')}, but is published at {shown}"
            return
        for url, text in cards(held).items():
            answer = self.ask(url, "text/html", held)
            yield from self.refused(url, "text/html", held)
            if answer.status != 200 or f"<p>{text}</p>" not in answer.text:
                yield f"{url}: {answer.status} {answer.text[-300:]}, not {text!r}"

    def definition(self, realm_url: str, held: Held | None) -> Iterator[str]:
        # Workers have built the definitions of published realms. The test requests no others,
        # because a replica would have to build them first.
        if held is None or held.url != realm_url or not held.published:
            return
        url = f"{realm_url}_definition?module=note&name=Note"
        answer = self.ask(url, API, held)
        yield from self.refused(url, API, held)
        label = held.files()["label.ts"].decode().split('"')[1]
        if answer.status != 200 or f'"{label}"' not in answer.text:
            yield f"{answer.status} {answer.text[:200]}, not {label}"

    def search(self, realm_url: str, held: Held | None) -> Iterator[str]:
        if held is None or held.url != realm_url or not held.published:
            return
        answer = self.ask(f"{realm_url}_search?page[size]=100", API, held)
        yield from self.refused(f"{realm_url}_search", API, held)
        found = {
            each["id"].removesuffix("index"): each["attributes"]["title"]
            for each in json.loads(answer.text)["data"]
        }
        expected = {url: text.split(", ")[1] for url, text in cards(held).items()}
        if found != expected:
            yield f"{found}, not {expected}"

    def sitemap(self, realm_url: str, held: Held | None) -> Iterator[str]:
        if held is None or held.url != realm_url or not held.published:
            return
        answer = self.ask(f"{realm_url}sitemap.xml", "*/*", held)
        yield from self.refused(f"{realm_url}sitemap.xml", "*/*", held)
        found = {each.text for each in ElementTree.fromstring(answer.text).iter() if each.text}
        found = {text for text in found if text.startswith("http")}
        if found != set(cards(held)):
            yield f"{sorted(filter(None, found))}, not {sorted(cards(held))}"

    def progress(self, realm_url: str, held: Held | None) -> Iterator[str]:
        if held is None or held.url != realm_url or not held.published:
            return
        answer = self.ask(f"{realm_url}_readiness-check?awaitPrerenderHtml=true", API, held)
        if (answer.status, answer.headers["x-realm-generation"]) != (200, str(held.generation)):
            yield f"{answer.status} {answer.text}"


# --- Situations --------------------------------------------------------------------------------


@dataclass
class Place:
    """The URLs of the realms of one situation. `source` and `other` are source realms of one
    author. The author publishes them at `url` and `inner`, which have the same origin."""

    name: str
    author: str = "ada"

    @property
    def source(self) -> str:
        return f"{ORIGIN}/ada/{self.name}/"

    @property
    def other(self) -> str:
        return f"{ORIGIN}/ada/{self.name}-other/"

    @property
    def url(self) -> str:
        return f"http://{self.name}.localhost:4201/"

    @property
    def inner(self) -> str:
        return f"{self.url}deep/"

    @property
    def realms(self) -> list[str]:
        return [self.source, self.other, self.url, self.inner]

    def make(self) -> None:
        """Makes both source realms. Publishes `source` twice, so that the published realm can be
        rolled back."""
        owner = make.account("ada")
        first = make.source(self.source, owner, files(f"{self.name} one"))
        make.source(self.other, owner, files(f"{self.name} other"))
        publish_realm(self.source, self.url, ADA)
        make.write_paths(first, files(f"{self.name} two"))
        publish_realm(self.source, self.url, ADA)


def nested(place: Place) -> None:
    publish_realm(place.other, place.inner, ADA)


def taken_from_within(place: Place) -> None:
    publish_realm(place.other, place.inner, ADA)
    unpublish_realm(place.inner, ADA)


def repointed(place: Place) -> None:
    publish_realm(place.other, place.url, ADA)


def published_again(place: Place) -> None:
    unpublish_realm(place.url, ADA)
    publish_realm(place.source, place.url, ADA)


def private_again(place: Place) -> None:
    change_permissions(Realm.objects.get(url=place.url), {"*": None})


def made_again(place: Place) -> None:
    delete_realm(place.source, ADA)
    make.source(place.source, make.account("ada"), files(f"{place.name} three"))
    publish_realm(place.source, place.url, ADA)


def renamed(place: Place) -> None:
    """Gives the realms to another account, and then renames this account. The renamed account still
    owns the realms."""
    account = make.account("bo")
    Realm.objects.filter(url__in=place.realms).update(owner=account)
    for realm in Realm.objects.filter(url__in=place.realms):
        realm.permissions.filter(account__isnull=False).update(account=account)
    account.username = place.author = "robert"
    account.save()


def at_a_root(place: Place) -> None:
    """Makes a realm at the root URL of the origin that all source realms share."""
    root = make_realm(f"{ORIGIN}/", Realm.Kind.SOURCE, make.account("ada"))
    root.permissions.create(audience=EVERYONE, read=True)
    make.write_paths(root, files("root"))


SITUATIONS: dict[str, Callable[[Place], None]] = {
    "nested": nested,
    "unnested": taken_from_within,
    "repointed": repointed,
    "again": published_again,
    "private": private_again,
    "anew": made_again,
    "renamed": renamed,
    "root": at_a_root,
}


@pytest.fixture
def two(owner: Any, tmp_path: Path) -> Iterator[Cluster]:
    make.user("bo")
    sync_base_realm()
    with cluster(tmp_path, 2) as running:
        running.wait_reported()
        running.start_worker()
        yield running


@pytest.mark.timeout(400)
def test_all_replicas_answer_as_the_database_says_in_each_situation(two: Cluster) -> None:
    places = {name: Place(name) for name in SITUATIONS}
    for place in places.values():
        place.make()
    wait_idle()
    assert problems(two, places) == []
    for name, change in SITUATIONS.items():
        change(places[name])
    wait_idle()
    assert problems(two, places) == []
    collect_garbage(grace=timedelta(0))
    assert problems(two, places) == [], "after the garbage was collected"
    for place in places.values():
        roll_back(place)
    wait_idle()
    assert problems(two, places) == [], "after a rollback"


def problems(two: Cluster, places: dict[str, Place]) -> list[str]:
    """Returns a text for each answer, of any replica, that contradicts the database."""
    found: list[str] = []
    look_anew()
    for replica in two.replicas:
        for name, place in places.items():
            look = Look(replica, name, place.author)
            look.all([*place.realms, *([f"{ORIGIN}/"] if name == "root" else [])])
            found += look.problems
    return found


def roll_back(place: Place) -> None:
    """Rolls the published realm back. If the realm has no earlier publication, checks that the
    server refuses to roll back."""
    realm = Realm.objects.get(url=place.url)
    caller = Caller(place.author)
    try:
        target = rollback_target(realm)
    except RealmError:
        with pytest.raises(RealmError, match="has no publication before this one"):
            rollback_realm(place.url, caller)
        return
    rollback_realm(place.url, caller)
    shown = Realm.objects.get(url=place.url).publications.first()
    assert shown is not None
    told = shown.source_id, shown.source_generation
    assert told == (target.source_id, target.source_generation)


def wait_idle() -> None:
    """Waits until workers have done all jobs and built all queued definitions."""
    live = ReindexJob.objects.live()
    wait_until(lambda: not live.exists(), "all jobs are done", 90)
    wait_until(lambda: not WantedDefinitions.objects.exists(), "all definitions are built", 90)
    assert not ReindexJob.objects.filter(status=ReindexJob.Status.FAILED).exists()

"""Contains the files of a realm of notes. The realm's module note.tsx imports from a second realm,
the library. The tests change files of the two realms, and check which cards are rendered again."""

from typing import Any

from reindex.models import IndexedCard, ReindexJob
from tests.support import make

URL = "http://ada.localhost:4201/"
LIBRARY = "http://localhost:4201/ada/library/"
SITE = "http://localhost:4201/ada/notes/"

NOTE = f"""\
import {{ Card, Embed, linksTo, string }} from "@realm/base";
import {{ suffix }} from "./common";
import {{ label }} from "{LIBRARY}label.ts";
export class Note extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Card) }};
  static embedded = ({{ card }}) => <i>{{card.title}}</i>;
  static isolated = ({{ card }}) => (
    <p>{{label}} {{card.title}}{{suffix}} <Embed card={{card.next}} /></p>
  );
}}
"""
PLAIN = """\
import { Card, string } from "@realm/base";
export class Plain extends Card { static fields = { title: string() }; }
"""


def note(title: str, next_: str = "") -> bytes:
    return make.card("./note", "Note", {"next": next_} if next_ else None, title=title)


def plain(title: str) -> bytes:
    return make.card("./plain", "Plain", title=title)


FILES = {
    "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
    "common.ts": b'export const suffix = "!";',
    "note.tsx": NOTE.encode(),
    "plain.tsx": PLAIN.encode(),
    "a.json": note("a", "./b"),
    "b.json": note("b", "./c"),
    "c.json": note("c"),
    "lonely.json": note("lonely", "./missing"),
    "p.json": plain("p"),
    "q.json": plain("q"),
}


def rows() -> dict[str, int]:
    """Returns the primary key of each card's row in the index that visitors see, by the card's
    path. If a card is rendered again, it gets a row with another key."""
    return dict(IndexedCard.objects.filter(realm_url=URL, current=True).values_list("path", "pk"))


def newest() -> ReindexJob:
    job = ReindexJob.objects.filter(realm_url=URL).first()
    assert job is not None
    return job


def make_operator() -> Any:
    from realms.access.auth import OPERATOR, Caller

    return Caller(OPERATOR, operator=True)

"""Contains the files of a realm of notes, and a function that publishes and renders the realm.
Tests write card files with mistakes into the realm."""

import json
from typing import Any

from realms.models import Realm
from reindex.models import ReindexJob
from tests.support import make
from tests.support.rendering import work_off

URL = "http://ada.localhost:4201/"
CARD = "application/vnd.card+json"
API = "application/vnd.api+json"
Sent = list[tuple[str, Any]]

NOTE = make.card("./note", "Note", title="one")
FILES = {
    "note.tsx": b"""\
import { Card, string } from "@realm/base";
export class Note extends Card {
  static fields = { title: string(), text: string() };
  static isolated = ({ card }) => <p>{card.title}</p>;
}
""",
    "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
    "index.json": NOTE,
    "good.json": NOTE,
    "data.json": b'{"rows": [1, 2, 3]}',
}


def publish(realm: Realm, sent: Sent) -> ReindexJob:
    make.publish(realm, URL)
    work_off(sent)
    job = ReindexJob.objects.filter(realm_url=URL).first()
    assert job is not None and job.status == "done"
    return job


def said(body: bytes) -> str:
    """Returns the message of an error answer."""
    return str(json.loads(body)["errors"][0]["message"])

"""Tests what a worker reads while it renders a published realm. Of other realms, the worker reads
only public ones, and each at only one generation. It can read modules with the extensions .mts and
.mjs. In the pages, links to the source realm lead to the published realm."""

import json
import re
from typing import Any

import pytest
from pytest_django import Settings

from realms.publishing.bootstrap import sync_base_realm
from reindex.models import ReindexJob
from reindex.reading.pins import UNREADABLE_GENERATION
from tests.support import make
from tests.support.rendering import index_of, work_off
from tests.support.web import Web

URL = "http://ada.localhost:4201/"
Sent = list[tuple[str, Any]]

SHARED = "http://localhost:4201/ada/shared/"
SECRET = "http://localhost:4201/ada/secret/"

NOTE = f"""\
import {{ Card, Embed, linksTo, string }} from "@realm/base";
import {{ label }} from "{SHARED}label.ts";
export class Note extends Card {{
  static fields = {{ title: string(), next: linksTo(() => Card) }};
  static embedded = ({{ card }}) => <i>{{card.title}} <Embed card={{card.next}} /></i>;
  static isolated = ({{ card }}) => <p>{{label}} {{card.title}} <Embed card={{card.next}} /></p>;
}}
"""


def note(title: str, next_: str = "", module: str = "./note") -> bytes:
    return make.card(module, "Note", {"next": next_} if next_ else None, title=title)


def words(html: str) -> str:
    """Returns the visible text of a page."""
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_a_render_reads_only_public_realms(web: Web, owner: Any, sent: Sent) -> None:
    sync_base_realm()
    shared = make.source(SHARED, owner, {
        "label.ts": b'export const label = "shared";',
        "note.tsx": NOTE.encode(),
        "far.json": note("far"),
    })  # fmt: skip
    make.source(SECRET, owner, {
        "label.ts": b'export const label = "TOP SECRET";',
        "note.tsx": NOTE.encode(),
        "diary.json": note("TOP SECRET"),
    }, public=False)  # fmt: skip
    odd, odd_link = "fog horn, 100%41 (ä#?)", "./fog horn, 100%2541 (ä%23%3F)"
    files = {
        "note.tsx": NOTE.encode(),
        "spy.tsx": NOTE.replace(SHARED, SECRET).encode(),
        "realm.json": make.card("@realm/base", "RealmConfig", name="Notes"),
        "one.json": note("one", "./two"),
        "two.json": note("two", "./three.json"),
        "three.json": note("three", "./four"),
        "four.json": note("four", "./five"),
        "five.json": note("five"),
        "abroad.json": note("abroad", "/ada/shared/far"),
        "rooted.json": note("rooted", "./one", module="/ada/shared/note"),
        "spy.json": note("spy", module="./spy"),
        "thief.json": note("thief", module="/ada/secret/note"),
        "reader.json": note("reader", "/ada/secret/diary"),
        "lost.json": note("lost", "./nowhere"),
        f"{odd}.json": note("odd", "./one"),
        "to-odd.json": note("to-odd", odd_link),
        "notes.json": b'{"just": "data"}',
    }  # fmt: skip
    make.publish(make.source("http://localhost:4201/ada/notes/", owner, files), URL)
    work_off(sent)

    cards = index_of(URL)
    names = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    assert cards.keys() == names - {"realm", "notes"}
    assert {name for name, card in cards.items() if card.error} == {"spy", "thief"}
    shown = {name: words(card.html["isolated"]) for name, card in cards.items() if card.html}
    assert shown["one"] == "shared one two three four five"
    assert shown["abroad"] == "shared abroad far"
    assert shown["rooted"].startswith("shared rooted one two")
    assert shown["to-odd"].startswith("shared to-odd odd one")
    assert shown["reader"] == shown["lost"].replace("lost", "reader") == "shared reader"
    for name in ("spy", "thief"):
        assert "is not in a public realm of this server" in cards[name].error["message"]
    everything = json.dumps([vars(card) for card in cards.values()])
    assert "TOP SECRET" not in everything
    assert "/_at/" not in everything

    job = ReindexJob.objects.get(realm_url=URL)
    base = "http://localhost:4201/base/"
    assert job.pins == {URL: 1, SHARED: shared.generation, base: 2, SECRET: UNREADABLE_GENERATION}
    page = web.get(f"{URL}fog%20horn,%20100%2541%20(%C3%A4%23%3F)", "text/html")
    assert (page.status, "shared odd" in page.text) == (200, True)


def test_all_batches_of_a_job_read_another_realm_at_one_generation(
    web: Web, owner: Any, sent: Sent, settings: Settings
) -> None:
    settings.REALM_BATCH_CARDS = 1
    sync_base_realm()
    shared = make.source(SHARED, owner, {"label.ts": b'export const label = "first";'})
    files = {"note.tsx": NOTE.encode(), "a.json": note("a"), "b.json": note("b")}
    make.publish(make.source("http://localhost:4201/ada/notes/", owner, files), URL)
    plan_message = sent.pop(0)
    # This message's task plans the job and also renders the first batch, the card `a`.
    work_off([plan_message])
    [b] = sent
    make.write(shared, label__ts=b'export const label = "second";')
    work_off([b])
    cards = index_of(URL)
    assert {name: card.html["isolated"].split()[0] for name, card in cards.items()} == {
        "a": "<p>first",
        "b": "<p>first",
    }


def test_modules_can_be_imported_with_any_typescript_extension(
    web: Web, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    note_module = NOTE.replace(f"{SHARED}label.ts", "./label.mts")
    source = make.source("http://localhost:4201/ada/notes/", owner, {
        "note.tsx": note_module.encode(),
        "label.mts": b'import { one } from "./one.mjs"; export const label: string = one;',
        "one.mjs": b'export const one = "one";',
        "old.tsx": note_module.replace("./label.mts", "./label.cts").encode(),
        "label.cts": b'export const label: string = "old";',
        "index.json": note("home"),
        "old.json": note("old", module="./old"),
    })  # fmt: skip
    make.publish(source, URL)
    work_off(sent)
    cards = index_of(URL)
    assert cards["index"].error is None and words(cards["index"].html["isolated"]) == "one home"
    assert "label.cts is a CommonJS module" in cards["old"].error["message"]
    answer = web.get(f"{source.url}label.mts")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert ": string" not in answer.text
    # The card `index` imports one.mjs through other modules, so it is rendered again after one.mjs
    # has changed.
    make.write(source, one__mjs=b'export const one = "two";')
    make.publish(source, URL)
    work_off(sent)
    assert words(index_of(URL)["index"].html["isolated"]) == "two home"


@pytest.mark.parametrize("public", [True, False])
def test_links_to_the_sources_url_lead_to_the_published_realm(
    public: bool, web: Web, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    at = "http://localhost:4201/ada/notes/"
    module = """\
import { Card, Embed, image, linksTo, Markdown, markdown } from "@realm/base";
export class Leaf extends Card {
  static fields = { body: markdown(), photo: image(), next: linksTo(() => Card) };
  static embedded = ({ card }) => <i>{card.body}</i>;
  static isolated = ({ card }) => (
    <div>
      <img class="own" src={card.photo} /><Markdown text={card.body} /><Embed card={card.next} />
    </div>
  );
}
"""
    text = f"[far]({at}two#top) ![dot]({at}dot.png) <{at}two?a=b>"
    text += f" [other]({SHARED}x) [out](http://x.org/)"
    home = make.card(f"{at}leaf", "Leaf", {"next": f"{at}two"}, body=text, photo=f"{at}dot.png")
    two = make.card("./leaf", "Leaf", body="published")
    files = {"leaf.tsx": module.encode(), "index.json": home, "two.json": two}
    source = make.source(at, owner, files, public=public)
    make.publish(source, URL)
    make.write(source, two__json=make.card("./leaf", "Leaf", body="draft"))
    work_off(sent)
    card = index_of(URL)["index"]
    assert card.error is None, card.error
    html = card.html["isolated"]
    for found in (
        f'"{URL}two#top"',
        f'src="{URL}dot.png" alt="dot"',
        f'"{URL}two?a=b"',
        f'class="own" src="{URL}dot.png"',
        f'"{SHARED}x"',
        '"http://x.org/"',
    ):
        assert found in html, (found, html)
    assert "<i>published</i>" in html and "draft" not in html
    assert at not in html.replace(f">{at}two?a=b<", "")

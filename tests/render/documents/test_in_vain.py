"""Tests that each part of a card's file takes effect, or causes an error or a warning that names
the part."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs.report import outcome
from reindex.models import IndexedCard
from reindex.reading.references import file_url
from tests.support import make
from tests.support.data.documents import CARD, FILES, URL, Sent, publish
from tests.support.rendering import index_of
from tests.support.web import ORIGIN, Web

PAGE = b"""\
import { Card, contains, containsMany, date, image, linksTo, linksToMany, markdown, number, string }
  from "@realm/base";
export class Person extends Card { static fields = { name: string() }; }
export class Stop extends Card { static fields = { place: linksTo(() => Person), sign: image() }; }
export class Page extends Card {
  static fields = {
    title: string(), text: markdown(), picture: image(), when: date(), size: number(),
    author: linksTo(() => Person), many: linksToMany(() => Person), stop: contains(Stop),
    stops: containsMany(Stop),
  };
  static isolated = ({ card }) => <p>{card.title} {card.many.map((each) => each.name).join()}</p>;
}
"""
PAGES = {
    "page.tsx": PAGE,
    "ada.json": make.card("./page", "Person", name="Ada"),
    "bo.json": make.card("./page", "Person", name="Bo"),
    "dot.png": b"png",
    "sec/index.json": make.card("../page", "Page", title="sec"),
    "web/index.html": b"<p>No URL of a folder shows this file.</p>",
}


def link(href: Any) -> Any:
    return {"links": {"self": href}}


def page(attributes: Any = None, relationships: Any = None, **more: Any) -> bytes:
    """Returns the JSON of a card of the type `Page`. `more` has further members of the object
    `data`."""
    adopts = {"adoptsFrom": {"module": "./page", "name": "Page"}}
    data = {"type": "card", "attributes": {"title": "t"} if attributes is None else attributes}
    data |= {"relationships": relationships or {}, "meta": adopts, **more}
    return json.dumps({"data": data}).encode()


#: Cards with a part that no page would show. Maps a card's name to its file and to the key of this
#: part. The error must name the key.
ERRORS = {
    "beside": (page(title="x"), "data.title"),
    "misspelt-attributes": (page(atributes={}), "data.atributes"),
    "misspelt-relationships": (page(relationship={}), "data.relationship"),
    "list-of-attributes": (page(attributes=["title"]), "attributes"),
    "text-for-relationships": (page(relationships="ada"), "relationships"),
    "no-field": (page(None, {"autor": link("./ada")}), "autor"),
    "no-field-below": (page(None, {"author.name": link("./ada")}), "author.name"),
    "word-for-number": (page(None, {"many.first": link("./ada")}), "many.first"),
    "zeros": (page(None, {"many.00": link("./ada")}), "many.00"),
    "second-of-one": (page(None, {"author.1": link("./ada")}), "author.1"),
    "two-of-one": (page(None, {"author": [link("./ada"), link("./bo")]}), "author"),
    "whole-and-part": (page(None, {"many": [link("./a")], "many.0": link("./b")}), "many.0"),
    "list-in-list": (page(None, {"many.0": [link("./ada"), link("./bo")]}), "many.0"),
    "data": (page(None, {"author": {"data": {"type": "card", "id": "./ada"}}}), "author"),
    "text-for-link": (page(None, {"author": "./ada"}), "author"),
    "number-for-link": (page(None, {"author": link(5)}), "author"),
    "misspelt-link": (page(None, {"author": {"link": {"self": "./ada"}}}), "author"),
    "february": (page({"when": "2026-02-30"}), "when"),
    "april": (page({"when": "2026-04-31T10:00:00Z"}), "when"),
    "no-leap-year": (page({"when": "2100-02-29"}), "when"),
    "month": (page({"when": "2026-13-01"}), "when"),
    "day-zero": (page({"when": "2026-01-00"}), "when"),
    "large-number": (page({"size": 2**53 + 1}), "size"),
}
#: Cards with a part that causes only a warning. Maps a card's name to its file and to the keys that
#: the warnings must name.
WARNED = {
    "type": (page(type="crad"), ["type"]),
    "nowhere": (page(None, {"author": link("./nobody")}), ["author"]),
    "another-site": (page(None, {"author": link("http://elsewhere.example/a")}), ["author"]),
    "no-url": (page(None, {"author": link("http://")}), ["author"]),
    "folder-without-slash": (page(None, {"many.0": link("./sec")}), ["many.0"]),
    "another-type": (page(None, {"author": link("./sec/")}), ["author"]),
    "another-type-in-list": (page(None, {"many.0": link("./ada"), "many.1": link("./sec/index")}),
                             ["many.1"]),
    "gap": (page(None, {"many.0": link("./ada"), "many.2": link("./bo")}), ["many.2"]),
    "no-first": (page(None, {"many.1": link("./ada")}), ["many.1"]),
    "data-too": (page(None, {"author": {**link("./ada"), "data": {}}}), ["author.data"]),
    "inner": (page({"stops": [{}, {}]}, {"stops.1.place": link("./nobody")}), ["stops.1.place"]),
    "picture": (page({"picture": "./none.png"}), ["picture"]),
    "rooted-picture": (page({"picture": "/ada/notes/none.png"}), ["picture"]),
    "inner-picture": (page({"stop": {"sign": "./none.png"}}), ["stop.sign"]),
    "markdown-link": (page({"text": "See [it](./nothing)."}), ["text"]),
    "markdown-folder": (page({"text": "See [it](./none/)."}), ["text"]),
    "markdown-html": (page({"text": "See [it](./web/)."}), ["text"]),
    "markdown-long": (page({"text": f"See [it](./{'x' * 9_000})."}), ["text"]),
    "markdown-twice": (page({"text": "[it](./nothing) and [it](./nothing)"}), ["text"]),
    "no-generated-file": (page({"text": "[a](./press-sitemap.xml) [b](x/myrobots.txt)"}),
                          ["text", "text"]),
    "no-front-page": (page({"text": "[home](./)"}), ["text"]),
    "markdown-image": (page({"text": "![it](./none.png) [r]\n\n[r]: ./none"}), ["text", "text"]),
}  # fmt: skip
#: Cards without errors or warnings.
FINE = {
    "links": page(None, {"author": link("./ada"), "many.0": link("./bo.json"), "many.1": None}),
    "one-of-many": page(None, {"many": link("./ada"), "stop.place": link(None)}),
    "dates": page({"when": "2024-02-29"}),
    "old": page({"when": "0099-12-31"}),
    "sizes": page({"size": 2**53}),
    "files": page({"picture": "./dot.png", "text": "[a](./ada) [b](./sec) [c](./sec/) [d](#e) "
                   "[e](./dot.png) ![f](dot.png) [g](http://elsewhere.example/x) [h](mailto:a@b)"}),
    "generated": page({"text": "[a](x/robots.txt) [b](sitemap.xml)"}),
    "another-realm": page({"text": "[a](http://localhost:4201/base/)"}),
    "served": page(id="x", links={"self": "./x"}),
}  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_a_part_without_effect_causes_an_error_or_warning_with_its_key(
    web: Web, owner: Any, sent: Sent
) -> None:
    sync_base_realm()
    cards = {name: data for name, (data, _) in {**ERRORS, **WARNED}.items()} | FINE
    files = {**PAGES, **{f"{name}.json": data for name, data in cards.items()}}
    realm = make.source(f"{ORIGIN}/ada/notes/", owner, files)
    job = publish(realm, sent)
    shown = {row.path: row for row in IndexedCard.objects.filter(realm_url=URL, current=True)}
    assert {path for path, row in shown.items() if row.error} == set(ERRORS)
    told: Any
    for name, (_, field) in ERRORS.items():
        told = shown[name].error
        assert (told["status"], told["field"]) == (422, field), (name, told)
        assert field.split(".")[-1] in told["message"]
    for name, (_, keys) in WARNED.items():
        told = shown[name].warnings
        assert [each["key"] for each in told or ()] == keys, (name, told)
        assert all(each["message"].startswith((each["key"], "data.")) or name in ("gap", "no-first")
                   for each in told), told  # fmt: skip
    assert [name for name in FINE if shown[name].warnings] == []
    assert all(len(each["message"]) < 5_000 for each in shown["markdown-long"].warnings or ())
    for path in ("", "web/", "press-sitemap.xml", "x/myrobots.txt"):
        assert web.get(URL + path, "text/html").status == 404, path
    html: Any = shown["gap"].html
    assert html["isolated"] == "<p>t Ada,Bo</p>"

    count = sum(len(keys) for _, keys in WARNED.values())
    assert job.warnings == count
    assert sum(kind["count"] for kind in job.summary["warnings"]) == count
    assert any("warning: author links to" in line for line in outcome(job))


@pytest.mark.django_db(transaction=True)
def test_a_warning_stays_until_its_missing_file_exists(web: Web, site: Realm, sent: Sent) -> None:
    make.write_paths(
        site,
        {
            "page.tsx": PAGE,
            "a.json": page({"picture": "./later.png", "text": "[x](./later/)"}),
            "b.json": page(None, {"author": link("./later/ada")}),
        },
    )
    assert publish(site, sent).warnings == 3
    make.write_paths(site, {"other.txt": b"x"})
    job = publish(site, sent)
    assert (job.warnings, len(job.summary["warnings"])) == (3, 3), "the warnings are lost"
    make.write_paths(
        site, {"later.png": b"", "later/ada.json": make.card("../page", "Person", name="Ada"),
               "later/index.json": make.card("../page", "Page", title="x")},
    )  # fmt: skip
    job = publish(site, sent)
    assert (job.warnings, "warnings" in job.summary) == (0, False)
    make.remove(site, "later.png")
    assert publish(site, sent).warnings == 1


@pytest.mark.django_db(transaction=True)
def test_a_page_has_the_language_of_realm_json(web: Web, site: Realm, sent: Sent) -> None:
    def told(lang: Any) -> str:
        settings = make.card("@realm/base", "RealmConfig", name="N", lang=lang)
        make.write_paths(site, {"realm.json": settings})
        publish(site, sent)
        return web.get(URL, "text/html").text.split("<html ")[1].split(">")[0]

    assert told("de") == 'lang="de"'
    assert told("pt-BR") == 'lang="pt-BR"'
    for wrong in (None, 5, '"><script>', ""):
        assert told(wrong) == 'lang="en"'


@pytest.mark.django_db(transaction=True)
def test_all_spellings_of_a_folder_are_one_card(web: Web, site: Realm, sent: Sent) -> None:
    links = {"many.0": link("./sec/"), "many.1": link("./sec/index"), "many.2": link("./sec/x/..")}
    show = b"""\
import { Card, Link, linksToMany } from "@realm/base";
export class Show extends Card {
  static fields = { many: linksToMany(() => Card) };
  static isolated = ({ card }) => card.many.map((each) => <Link card={each}>x</Link>);
}
"""
    sec = make.card("../note", "Note", title="sec")
    data = json.loads(make.card("./show", "Show"))
    data["data"]["relationships"] = links
    files = {"show.tsx": show, "sec/index.json": sec, "front.json": json.dumps(data).encode()}
    make.write_paths(site, files)
    assert publish(site, sent).warnings == 0
    rows = index_of(URL)
    assert rows["front"].html["isolated"] == f'<a href="{URL}sec/">x</a>' * 3
    assert rows["front"].search["many"][0]["id"] == f"{URL}sec/index"
    for spelling in ("sec/", "sec/index"):
        page = web.get(URL + spelling, "text/html").text
        assert f'<link rel="canonical" href="{URL}sec/"/>' in page
    asked = {"on": {"module": f"{URL}show", "name": "Show"}, "eq": {"many.id": f"{URL}sec/"}}
    body = json.dumps({"filter": asked}).encode()
    found = web.request("QUERY", f"{URL}_search", accept=CARD, body=body)
    assert [card["id"] for card in json.loads(found.body)["data"]] == [f"{URL}front"]


@pytest.mark.django_db(transaction=True)
def test_parts_of_realm_json_without_effect_cause_warnings(
    web: Web, site: Realm, sent: Sent
) -> None:
    settings = make.card(
        "@realm/base", "RealmConfig",
        name="N", stylesheet="./none.css", iconURL="./none.svg", stylesheeet="x", lang="a b",
    )  # fmt: skip
    make.write_paths(site, {"realm.json": settings})
    job = publish(site, sent)
    row = IndexedCard.objects.get(realm_url=URL, current=True, path="realm")
    assert [each["key"] for each in row.warnings or ()] == [
        "stylesheeet", "lang", "iconURL", "stylesheet"
    ]  # fmt: skip
    assert (job.warnings, job.errors, row.html) == (4, 0, None)
    make.write_paths(site, {"realm.json": FILES["realm.json"]})
    assert publish(site, sent).warnings == 0
    assert "realm" not in index_of(URL)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "name", ["a[b]", "a^b|c", "a b", "ü", "100%", "a#b?c", "a%5Bb%5D", "~'!()"]
)
def test_a_card_with_any_name_is_found_by_its_own_url(
    web: Web, site: Realm, sent: Sent, name: str
) -> None:
    make.write_paths(
        site,
        {
            "page.tsx": PAGE,
            f"x/{name}.json": make.card("../page", "Person", name="Ada"),
            "plain.json": page(None, {"author": link(f"./x/{quote(name)}")}),
        },
    )
    assert publish(site, sent).warnings == 0
    answer = json.loads(web.get(f"{URL}x/{quote(name)}", CARD).body)
    address = answer["data"]["id"]
    for spelling in (address, f"{URL}x/{quote(name, safe='')}"):
        on = {"on": {"module": f"{URL}page", "name": "Page"}, "eq": {"author.id": spelling}}
        for asked, found in (({"eq": {"id": spelling}}, f"x/{name}"), (on, "plain")):
            said = web.request(
                "QUERY", f"{URL}_search", accept=CARD, body=json.dumps({"filter": asked}).encode()
            )
            ids = [card["id"] for card in json.loads(said.body)["data"]]
            assert ids == [file_url(URL, found)], (asked, said.text)

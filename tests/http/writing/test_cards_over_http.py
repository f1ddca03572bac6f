"""Tests reading, creating and deleting cards as JSON over HTTP. A published card is read at the
generation of its realm's index, which contains the rendered pages. A draft, which is a card in a
source realm, is read as it is now."""

import json
from typing import Any

import pytest

from realms.models import Realm
from reindex.models import IndexedCard
from tests.support import make
from tests.support.clients.cards import CARD, DRAFT, data, send, stored
from tests.support.data.indexed import put_index, search_document
from tests.support.web import API, SOURCE, Web

SITE = "http://ada.localhost:4201/"


@pytest.fixture
def shown(source: Realm, sent: Any) -> Realm:
    """Publishes the source realm, makes an index for the published realm, and returns the published
    realm. The index has an error for the card `broken`."""
    make.write(source, broken__json=make.card("./post", "Post", title="Broken"))
    source.refresh_from_db()
    published = make.publish(source, SITE)
    documents = {
        path: search_document(SITE + path, f"{SITE}{module}", name, {})
        for path, module, name in [("index", "post", "Post"), ("ada", "person", "Person")]
    }
    error = {"status": 404, "title": "Module not found", "message": "no ./post", "causes": ["gone"]}
    put_index(SITE, published.generation, documents, {"broken": error})
    return Realm.objects.get(url=SITE)


# --- Reading -----------------------------------------------------------------------------------


def test_a_published_card_is_read_from_its_index(web: Web, source: Realm, shown: Realm) -> None:
    card = data(web.get(f"{SITE}ada", CARD))
    assert card["id"] == card["links"]["self"] == f"{SITE}ada"
    assert (card["type"], card["attributes"]) == ("card", {"name": "Ada"})
    assert card["meta"]["adoptsFrom"] == {"module": "./person", "name": "Person"}
    assert card["meta"]["realmURL"] == SITE
    told = json.loads(web.get(f"{SITE}_info", API).body)["data"]["attributes"]
    assert card["meta"]["realmInfo"] == told and told["visibility"] == "public"
    assert isinstance(card["meta"]["lastModified"], int)
    make.write(source, ada__json=make.card("./person", "Person", name="Countess"))
    source.refresh_from_db()
    make.publish(source, SITE)
    # Visitors see the old page and the old card until a worker has rendered the new pages.
    answer = web.get(f"{SITE}ada", CARD)
    assert data(answer)["attributes"] == {"name": "Ada"}
    assert answer.headers["x-realm-generation"] == str(shown.generation)
    pinned = web.get(f"{SITE}ada", CARD, **{"X-Realm-Min-Generation": str(shown.generation + 1)})
    assert pinned.status == 503
    assert data(web.get(f"{DRAFT}ada", CARD))["attributes"] == {"name": "Countess"}


def test_half_a_surrogate_pair_in_a_card_is_returned_unchanged(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    adopts = b'"meta": {"adoptsFrom": {"module": "./post", "name": "Post"}}'
    half = b'{"data": {"type": "card", "attributes": {"title": "a\\ud800b"}, %b}}' % adopts
    make.write(
        source, half__json=half, realm__json=b'{"data": {"attributes": {"name": "\\ud800"}}}'
    )
    card = data(web.get(f"{DRAFT}half", CARD, **ada))
    assert card["attributes"]["title"] == "a\ud800b"


def test_the_realm_url_is_the_index_card(web: Web, shown: Realm) -> None:
    for url in (SITE, f"{SITE}index", DRAFT):
        card = data(web.get(url, CARD))
        assert card["attributes"]["title"] == "Home"
        assert card["relationships"] == {"author": {"links": {"self": "./ada"}}}


def test_a_cards_file_redirects_to_the_card(web: Web, shown: Realm) -> None:
    answer = web.get(f"{DRAFT}ada.json", CARD)
    assert (answer.status, answer.headers["location"]) == (302, "/ada/site/ada")
    assert web.get(f"{DRAFT}nothing.json", CARD).status == 404


def test_a_card_has_an_etag_of_its_content(web: Web, source: Realm, ada: dict[str, str]) -> None:
    first = web.get(f"{DRAFT}ada", CARD)
    etag = first.headers["etag"]
    assert etag.startswith('"') and first.headers["cache-control"].startswith("public, max-age=0")
    for match in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = web.get(f"{DRAFT}ada", CARD, **{"If-None-Match": match})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    send(web, "PATCH", f"{DRAFT}ada", {"type": "card", "attributes": {"name": "A"}}, ada)
    assert web.get(f"{DRAFT}ada", CARD, **{"If-None-Match": etag}).status == 200
    head = web.request("HEAD", f"{DRAFT}ada", accept=CARD)
    assert (head.status, head.body) == (200, b"") and head.headers["etag"] != etag


def test_a_published_card_that_cannot_be_rendered_returns_its_error(web: Web, shown: Realm) -> None:
    answer = web.get(f"{SITE}broken", CARD)
    (error,) = json.loads(answer.body)["errors"]
    # The stored error has the status 404, because a module is missing. But the card itself exists,
    # so the answer must not be a 404.
    assert answer.status == error["status"] == 500
    assert (error["title"], error["message"]) == ("Module not found", "no ./post")
    assert error["meta"] == {"causes": ["gone"]} and error["id"] == f"{SITE}broken"
    # The draft can still be read and fixed.
    assert data(web.get(f"{DRAFT}broken", CARD))["attributes"] == {"title": "Broken"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404),
        ("folder/", 404),
        ("dot.png", 415),
        ("post.tsx", 415),
        ("list", 415),
        ("list.json", 302),
        ("bad\x01", 404),
        ("x" * 2000, 404),
    ],
)
def test_a_url_that_is_not_a_card_is_refused(
    web: Web, source: Realm, path: str, status: int
) -> None:
    make.write(source, list__json=b"[]")
    assert web.get(DRAFT + path.replace("\x01", "%01"), CARD).status == status


def test_only_readers_may_read_a_private_card(
    web: Web,
    private: Realm,
) -> None:
    url = f"{private.url}index"
    mine = web.get(url, CARD, **make.realm_login(private, "ada"))
    assert data(mine)["attributes"]["title"] == "Home"
    assert mine.headers["cache-control"] == "private, max-age=0, must-revalidate"
    for method, body in [("GET", None), ("HEAD", None), ("PATCH", b"{}"), ("DELETE", None)]:
        answer = web.request(method, url, accept=CARD, body=body)
        assert answer.status == 401 and "Home" not in answer.body.decode()
    assert web.get(f"{private.url}nothing", CARD).status == 401


# --- Making ------------------------------------------------------------------------------------


def new(**more: Any) -> dict[str, Any]:
    """Returns the JSON of a new card of the type Person."""
    meta = {"adoptsFrom": {"module": "./person", "name": "Person"}}
    return {"type": "card", "attributes": {"name": "Bo"}, "meta": meta, **more}


def test_a_new_card_is_stored_in_the_folder_of_its_type(web: Web, ada: dict[str, str]) -> None:
    answer = send(web, "POST", DRAFT, new(lid="bo"), ada)
    assert answer.status == 201
    card = data(answer)
    assert card["id"] == answer.headers["location"] == f"{DRAFT}Person/bo"
    assert stored(web, f"{DRAFT}Person/bo") == {
        "type": "card",
        "attributes": {"name": "Bo"},
        "relationships": {},
        "meta": {"adoptsFrom": {"module": "../person", "name": "Person"}},
    }
    assert data(web.get(f"{DRAFT}Person/bo", CARD)) == card
    unnamed = data(send(web, "POST", DRAFT, new(), ada))
    assert len(unnamed["id"].removeprefix(f"{DRAFT}Person/")) == 36
    again = send(web, "POST", DRAFT, new(lid="bo"), ada)
    assert again.status == 409


def test_a_new_cards_references_are_rewritten_for_its_folder(web: Web, ada: dict[str, str]) -> None:
    links = {
        "near": {"links": {"self": "./ada"}},
        "whole": {"links": {"self": f"{DRAFT}team/bo"}},
        "far": {"links": {"self": "http://lib.localhost:4201/x"}},
        "rooted": {"links": {"self": "/base/x"}},
        "none": {"links": {"self": None}},
        "several": [{"links": {"self": "../index"}}],
    }
    meta = {"adoptsFrom": {"module": f"{DRAFT}person.tsx", "name": "Person"}}
    sent = new(lid="bo", relationships=links, meta=meta)
    card = data(send(web, "POST", f"{DRAFT}team/", sent, ada))
    assert card["id"] == f"{DRAFT}team/Person/bo"
    assert card["meta"]["adoptsFrom"]["module"] == "../../person.tsx"
    found = {key: link["links"]["self"] for key, link in card["relationships"].items()
             if isinstance(link, dict)}  # fmt: skip
    assert found == {
        "near": "../ada",
        "whole": "../bo",
        "far": "http://lib.localhost:4201/x",
        "rooted": "/base/x",
        "none": None,
    }
    assert card["relationships"]["several"] == [{"links": {"self": "../../index"}}]
    base = {"adoptsFrom": {"module": "@realm/base", "name": "CardsIndex"}}
    card = data(send(web, "POST", DRAFT, new(lid="i", meta=base), ada))
    assert card["meta"]["adoptsFrom"]["module"] == "@realm/base"


def test_a_deleted_card_is_a_404(web: Web, source: Realm, ada: dict[str, str]) -> None:
    answer = web.request("DELETE", f"{DRAFT}ada", accept=CARD, headers=ada)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-realm-generation"] == str(source.generation + 1)
    for method in ("GET", "DELETE"):
        assert web.request(method, f"{DRAFT}ada", accept=CARD, headers=ada).status == 404
    assert web.get(f"{DRAFT}ada.json", SOURCE).status == 404


# --- Refused writes ----------------------------------------------------------------------------

TYPED = {"adoptsFrom": {"module": "./person", "name": "Person"}}
DEEP: Any = 1
for _ in range(150):
    DEEP = [DEEP]

BAD: list[tuple[str, str, str, Any, int, str]] = [
    ("no JSON", "POST", "", b"{", 400, "not valid JSON"),
    ("a list", "POST", "", b"[]", 400, "an array"),
    ("no data", "POST", "", b"{}", 400, "data"),
    ("another type", "POST", "", new(type="person"), 400, "data.type"),
    ("no meta", "POST", "", {"type": "card"}, 400, "data.meta"),
    ("no module", "POST", "", new(meta={"adoptsFrom": {"name": "X"}}), 400, "adoptsFrom.module"),
    ("a module that is a number", "POST", "",
     new(meta={"adoptsFrom": {"module": 1, "name": "X"}}), 400, "adoptsFrom.module"),
    ("a module of no URL", "POST", "",
     new(meta={"adoptsFrom": {"module": "http://[x/", "name": "X"}}), 400, "not a URL"),
    ("a name with a slash", "POST", "",
     new(meta={"adoptsFrom": {"module": "./person", "name": "../X"}}), 400, "adoptsFrom.name"),
    ("a name of dots", "POST", "", new(meta={"adoptsFrom": {"module": "./p", "name": ".."}}),
     400, ".."),
    ("an id with a slash", "POST", "", new(lid="a/b"), 400, "data.lid"),
    ("an id with a star", "POST", "", new(lid="a*"), 400, "*"),
    ("an empty id", "POST", "", new(lid=""), 400, "data.lid"),
    ("attributes that are a list", "POST", "", new(attributes=[]), 400, "data.attributes"),
    ("a link that is text", "POST", "", new(relationships={"a": "./b"}), 400, "relationships.a"),
    ("a link to a number", "POST", "", new(relationships={"a": {"links": {"self": 3}}}), 400,
     "relationships.a"),
    ("a NUL", "POST", "", new(attributes={"a": ["b\x00"]}), 400, "data.attributes"),
    ("half a character", "POST", "", new(attributes={"a\ud800": 1}), 400, "data.attributes"),
    ("depth", "POST", "", new(attributes={"a": DEEP}), 400, "data.attributes"),
    ("too much", "POST", "", new(attributes={"a": "x" * 600_000}), 413, "exceeds"),
    ("far too much", "POST", "", new(attributes={"a": "x" * 1_100_000}), 413, "exceeds"),
    ("a post to a card", "POST", "ada", new(), 405, "PATCH"),
    ("a patch of a folder", "PATCH", "", new(), 405, "card"),
    ("a deletion of a folder", "DELETE", "folder/", b"", 405, "card"),
    ("a put", "PUT", "ada", new(), 405, "PATCH"),
    ("a patch of nothing", "PATCH", "nothing", {"type": "card"}, 404, "nothing"),
    ("a patch of a picture", "PATCH", "dot.png", {"type": "card"}, 415, "not a card"),
    ("a patch of a list", "PATCH", "list", {"type": "card"}, 415, "not a card"),
    ("a deletion of a list", "DELETE", "list", b"", 415, "not a card"),
    ("a patch at a bad path", "PATCH", "a//b", {"type": "card"}, 400, "empty segment"),
    ("a patch to another name", "PATCH", "ada",
     {"type": "card", "meta": {"adoptsFrom": {"module": "./person", "name": "P"}}}, 400, "type"),
    ("a patch that makes it too large", "PATCH", "ada",
     {"type": "card", "attributes": {"a": "x" * 600_000}}, 413, "exceeds"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), [c[1:] for c in BAD],
                         ids=[c[0] for c in BAD])  # fmt: skip
def test_bad_writes_are_refused_and_change_nothing(
    web: Web, source: Realm, ada: dict[str, str], method: str, path: str, body: Any, status: int,
    says: str,
) -> None:  # fmt: skip
    make.write(source, list__json=b"[]")
    source.refresh_from_db()
    answer = send(web, method, DRAFT + path, body, ada)
    (error,) = json.loads(answer.body)["errors"]
    assert answer.status == error["status"] == status, error
    assert says in error["message"]
    before, after = source.generation, Realm.objects.get(pk=source.pk).generation
    assert after == before


def test_bodies_of_other_types_and_writes_elsewhere_are_refused(
    web: Web, shown: Realm, ada: dict[str, str]
) -> None:
    assert send(web, "POST", DRAFT, new(), ada, Content_Type="text/plain").status == 415
    assert send(web, "POST", DRAFT, new(), ada, Content_Type=API).status == 201
    assert send(web, "POST", SITE, new(), make.realm_login(shown, "ada")).status == 405
    assert send(web, "POST", DRAFT, new(), {}).status == 401
    make.user("bob")
    bob = make.realm_login(Realm.objects.get(url=DRAFT), "bob")
    for method in ("POST", "PATCH", "DELETE"):
        assert send(web, method, f"{DRAFT}ada", new(), bob).status == 403
    assert send(web, "POST", "http://nobody.localhost:4201/", new(), ada).status == 404
    assert IndexedCard.objects.filter(path="ada").exists()

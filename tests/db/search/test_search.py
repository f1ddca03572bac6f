"""Searching a realm's cards over HTTP: what is found, in which order, and what is refused."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from reindex.index.query import Query
from reindex.index.search import search
from reindex.jobs import messages
from reindex.models import IndexedCard
from tests.support import make
from tests.support.cluster import Answer
from tests.support.data.indexed import put_index, search_document
from tests.support.web import ORIGIN, Web

SITE = "http://ada.localhost:4201/"
SEARCH = f"{SITE}_search"
CARD = "application/vnd.card+json"
POST = {"module": "./post", "name": "Post"}
ESSAY = {"module": "./essay.tsx", "name": "Essay"}
EVENT = {"module": "./event", "name": "Event"}

PERSON_LINK = {"id": "id", "name": "string", "born": "date", "friends": [{"id": "id"}]}
POST_FIELDS = {
    "title": "string",
    "body": "markdown",
    "likes": "number",
    "draft": "boolean",
    "tags": ["string"],
    "author": PERSON_LINK,
    "editors": [PERSON_LINK],
    "place": {"city": "string", "seats": "number"},
    "parts": [{"heading": "string"}],
    "words": "any",
}
ESSAY_FIELDS = {**POST_FIELDS, "footnotes": "number"}
EVENT_FIELDS = {"title": "string", "starts": "date", "likes": "string"}

ADA = {"id": f"{SITE}ada", "name": "Ada", "born": "1815-12-10T00:00:00.000Z", "friends": []}
BO = {"id": f"{SITE}bo", "name": "Bo", "born": None, "friends": [{"id": f"{SITE}ada"}]}


def _post(path: str, **values: Any) -> dict[str, Any]:
    return search_document(SITE + path, f"{SITE}post", "Post", POST_FIELDS, **values)


CARDS: dict[str, dict[str, Any]] = {
    "one": _post(
        "one", title="Lanterns of the north", body="Fog and 100% rain", likes=3, draft=False,
        tags=["sea", "light"], author=ADA, editors=[BO], place={"city": "Oslo", "seats": 4},
        parts=[{"heading": "First"}, {"heading": "Second"}], words=12,
    ),
    "two": _post(
        "two", title="apples", body="Nothing_at all", likes=10, draft=True, tags=[],
        author=BO, editors=[ADA, BO], place={"city": "Rome", "seats": None}, parts=[], words="ten",
    ),
    "deep/three": search_document(
        f"{SITE}deep/three", f"{SITE}essay", "Essay", ESSAY_FIELDS, adopts=(f"{SITE}post/Post",),
        title="Zebras", body="Stripes", likes=-1.5, draft=False, tags=["sea"], author=None,
        editors=[], place=None, parts=[{"heading": "second thoughts"}], words=None, footnotes=2,
    ),
    "ball": search_document(
        f"{SITE}ball", f"{SITE}event", "Event", EVENT_FIELDS,
        title="Ball", starts="2026-03-01T09:30:00.000Z", likes="many",
    ),
    "fair": search_document(
        f"{SITE}fair", f"{SITE}event", "Event", EVENT_FIELDS,
        title="Fair", starts="2026-11-22T00:00:00.000Z", likes=None,
    ),
}  # fmt: skip


def files() -> dict[str, bytes]:
    """Documents for the cards: what is found is answered as it was stored."""
    names = {"post": "Post", "essay": "Essay", "event": "Event"}
    found = {}
    for path, document in CARDS.items():
        module = document["_type"]["module"].rsplit("/", 1)[-1]
        reference = f"{'../' * path.count('/') or './'}{module}"
        found[f"{path}.json"] = make.card(reference, names[module], title=document["title"])
    return found


def query(web: Web, body: Any, url: str = SEARCH, **headers: str) -> Answer:
    """A search by QUERY; a body that isn't bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.request("QUERY", url, accept=CARD, body=data, headers=headers)


def found(answer: Answer) -> list[str]:
    """The paths of the cards in an answer."""
    assert answer.status == 200, answer.body
    return [card["id"].removeprefix(SITE) for card in json.loads(answer.body)["data"]]


def told(answer: Answer) -> dict[str, Any]:
    """The one error of an answer."""
    errors = json.loads(answer.body)["errors"]
    assert len(errors) == 1
    return dict(errors[0])


# --- What is found -----------------------------------------------------------------------------

FOUND: list[tuple[str, Any, set[str]]] = [
    ("everything", None, {"one", "two", "deep/three", "ball", "fair"}),
    ("a type", {"type": EVENT}, {"ball", "fair"}),
    ("a type and those derived from it", {"type": POST}, {"one", "two", "deep/three"}),
    ("a derived type", {"type": ESSAY}, {"deep/three"}),
    ("every card", {"type": {"module": "@realm/base", "name": "Card"}},
     {"one", "two", "deep/three", "ball", "fair"}),
    ("a type by an absolute URL", {"type": {"module": f"{SITE}event.tsx", "name": "Event"}},
     {"ball", "fair"}),
    ("text", {"eq": {"title": "apples"}}, {"two"}),
    ("text in another case, which is another", {"eq": {"title": "Apples"}}, set()),
    ("a number", {"on": POST, "eq": {"likes": 10}}, {"two"}),
    ("a number of another spelling", {"on": POST, "eq": {"likes": 10.0}}, {"two"}),
    ("a truth value", {"eq": {"draft": True}}, {"two"}),
    ("nothing", {"on": EVENT, "eq": {"likes": None}}, {"fair"}),
    ("a missing link", {"on": POST, "eq": {"author": None}}, {"deep/three"}),
    ("nothing behind a missing link", {"on": POST, "eq": {"author.name": None}}, {"deep/three"}),
    ("an empty list", {"on": POST, "eq": {"tags": None}}, {"two"}),
    ("a member of a list", {"eq": {"tags": "sea"}}, {"one", "deep/three"}),
    ("a field of a linked card", {"eq": {"author.name": "Ada"}}, {"one"}),
    ("a field of one of the linked cards", {"eq": {"editors.name": "Ada"}}, {"two"}),
    ("a link", {"eq": {"author": f"{SITE}bo"}}, {"two"}),
    ("a link by its way", {"eq": {"author": "./bo"}}, {"two"}),
    ("a link by its file", {"eq": {"author.id": "bo.json"}}, {"two"}),
    ("a link of a linked card", {"eq": {"author.friends": "./ada"}}, {"two"}),
    ("a field of a contained card", {"eq": {"place.city": "Oslo"}}, {"one"}),
    ("a field of a contained list", {"eq": {"parts.heading": "Second"}}, {"one"}),
    ("a date as a day", {"on": EVENT, "eq": {"starts": "2026-11-22"}}, {"fair"}),
    ("a date in another zone", {"eq": {"starts": "2026-03-01T10:30+01:00"}}, {"ball"}),
    ("a date of a linked card", {"eq": {"author.born": "1815-12-10"}}, {"one"}),
    ("what is computed", {"eq": {"words": 12}}, {"one"}),
    ("what is computed, by text", {"eq": {"words": "ten"}}, {"two"}),
    ("a card by its URL", {"eq": {"id": "./deep/three"}}, {"deep/three"}),
    ("a title", {"eq": {"_title": "Ball"}}, {"ball"}),
    ("several fields", {"eq": {"draft": False, "tags": "sea", "likes": 3}}, {"one"}),
    ("a field that is a number here and text there", {"eq": {"likes": "many"}}, {"ball"}),
    ("text within text", {"contains": {"title": "THE n"}}, {"one"}),
    ("a percent sign", {"contains": {"body": "100%"}}, {"one"}),
    ("a percent sign alone", {"contains": {"body": "%"}}, {"one"}),
    ("an underscore", {"contains": {"body": "_"}}, {"two"}),
    ("a backslash", {"contains": {"body": "\\"}}, set()),
    ("text within a list", {"contains": {"tags": "IGH"}}, {"one"}),
    ("text within a contained list", {"contains": {"parts.heading": "second"}},
     {"one", "deep/three"}),
    ("text of a linked card", {"contains": {"editors.name": "ad"}}, {"two"}),
    ("one of several", {"in": {"title": ["apples", "Zebras", "none"]}}, {"two", "deep/three"}),
    ("one of several or nothing", {"on": POST, "in": {"author.name": ["Bo", None]}},
     {"two", "deep/three"}),
    ("one of none", {"in": {"title": []}}, set()),
    ("more than", {"on": POST, "range": {"likes": {"gt": 3}}}, {"two"}),
    ("at least", {"on": POST, "range": {"likes": {"gte": 3}}}, {"one", "two"}),
    ("less than", {"on": POST, "range": {"likes": {"lt": 3}}}, {"deep/three"}),
    ("at most", {"on": POST, "range": {"likes": {"lte": 3}}}, {"one", "deep/three"}),
    ("between", {"on": POST, "range": {"likes": {"gt": -2, "lt": 10}}}, {"one", "deep/three"}),
    ("a time", {"range": {"starts": {"gte": "2026-03-01T09:30:00Z", "lt": "2026-11-22"}}},
     {"ball"}),
    ("text in order", {"on": EVENT, "range": {"title": {"gt": "Ball"}}}, {"fair"}),
    ("a range in a contained card", {"range": {"place.seats": {"gte": 4}}}, {"one"}),
    ("either", {"any": [{"eq": {"title": "Ball"}}, {"eq": {"title": "apples"}}]}, {"ball", "two"}),
    ("either of nothing", {"any": []}, set()),
    ("all", {"every": [{"type": POST}, {"eq": {"draft": False}}]}, {"one", "deep/three"}),
    ("all of nothing", {"every": []}, {"one", "two", "deep/three", "ball", "fair"}),
    ("not", {"not": {"type": POST}}, {"ball", "fair"}),
    ("not, of a type", {"on": POST, "not": {"eq": {"draft": True}}}, {"one", "deep/three"}),
    ("not, with nothing there", {"on": POST, "not": {"eq": {"author.name": "Ada"}}},
     {"two", "deep/three"}),
    ("conditions within conditions", {"on": POST, "any": [
        {"not": {"any": [{"eq": {"draft": True}}, {"range": {"likes": {"lt": 0}}}]}},
        {"every": [{"eq": {"tags": "sea"}}, {"type": ESSAY}]},
    ]}, {"one", "deep/three"}),
    ("words", {"matches": "fog rain"}, {"one"}),
    ("words of any case and order", {"matches": "NORTH lanterns"}, {"one"}),
    ("a phrase", {"matches": '"rain fog"'}, set()),
    ("a word but not another", {"matches": "nothing -fog"}, {"two"}),
    ("words, of a type", {"on": ESSAY, "matches": "stripes"}, {"deep/three"}),
    ("nothing but signs", {"matches": "&|!()<->:*'\"\\"}, set()),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    """One server and one index for all lines of the tables: no search changes anything."""
    from django.core.management import call_command

    from tests.support.web import served

    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch, served() as web:
        patch.setattr(messages, "send", lambda *_, **__: None)
        ada = make.user("ada")
        realm = make.source(f"{ORIGIN}/ada/site/", ada, files())
        published = make.publish(realm, SITE)
        put_index(SITE, published.generation, CARDS, {"broken": {"status": 500, "message": "no"}})
        try:
            yield web
        finally:
            call_command("flush", interactive=False, verbosity=0)


@pytest.mark.django_db
@pytest.mark.parametrize(("asked", "expected"), [(f, e) for _, f, e in FOUND],
                         ids=[name for name, _, _ in FOUND])  # fmt: skip
def test_a_search_finds_the_cards_that_are_asked_for(
    world: Web, asked: Any, expected: set[str]
) -> None:
    answer = query(world, {"filter": asked} if asked else {})
    assert set(found(answer)) == expected
    assert json.loads(answer.body)["meta"]["page"]["total"] == len(expected)


@pytest.mark.django_db
def test_text_is_found_in_whatever_an_any_field_holds() -> None:
    url = f"{ORIGIN}/ada/any/"
    held = {
        "text": "Northern", "list": ["x", "the north"], "number": 3, "nothing": None,
        "object": {"north": "x"},
    }  # fmt: skip
    cards = {
        name: search_document(url + name, f"{url}post", "Post", {"words": "any"}, words=value)
        for name, value in held.items()
    }
    put_index(url, 2, cards)
    north = {"contains": {"words": "NORTH"}}
    for asked, expected in (
        (north, {"list", "text"}),
        ({"not": north}, {"number", "nothing", "object"}),
    ):
        answer = search(url, Query.model_validate({"filter": asked}), known=lambda *_: None)
        assert answer is not None
        assert set(answer.paths) == expected


SORTED: list[tuple[str, list[Any], list[str]]] = [
    ("by text of any case", [{"by": "title"}], ["two", "ball", "fair", "one", "deep/three"]),
    ("down", [{"by": "title", "direction": "desc"}], ["deep/three", "one", "fair", "ball", "two"]),
    ("by a number, with nothing at the end", [{"by": "likes", "on": POST}],
     ["deep/three", "one", "two", "ball", "fair"]),
    ("by several keys", [{"by": "draft"}, {"by": "title", "direction": "desc"}],
     ["deep/three", "one", "two", "fair", "ball"]),
    ("by a linked card's field", [{"by": "author.name", "on": POST, "direction": "desc"}],
     ["two", "one", "ball", "deep/three", "fair"]),
    ("by a date", [{"by": "starts", "direction": "desc"}],
     ["fair", "ball", "deep/three", "one", "two"]),
    ("by URL", [{"by": "cardURL", "direction": "desc"}],
     ["two", "one", "fair", "deep/three", "ball"]),
    ("by nothing, which is by path", [], ["ball", "deep/three", "fair", "one", "two"]),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("keys", "expected"), [(k, e) for _, k, e in SORTED],
                         ids=[name for name, _, _ in SORTED])  # fmt: skip
def test_what_is_found_is_in_the_order_that_is_asked_for(
    world: Web, keys: list[Any], expected: list[str]
) -> None:
    assert found(query(world, {"sort": keys})) == expected


@pytest.mark.django_db
def test_pages_are_parts_of_one_order_and_tell_how_many_there_are(world: Web) -> None:
    parts = []
    for number in range(4):
        answer = query(world, {"page": {"number": number, "size": 2}})
        assert json.loads(answer.body)["meta"] == {
            "page": {"total": 5, "number": number, "size": 2}
        }
        parts.append(found(answer))
    assert parts == [["ball", "deep/three"], ["fair", "one"], ["two"], []]


@pytest.mark.django_db
def test_a_card_is_found_as_its_document(world: Web) -> None:
    answer = query(world, {"filter": {"eq": {"title": "Zebras"}}})
    (card,) = json.loads(answer.body)["data"]
    alone = json.loads(world.get(f"{SITE}deep/three", CARD).body)["data"]
    assert card == alone
    assert card["attributes"] == {"title": "Zebras"}
    assert card["meta"]["adoptsFrom"] == {"module": "../essay", "name": "Essay"}
    assert answer.headers["content-type"] == CARD
    assert answer.headers["x-boxel-realm-url"] == SITE


@pytest.mark.django_db
def test_a_search_is_the_same_in_a_url_in_a_body_and_by_override(world: Web) -> None:
    both = [{"eq": {"draft": False}}, {"range": {"likes": {"gte": 3}}}]
    asked = {
        "filter": {"on": POST, "every": both},
        "sort": [{"by": "title", "direction": "desc"}],
        "page": {"number": 0, "size": 10},
    }
    in_url = (
        "filter[on][module]=./post&filter[on][name]=Post&filter[every][0][eq][draft]=false"
        "&filter[every][1][range][likes][gte]=3&sort[0][by]=title&sort[0][direction]=desc"
        "&page[number]=0&page[size]=10"
    )
    overridden = world.request(
        "POST", SEARCH, accept=CARD, body=json.dumps(asked).encode(),
        headers={"X-HTTP-Method-Override": "QUERY"},
    )  # fmt: skip
    answers = [
        query(world, asked),
        overridden,
        world.get(f"{SEARCH}?{in_url}", CARD),
        world.get(f"{SEARCH}?{quote(in_url, safe='=&')}", CARD),
    ]
    assert [found(answer) for answer in answers] == [["one"]] * 4
    assert found(world.get(f"{SEARCH}?filter[on][module]=./event&filter[on][name]=Event"
                           "&filter[eq][likes]", CARD)) == ["fair"]  # fmt: skip


# --- What is refused ---------------------------------------------------------------------------

NESTED: Any = {"eq": {"title": "x"}}
for _ in range(30):
    NESTED = {"not": NESTED}

BAD: list[tuple[str, Any, str, str]] = [
    ("nothing that is JSON", b"{", "", "not valid JSON"),
    ("not UTF-8", b'{"filter": "\xff"}', "", "not valid JSON"),
    ("NaN", b'{"filter": {"eq": {"likes": NaN}}}', "", "NaN"),
    ("a number beyond all floats", b'{"filter": {"eq": {"likes": 1e999}}}', "", "1e999"),
    ("nesting without end", b"[" * 60_000, "", "not valid JSON"),
    ("a list", [], "", "should be a JSON object"),
    ("a text", "x", "", "should be a JSON object"),
    ("an unknown part", {"filters": {}}, "/filters", "not known"),
    ("a filter that is text", {"filter": "x"}, "/filter", "Filter"),
    ("an empty filter", {"filter": {}}, "/filter", "no condition"),
    ("an empty filter within", {"filter": {"any": [{}]}}, "/filter/any/0", "no condition"),
    ("a filter with only its type's place", {"filter": {"on": POST}}, "/filter", "no condition"),
    ("an unknown operator", {"filter": {"like": {"title": "x"}}}, "/filter/like", "not known"),
    ("filters too deep", {"filter": NESTED}, "/filter/not/not", "deep"),
    ("too many conditions", {"filter": {"any": [{"eq": {"title": "x"}}] * 200}},
     "/filter/any/100/eq/title", "100 conditions"),
    ("too many values", {"filter": {"in": {"title": ["x"] * 501}}}, "/filter/in/title", "500"),
    ("an unknown field", {"filter": {"eq": {"colour": 1}}}, "/filter/eq/colour", "'colour'"),
    ("an unknown field of a type", {"filter": {"on": EVENT, "eq": {"body": "x"}}},
     "/filter/eq/body", "'body' is not a field of Event"),
    ("a field of a derived type only", {"filter": {"on": POST, "eq": {"footnotes": 1}}},
     "/filter/eq/footnotes", "not a field of Post"),
    ("an unknown field of a linked card", {"filter": {"eq": {"author.shoes": 1}}},
     "/filter/eq/author.shoes", "'author.shoes'"),
    ("a field of text", {"filter": {"eq": {"title.length": 1}}}, "/filter/eq/title.length", ""),
    ("a field beyond the links of a link", {"filter": {"eq": {"author.friends.name": "x"}}},
     "/filter/eq/author.friends.name", ""),
    ("an empty step", {"filter": {"eq": {"author..name": "x"}}}, "/filter/eq/author..name", ""),
    ("no field", {"filter": {"eq": {"": "x"}}}, "/filter/eq/", "at least 1"),
    ("a field of ours", {"filter": {"eq": {"_types": "x"}}}, "/filter/eq/_types", "'_types'"),
    ("a field with signs of a pointer", {"filter": {"eq": {"a/b~c": 1}}}, "/filter/eq/a~1b~0c", ""),
    ("an unknown type", {"filter": {"type": {"module": "./post", "name": "Nope"}}},
     "/filter/type", "'Nope'"),
    ("a type of an unknown module", {"filter": {"on": {"module": "./nope", "name": "X"},
                                                "eq": {"title": "x"}}}, "/filter/on", "nope"),
    ("a type of a package", {"filter": {"type": {"module": "lodash", "name": "X"}}},
     "/filter/type", "lodash"),
    ("a type of no URL", {"filter": {"type": {"module": "http://[x/", "name": "X"}}},
     "/filter/type", ""),
    ("a type without a name", {"filter": {"type": {"module": "./post"}}}, "/filter/type/name",
     "required"),
    ("a type that is text", {"filter": {"type": "Post"}}, "/filter/type", ""),
    ("an unknown type within", {"filter": {"every": [{"not": {"type": {"module": "./post",
                                                                       "name": "No"}}}]}},
     "/filter/every/0/not/type", "'No'"),
    ("text for a number", {"filter": {"on": POST, "eq": {"likes": "3"}}}, "/filter/eq/likes",
     "a number"),
    ("a truth value for a number", {"filter": {"on": POST, "eq": {"likes": True}}},
     "/filter/eq/likes", "a number"),
    ("a number for text", {"filter": {"eq": {"title": 3}}}, "/filter/eq/title", "text"),
    ("a number for a truth value", {"filter": {"eq": {"draft": 1}}}, "/filter/eq/draft", "true"),
    ("an object for text", {"filter": {"eq": {"title": {"a": 1}}}}, "/filter/eq/title", "text"),
    ("a list for text", {"filter": {"eq": {"title": ["a"]}}}, "/filter/eq/title", "text"),
    ("a number for a link", {"filter": {"eq": {"author": 3}}}, "/filter/eq/author", "URL"),
    ("a value for a contained card", {"filter": {"eq": {"place": "Oslo"}}}, "/filter/eq/place",
     "place.city"),
    ("no date", {"filter": {"eq": {"starts": "yesterday"}}}, "/filter/eq/starts", "2026-03-01"),
    ("a date that there isn't", {"filter": {"eq": {"starts": "2026-02-30"}}},
     "/filter/eq/starts", "date"),
    ("a date before all dates", {"filter": {"eq": {"starts": "0001-01-01T00:00+23:59"}}},
     "/filter/eq/starts", "date"),
    ("a wrong one of several", {"filter": {"in": {"starts": ["2026-03-01", "x"]}}},
     "/filter/in/starts/1", "date"),
    ("one for several", {"filter": {"in": {"title": "x"}}}, "/filter/in/title", "list"),
    ("text within a number", {"filter": {"on": POST, "contains": {"likes": "3"}}},
     "/filter/contains/likes", "can't contain"),
    ("a number within text", {"filter": {"contains": {"title": 3}}}, "/filter/contains/title",
     "text"),
    ("a range without bounds", {"filter": {"range": {"title": {}}}}, "/filter/range/title",
     "no bound"),
    ("a range of truth values", {"filter": {"range": {"draft": {"gt": True}}}},
     "/filter/range/draft", "no order"),
    ("a range of links", {"filter": {"range": {"author": {"gt": "./a"}}}},
     "/filter/range/author", "no order"),
    ("a bound of null", {"filter": {"range": {"title": {"gt": None}}}}, "/filter/range/title/gt",
     "null"),
    ("a bound of another type", {"filter": {"on": POST, "range": {"likes": {"lt": "x"}}}},
     "/filter/range/likes/lt", "a number"),
    ("an unknown bound", {"filter": {"range": {"title": {"above": "x"}}}},
     "/filter/range/title/above", "not known"),
    ("words that are a number", {"filter": {"matches": 3}}, "/filter/matches", "string"),
    ("too many words", {"filter": {"matches": "x" * 1001}}, "/filter/matches", "1000"),
    ("a NUL", {"filter": {"eq": {"title": "a\x00"}}}, "/filter/eq/title", "character"),
    ("half a character", b'{"filter": {"matches": "\\ud800"}}', "/filter/matches", "character"),
    ("a NUL in a name", {"filter": {"eq": {"ti\x00tle": 1}}}, "/filter/eq", "character"),
    ("a sort that is text", {"sort": "title"}, "/sort", "list"),
    ("a sort by nothing", {"sort": [{}]}, "/sort/0/by", "required"),
    ("a sort by an unknown field", {"sort": [{"by": "title"}, {"by": "shoes"}]}, "/sort/1/by",
     "'shoes'"),
    ("a sort by another type's field", {"sort": [{"by": "starts", "on": POST}]}, "/sort/0/by",
     "not a field of Post"),
    ("a sort by a list", {"sort": [{"by": "tags"}]}, "/sort/0/by", "can't be sorted"),
    ("a sort by a link", {"sort": [{"by": "author"}]}, "/sort/0/by", "can't be sorted"),
    ("a sort sideways", {"sort": [{"by": "title", "direction": "up"}]}, "/sort/0/direction",
     "'asc'"),
    ("a sort by eleven keys", {"sort": [{"by": "title"}] * 11}, "/sort", "10"),
    ("a page that is a number", {"page": 3}, "/page", ""),
    ("a page before the first", {"page": {"number": -1}}, "/page/number", "0"),
    ("a page beyond all", {"page": {"number": 10**12}}, "/page/number", ""),
    ("a page of none", {"page": {"size": 0}}, "/page/size", "1"),
    ("a page of all", {"page": {"size": 101}}, "/page/size", "100"),
    ("half a page", {"page": {"size": 2.5}}, "/page/size", "integer"),
    ("a page of words", {"page": {"size": "many"}}, "/page/size", "integer"),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("body", "pointer", "says"), [(b, p, s) for _, b, p, s in BAD],
                         ids=[name for name, _, _, _ in BAD])  # fmt: skip
def test_a_bad_query_is_a_400_that_names_the_place(
    world: Web, body: Any, pointer: str, says: str
) -> None:
    answer = query(world, body)
    assert answer.status == 400, answer.body
    error = told(answer)
    assert error["source"]["pointer"].startswith(pointer)
    assert says in error["message"]
    assert len(error["message"]) < 2000


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("filter[eq][title]=a&filter[eq][title]=b", "/filter/eq/title"),
        ("filter=a&filter[eq][title]=b", "/filter"),
        ("filter[eq][title", ""),
        ("filter]eq[=1", ""),
        ("filter[eq][title]=%ff", ""),
        ("filter[eq][title]=%00", "/filter/eq/title"),
        ("filter" + "[a]" * 5000 + "=1", ""),
        ("page[size]=10x", "/page/size"),
        ("page[size]=-1", "/page/size"),
        ("filter[on][module]=./post&filter[on][name]=Post&filter[eq][likes]=three",
         "/filter/eq/likes"),
        ("filter[eq][draft]=1", "/filter/eq/draft"),
        ("nonsense", "/nonsense"),
        ("=1", ""),
    ],
)  # fmt: skip
def test_a_bad_query_in_a_url_is_a_400_that_names_the_place(
    world: Web, text: str, pointer: str
) -> None:
    answer = world.get(f"{SEARCH}?{text}", CARD)
    assert answer.status == 400, answer.body
    assert told(answer)["source"]["pointer"].startswith(pointer)


SMUGGLED = [
    "'; DROP TABLE reindex_indexedcard; --",
    "' OR '1'='1",
    "\\'; DROP TABLE reindex_indexedcard; --",
    "\\",
    "$1",
    "%s",
    "%(realm)s",
    "{realm}",
    "$$; DROP TABLE reindex_indexedcard; $$",
    '"; DROP TABLE reindex_indexedcard; --',
    '") || true || ("',
    "* ? (@ == @)",
    "x'::text || (SELECT data FROM realms_blob LIMIT 1)::text || '",
    "\u2019 OR 1=1",
    "/*",
]


@pytest.mark.django_db
@pytest.mark.parametrize("text", SMUGGLED)
def test_no_part_of_a_query_becomes_sql(world: Web, text: str) -> None:
    rows = IndexedCard.objects.count()
    path = f"words.{text.replace('.', '')}"
    conditions: list[Any] = [
        {"eq": {"title": text}},
        {"contains": {"title": text}},
        {"in": {"title": [text]}},
        {"on": EVENT, "range": {"title": {"gt": f"zzz{text}"}}},
        {"eq": {"words": text}},
        {"eq": {path: "x"}},
        {"eq": {"author": text}},
        {"every": [{"type": EVENT}, {"matches": f"zzz {text} zzz"}]},
    ]
    answer = query(world, {"filter": {"any": conditions}, "sort": [{"by": path}]})
    assert found(answer) == [], answer.body
    refused: list[Any] = [
        {"filter": {"eq": {text: "x"}}},
        {"filter": {"type": {"module": f"./{text}", "name": "Post"}}},
        {"filter": {"type": {"module": "./post", "name": text}}},
        {"filter": {text: {"title": "x"}}},
        {"filter": {"range": {"title": {text: "x"}}}},
        {"sort": [{"by": text}]},
        {"sort": [{"by": "title", "direction": text}]},
        {"page": {"size": text}},
        {text: 1},
    ]
    turn = SMUGGLED.index(text)
    for body in (refused[turn % 9], refused[(turn + 4) % 9]):
        assert query(world, body).status == 400, body
    assert IndexedCard.objects.count() == rows


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_other_methods_are_refused(world: Web, method: str) -> None:
    assert world.request(method, SEARCH, accept=CARD, body=b"{}").status == 405


@pytest.mark.django_db
def test_a_query_of_unreasonable_size_is_refused(world: Web) -> None:
    assert query(world, b'{"x": "' + b"x" * 200_000 + b'"}').status == 413

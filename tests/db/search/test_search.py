"""Searches a realm's cards over HTTP, and checks which cards are found and in which order."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from reindex.index.query import Query
from reindex.index.search import search
from tests.support.data.indexed import put_index, search_document
from tests.support.data.searched import CARD, ESSAY, EVENT, POST, SEARCH, SITE, found, query
from tests.support.web import ORIGIN, Web

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
    ("text in another case, which does not match", {"eq": {"title": "Apples"}}, set()),
    ("a number", {"on": POST, "eq": {"likes": 10}}, {"two"}),
    ("a number of another spelling", {"on": POST, "eq": {"likes": 10.0}}, {"two"}),
    ("a truth value", {"eq": {"draft": True}}, {"two"}),
    ("a missing value", {"on": EVENT, "eq": {"likes": None}}, {"fair"}),
    ("a missing link", {"on": POST, "eq": {"author": None}}, {"deep/three"}),
    ("a missing value behind a missing link", {"on": POST, "eq": {"author.name": None}},
     {"deep/three"}),
    ("an empty list", {"on": POST, "eq": {"tags": None}}, {"two"}),
    ("a member of a list", {"eq": {"tags": "sea"}}, {"one", "deep/three"}),
    ("a field of a linked card", {"eq": {"author.name": "Ada"}}, {"one"}),
    ("a field of one of the linked cards", {"eq": {"editors.name": "Ada"}}, {"two"}),
    ("a link", {"eq": {"author": f"{SITE}bo"}}, {"two"}),
    ("a link by its relative path", {"eq": {"author": "./bo"}}, {"two"}),
    ("a link by its file", {"eq": {"author.id": "bo.json"}}, {"two"}),
    ("a link of a linked card", {"eq": {"author.friends": "./ada"}}, {"two"}),
    ("a field of a contained card", {"eq": {"place.city": "Oslo"}}, {"one"}),
    ("a field of a contained list", {"eq": {"parts.heading": "Second"}}, {"one"}),
    ("a date as a day", {"on": EVENT, "eq": {"starts": "2026-11-22"}}, {"fair"}),
    ("a date in another zone", {"eq": {"starts": "2026-03-01T10:30+01:00"}}, {"ball"}),
    ("a date of a linked card", {"eq": {"author.born": "1815-12-10"}}, {"one"}),
    ("a computed field", {"eq": {"words": 12}}, {"one"}),
    ("a computed text field", {"eq": {"words": "ten"}}, {"two"}),
    ("a card by its URL", {"eq": {"id": "./deep/three"}}, {"deep/three"}),
    ("a title", {"eq": {"_title": "Ball"}}, {"ball"}),
    ("several fields", {"eq": {"draft": False, "tags": "sea", "likes": 3}}, {"one"}),
    ("a field that is a number in one type and text in another", {"eq": {"likes": "many"}},
     {"ball"}),
    ("text within text", {"contains": {"title": "THE n"}}, {"one"}),
    ("a percent sign", {"contains": {"body": "100%"}}, {"one"}),
    ("a percent sign alone", {"contains": {"body": "%"}}, {"one"}),
    ("an underscore", {"contains": {"body": "_"}}, {"two"}),
    ("a backslash", {"contains": {"body": "\\"}}, set()),
    ("text within a list", {"contains": {"tags": "IGH"}}, {"one"}),
    ("text within a contained list", {"contains": {"parts.heading": "second"}},
     {"one", "deep/three"}),
    ("text of a linked card", {"contains": {"editors.name": "ad"}}, {"two"}),
    ("one of several values", {"in": {"title": ["apples", "Zebras", "none"]}},
     {"two", "deep/three"}),
    ("one of several values or a missing value", {"on": POST, "in": {"author.name": ["Bo", None]}},
     {"two", "deep/three"}),
    ("one of no values", {"in": {"title": []}}, set()),
    ("more than", {"on": POST, "range": {"likes": {"gt": 3}}}, {"two"}),
    ("at least", {"on": POST, "range": {"likes": {"gte": 3}}}, {"one", "two"}),
    ("less than", {"on": POST, "range": {"likes": {"lt": 3}}}, {"deep/three"}),
    ("at most", {"on": POST, "range": {"likes": {"lte": 3}}}, {"one", "deep/three"}),
    ("between", {"on": POST, "range": {"likes": {"gt": -2, "lt": 10}}}, {"one", "deep/three"}),
    ("less than, where others have text", {"range": {"likes": {"lt": 3}}}, {"deep/three"}),
    ("not less than", {"not": {"range": {"likes": {"lt": 3}}}}, {"one", "two", "ball", "fair"}),
    ("no such part of a text", {"not": {"contains": {"body": "%"}}},
     {"two", "deep/three", "ball", "fair"}),
    ("a time", {"range": {"starts": {"gte": "2026-03-01T09:30:00Z", "lt": "2026-11-22"}}},
     {"ball"}),
    ("text in order", {"on": EVENT, "range": {"title": {"gt": "Ball"}}}, {"fair"}),
    ("a range in a contained card", {"range": {"place.seats": {"gte": 4}}}, {"one"}),
    ("any of several conditions", {"any": [{"eq": {"title": "Ball"}}, {"eq": {"title": "apples"}}]},
     {"ball", "two"}),
    ("any of no conditions", {"any": []}, set()),
    ("every condition", {"every": [{"type": POST}, {"eq": {"draft": False}}]},
     {"one", "deep/three"}),
    ("every one of no conditions", {"every": []}, {"one", "two", "deep/three", "ball", "fair"}),
    ("not", {"not": {"type": POST}}, {"ball", "fair"}),
    ("not, of a type", {"on": POST, "not": {"eq": {"draft": True}}}, {"one", "deep/three"}),
    ("not, with missing values", {"on": POST, "not": {"eq": {"author.name": "Ada"}}},
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
    ("only punctuation", {"matches": "&|!()<->:*'\"\\"}, set()),
]  # fmt: skip


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
def test_a_text_search_of_an_any_field_ignores_values_that_are_no_text() -> None:
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
    ("descending", [{"by": "title", "direction": "desc"}],
     ["deep/three", "one", "fair", "ball", "two"]),
    ("by a number, with missing values last", [{"by": "likes", "on": POST}],
     ["deep/three", "one", "two", "ball", "fair"]),
    ("by several keys", [{"by": "draft"}, {"by": "title", "direction": "desc"}],
     ["deep/three", "one", "two", "fair", "ball"]),
    ("by a linked card's field", [{"by": "author.name", "on": POST, "direction": "desc"}],
     ["two", "one", "ball", "deep/three", "fair"]),
    ("by a date", [{"by": "starts", "direction": "desc"}],
     ["fair", "ball", "deep/three", "one", "two"]),
    ("by URL", [{"by": "cardURL", "direction": "desc"}],
     ["two", "one", "fair", "deep/three", "ball"]),
    ("without a key, which is by path", [], ["ball", "deep/three", "fair", "one", "two"]),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("keys", "expected"), [(k, e) for _, k, e in SORTED],
                         ids=[name for name, _, _ in SORTED])  # fmt: skip
def test_results_are_in_the_requested_order(
    world: Web, keys: list[Any], expected: list[str]
) -> None:
    assert found(query(world, {"sort": keys})) == expected


@pytest.mark.django_db
def test_pages_split_one_order_and_have_the_total(world: Web) -> None:
    parts = []
    for number in range(4):
        answer = query(world, {"page": {"number": number, "size": 2}})
        assert json.loads(answer.body)["meta"] == {
            "page": {"total": 5, "number": number, "size": 2}
        }
        parts.append(found(answer))
    assert parts == [["ball", "deep/three"], ["fair", "one"], ["two"], []]


@pytest.mark.django_db
def test_a_result_is_the_cards_own_document(world: Web) -> None:
    answer = query(world, {"filter": {"eq": {"title": "Zebras"}}})
    (card,) = json.loads(answer.body)["data"]
    alone = json.loads(world.get(f"{SITE}deep/three", CARD).body)["data"]
    assert card == alone
    assert card["attributes"] == {"title": "Zebras"}
    assert card["meta"]["adoptsFrom"] == {"module": "../essay", "name": "Essay"}
    assert answer.headers["content-type"] == CARD
    assert answer.headers["x-boxel-realm-url"] == SITE


@pytest.mark.django_db
def test_a_search_works_alike_in_a_url_in_a_body_and_by_override(world: Web) -> None:
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

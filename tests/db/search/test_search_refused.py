"""Tests the errors for invalid searches, and that no part of a query becomes SQL."""

from typing import Any

import pytest

from reindex.models import IndexedCard
from tests.support.data.searched import CARD, EVENT, POST, SEARCH, found, query, told
from tests.support.web import Web

NESTED: Any = {"eq": {"title": "x"}}
for _ in range(30):
    NESTED = {"not": NESTED}

BAD: list[tuple[str, Any, str, str]] = [
    ("not JSON", b"{", "", "not valid JSON"),
    ("not UTF-8", b'{"filter": "\xff"}', "", "not valid JSON"),
    ("NaN", b'{"filter": {"eq": {"likes": NaN}}}', "", "NaN"),
    ("a number beyond all floats", b'{"filter": {"eq": {"likes": 1e999}}}', "", "1e999"),
    ("endless nesting", b"[" * 60_000, "", "not valid JSON"),
    ("a list", [], "", "should be a JSON object"),
    ("a text", "x", "", "should be a JSON object"),
    ("an unknown part", {"filters": {}}, "/filters", "not known"),
    ("a filter that is text", {"filter": "x"}, "/filter", "Filter"),
    ("an empty filter", {"filter": {}}, "/filter", "no condition"),
    ("an empty filter within", {"filter": {"any": [{}]}}, "/filter/any/0", "no condition"),
    ("a filter with only 'on'", {"filter": {"on": POST}}, "/filter", "no condition"),
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
    ("an internal field", {"filter": {"eq": {"_types": "x"}}}, "/filter/eq/_types", "'_types'"),
    ("a field with characters of a JSON pointer", {"filter": {"eq": {"a/b~c": 1}}},
     "/filter/eq/a~1b~0c", ""),
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
    ("text for a date", {"filter": {"eq": {"starts": "yesterday"}}},
     "/filter/eq/starts", "2026-03-01"),
    ("a date that doesn't exist", {"filter": {"eq": {"starts": "2026-02-30"}}},
     "/filter/eq/starts", "date"),
    ("a date before the first possible one",
     {"filter": {"eq": {"starts": "0001-01-01T00:00+23:59"}}},
     "/filter/eq/starts", "date"),
    ("a wrong value of several", {"filter": {"in": {"starts": ["2026-03-01", "x"]}}},
     "/filter/in/starts/1", "date"),
    ("one value for a list", {"filter": {"in": {"title": "x"}}}, "/filter/in/title", "list"),
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
    ("a sort without a field", {"sort": [{}]}, "/sort/0/by", "required"),
    ("a sort by an unknown field", {"sort": [{"by": "title"}, {"by": "shoes"}]}, "/sort/1/by",
     "'shoes'"),
    ("a sort by another type's field", {"sort": [{"by": "starts", "on": POST}]}, "/sort/0/by",
     "not a field of Post"),
    ("a sort by a list", {"sort": [{"by": "tags"}]}, "/sort/0/by", "can't be sorted"),
    ("a sort by a link", {"sort": [{"by": "author"}]}, "/sort/0/by", "can't be sorted"),
    ("an unknown direction of a sort", {"sort": [{"by": "title", "direction": "up"}]},
     "/sort/0/direction",
     "'asc'"),
    ("a sort by eleven keys", {"sort": [{"by": "title"}] * 11}, "/sort", "10"),
    ("a page that is a number", {"page": 3}, "/page", ""),
    ("a page before the first", {"page": {"number": -1}}, "/page/number", "0"),
    ("a page beyond the last possible one", {"page": {"number": 10**12}}, "/page/number", ""),
    ("a page of zero results", {"page": {"size": 0}}, "/page/size", "1"),
    ("a page of too many results", {"page": {"size": 101}}, "/page/size", "100"),
    ("a page size with a fraction", {"page": {"size": 2.5}}, "/page/size", "integer"),
    ("a page size that is text", {"page": {"size": "many"}}, "/page/size", "integer"),
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("body", "pointer", "says"), [(b, p, s) for _, b, p, s in BAD],
                         ids=[name for name, _, _, _ in BAD])  # fmt: skip
def test_a_bad_query_is_a_400_that_points_to_its_part(
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
def test_a_bad_query_in_a_url_is_a_400_that_points_to_its_part(
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
def test_a_search_by_another_method_is_refused(world: Web, method: str) -> None:
    assert world.request(method, SEARCH, accept=CARD, body=b"{}").status == 405


@pytest.mark.django_db
def test_an_overlong_query_is_a_413(world: Web) -> None:
    assert query(world, b'{"x": "' + b"x" * 200_000 + b'"}').status == 413

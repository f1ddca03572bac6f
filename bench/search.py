"""Measures searches over 100,000 cards, and compares each search with its SQL statement alone.

The index contains cards of 20 types. Its rows are inserted in bulk, with search documents like
those of real cards. A search document is the JSON in which a search finds a card's values. Each run
makes six kinds of searches, with 40 different values for each kind. The kinds are a title, a part
of a title, a range of numbers, words, the cards of a type in the order of a field, and several
conditions at once.

A search first reads the types of the index's cards, and compiles the query to SQL. Then one SQL
statement finds the cards. For comparison, psycopg runs only this last statement.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, LiteralString

from bench.support.comparing import Bar, Case, Table, WrongBytes, compare
from bench.support.quantiles import share
from bench.support.running import Bench

if TYPE_CHECKING:
    from reindex.index.query import Query
    from reindex.index.search import SearchResult

REALM = "http://localhost:4201/ada/site/"
TYPES = 20

_CARDS: LiteralString = """
INSERT INTO reindex_indexedcard
    (job_id, realm_url, path, current, settled, html_generation, html, render_ms, made_from, search)
SELECT %(job)s, %(realm)s, 'card/' || n, true, true, 2,
    jsonb_build_object('isolated', '<p>card ' || n || '</p>', 'head', ''), 1,
    ARRAY[n, n %% 20]::bigint[],
    jsonb_build_object(
        'id', %(realm)s || 'card/' || n, 'title', 'Note ' || n, 'rank', n,
        'tags', jsonb_build_array('tag' || n %% 7, 'tag' || n %% 11),
        '_type', jsonb_build_object('module', %(realm)s || 'type' || n %% 20, 'name', 'Note'),
        '_types', jsonb_build_array(%(realm)s || 'type' || n %% 20 || '/Note', '@realm/base/Card'),
        '_title', 'Note ' || n,
        '_fields', %(fields)s::jsonb,
        '_text', 'Note ' || n || ' word' || n %% 1000 || repeat(' and so on for a while', 10)
    )
FROM generate_series(0, %(count)s - 1) n
"""


def main() -> int:
    bench = Bench("search", __doc__)
    bench.parser.add_argument("--cards", type=int, help="cards of the index (default: 100,000)")
    with bench:
        run(bench, bench.options.cards or (2_000 if bench.quick else 100_000))
    return bench.finish()


def queries(cards: int, number: int) -> dict[str, tuple[dict[str, Any], int]]:
    """Returns the queries by name, each with the number of cards that it must find. `number`
    chooses the values that the queries look for."""
    at = number * 7919 % cards
    word = number % 1000
    a_type = {"module": f"./type{number % TYPES}", "name": "Note"}
    of_type = cards // TYPES
    with_word = sum(1 for card in range(word, cards, 1000) if card % TYPES == number % TYPES)
    return {
        "a title": ({"filter": {"eq": {"title": f"Note {at}"}}}, 1),
        "a part of a title": (
            {"filter": {"contains": {"title": f"e {at}"}}},
            sum(str(card).startswith(str(at)) for card in range(cards)),
        ),
        "a range": (
            {"filter": {"range": {"rank": {"gte": at, "lt": at + 50}}}},
            min(50, cards - at),
        ),
        "words": ({"filter": {"matches": f"word{word}"}}, len(range(word, cards, 1000))),
        "a type, sorted": ({"filter": {"type": a_type}, "sort": [{"by": "rank"}]}, of_type),
        "several conditions": (
            {
                "filter": {
                    "on": a_type,
                    "every": [
                        {"matches": f"word{word}"},
                        {"range": {"rank": {"gte": 0}}},
                        {"not": {"eq": {"title": "Note"}}},
                    ],
                },
                "sort": [{"by": "rank", "on": a_type, "direction": "desc"}],
            },
            with_word,
        ),
    }


def run(bench: Bench, cards: int) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from reindex.index.query import Query
    from tests.support.listening.hearing import connect

    _fill(cards)
    wanted: list[tuple[str, Query, int]] = []
    for number in range(3 if bench.quick else 40):
        for name, (query, total) in queries(cards, number + 1).items():
            wanted.append((name, Query.model_validate(query), total))
    statements = []
    for name, parsed, total in wanted:
        with CaptureQueriesContext(connection) as sent:
            found = _found(parsed)
        if found.total != total or len(found.paths) != min(total, 20):
            raise WrongBytes(f"{name}: {found.total} cards instead of {total}: {parsed!r}")
        statements.append(next(q["sql"] for q in reversed(sent) if "hits" in q["sql"]))
    by_kind: dict[str, list[float]] = {}

    with connect() as bare:

        def search() -> float:
            times: dict[str, list[float]] = {}
            for name, parsed, _ in wanted:
                times.setdefault(name, []).append(_ms(lambda parsed=parsed: _found(parsed)))  # type: ignore[misc]
            for name, each in times.items():
                by_kind.setdefault(name, []).append(share(each, 99))
            return share([ms for each in times.values() for ms in each], 99)

        def statement() -> float:
            return share([_ms(lambda s=s: bare.execute(s).fetchone()) for s in statements], 99)  # type: ignore[misc]

        title = f"searches over {cards:,} cards: p99"
        table = compare(
            title, unit="ms", better="lower", runs=bench.runs, reference="bare SQL",
            cases=[Case("search", search), Case("bare SQL", statement)],
        )  # fmt: skip
    bench.add(table)
    bench.add(Table(f"{title}, by what is searched for", "ms", "lower", by_kind, "a title"))
    bench.judge(Bar(f"{title} in ms", table.median("search"), at_most=50))


def _found(query: "Query") -> "SearchResult":
    from reindex.index.search import search

    found = search(REALM, query, known=lambda module, name: None)
    if found is None:
        raise WrongBytes("the realm has no index")
    return found


def _ms(act: Callable[[], object]) -> float:
    at = time.perf_counter()
    act()
    return (time.perf_counter() - at) * 1000


def _fill(cards: int) -> None:
    """Stores an index with this number of cards."""
    from django.db import connection

    from tests.support.data.indexed import put_index

    job = put_index(REALM, 2, {})
    fields = '{"title": "string", "rank": "number", "tags": ["string"]}'
    with connection.cursor() as cursor:
        values: dict[str, Any] = {"job": job.pk, "realm": REALM, "count": cards, "fields": fields}
        cursor.execute(_CARDS, values)
        cursor.execute("VACUUM ANALYZE reindex_indexedcard")


if __name__ == "__main__":
    sys.exit(main())

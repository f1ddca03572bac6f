"""Searches a realm's index, which has a search document for each rendered card.

`card_library/search.ts` makes the search documents. A search document has the values of a card's
fields, the card's types (`_types`), and the names and types of the fields (`_fields`). A search
first reads from the index which card types and fields exist. It then compiles the query into one
SQL statement, in which psycopg quotes each value of the query as a literal.
"""

import json
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.utils import OperationalError
from psycopg import errors as postgres
from psycopg.sql import SQL, Literal

from reindex import sql
from reindex.index.fields import CardType
from reindex.index.query import (
    Query,
)
from reindex.index.search_sql import Compiler, Known

#: The time limit of each SQL statement of a search, in milliseconds. Postgres cancels a statement
#: that exceeds the limit.
TIME_LIMIT_MS = 5000


class SearchTimeout(Exception):
    """The search took longer than {seconds} s. A simpler query takes less time"""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").format(seconds=TIME_LIMIT_MS / 1000))


@dataclass(frozen=True)
class SearchResult:
    """One page of search results. `paths` has the paths of the cards on this page, without `.json`.
    `total` is the number of cards on all pages. `generation` is the generation of the realm from
    which the index was made."""

    generation: int
    total: int
    paths: list[str]


def search(
    realm_url: str, query: Query, *, text: bool = False, known: Known
) -> SearchResult | None:
    """Returns one page of the cards of a realm that match a query. Returns None if the realm has no
    index. `text` is true if all values of the query are text, as in a URL. If the query names a
    card type that no card in the index has, the search gets the type's definition from `known`.
    Raises InvalidQuery, SearchTimeout."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(TIME_LIMIT_MS)))
            shown = SQL(sql.IS_SHOWN).format(realm=Literal(realm_url))
            cursor.execute(SQL(sql.TYPES_OF_CARDS).format(shown=shown))
            types = [CardType(tuple(_document(t)), _document(f)) for t, f in cursor if t and f]
            compiler = Compiler(realm_url, types, text, known)
            page = query.page
            cursor.execute(
                SQL(sql.SEARCH).format(
                    shown=shown,
                    realm=Literal(realm_url),
                    condition=compiler.filter(query.filter, None, ("filter",)),
                    order=compiler.order(query),
                    after=Literal(page.number * page.size),
                    until=Literal((page.number + 1) * page.size),
                )
            )
            row = cursor.fetchone()
    except OperationalError as error:
        if isinstance(error.__cause__, postgres.QueryCanceled):
            raise SearchTimeout from error
        raise
    return SearchResult(*row) if row else None


def _document(column: Any) -> Any:
    return json.loads(column) if isinstance(column, str) else column

"""Compiles a search query into SQL conditions and sort keys on the search documents of cards."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, LiteralString, TypeAlias

from psycopg import sql
from psycopg.types.json import Jsonb

from definitions.extensions import stem
from reindex.index.fields import CardType, FieldPlace, Fields, fields_of_definition, place_of
from reindex.index.query import (
    MAX_CONDITIONS,
    Filter,
    InvalidQuery,
    Query,
    Range,
    TypeRef,
    pointer_to,
)
from reindex.index.shown import TEXT_CONFIG
from reindex.index.words import ts_query
from reindex.reading.references import BASE_MODULE, card_at, joined, resolve_module

Steps: TypeAlias = tuple[object, ...]
#: A function that returns the definition of a card type, or None if the card type doesn't exist.
#: The function's arguments are the URL of the card type's module and the name of the export.
Known: TypeAlias = Callable[[str, str], dict[str, Any] | None]

_TRUE, _FALSE = sql.SQL("TRUE"), sql.SQL("FALSE")
#: The text format of the values of `date()` fields (`card_library/fields.ts`).
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_EVERY_CARD: Fields = {"id": "id", "_title": "string"}
_TEXT = ("string", "markdown", "image", "any")
_RANGES: dict[str, LiteralString] = {"gt": " > ", "gte": " >= ", "lt": " < ", "lte": " <= "}
_BOOLEANS = {"true": True, "false": False}


class Compiler:
    """Compiles the filters and sort keys of a query into SQL.

    Two parameters are common to several methods. `on` is the key of the card type that has the
    fields of a condition (see `CardType`), or None for the fields of all card types. `at` has the
    keys and list indexes that lead to a part of the query, so that errors can name the part.
    """

    def __init__(self, realm_url: str, types: list[CardType], text: bool, known: Known) -> None:
        self._realm_url, self._types, self._text, self._known = realm_url, types, text, known
        self._conditions = 0

    # --- filters ---

    def filter(self, wanted: Filter | None, on: str | None, at: Steps) -> sql.Composable:
        """Returns an SQL condition on the row `c` of a card. The condition holds if the card
        matches a filter."""
        if wanted is None:
            return _TRUE
        parts = list(self._parts(wanted, on, at))
        if not parts:
            expected = ", ".join(Filter.CONDITIONS)
            raise InvalidQuery(pointer_to(*at), f"has no condition; expected one of {expected}")
        return _all_or_any(" AND ", parts)

    def _parts(self, wanted: Filter, on: str | None, at: Steps) -> Iterator[sql.Composable]:
        for key, ref in (("on", wanted.on), ("type", wanted.type)):
            if ref is not None:
                self._count(at)
                on = self._type(ref, (*at, key))
                yield _contains({"_types": [on]})
        # `on` only selects the type, so the filter needs another condition.
        if wanted.on is not None and wanted.model_fields_set <= {"on"}:
            raise InvalidQuery(pointer_to(*at), "has no condition besides the type")
        if wanted.any is not None:
            yield _all_or_any(" OR ", self._each(wanted.any, on, (*at, "any")))
        if wanted.every is not None:
            yield _all_or_any(" AND ", self._each(wanted.every, on, (*at, "every")))
        if wanted.not_ is not None:
            yield sql.SQL("NOT {}").format(self.filter(wanted.not_, on, (*at, "not")))
        operators: dict[str, tuple[dict[str, Any] | None, Callable[..., sql.Composable]]] = {
            "eq": (wanted.eq, self._eq),
            "contains": (wanted.contains, self._contains),
            "in": (wanted.in_, self._in),
            "range": (wanted.range, self._range),
        }
        for key, (named, make) in operators.items():
            for name, value in (named or {}).items():
                where = (*at, key, name)
                yield self._somewhere(name, on, where, partial(make, value=value, at=where))
        if wanted.matches is not None:
            self._count(at)
            yield sql.SQL(
                "to_tsvector({config}, COALESCE((c.search ->> '_text'), '')) @@"
                " to_tsquery({config}, {words})"
            ).format(config=_config(), words=sql.Literal(ts_query(wanted.matches)))

    def _each(self, filters: list[Filter], on: str | None, at: Steps) -> list[sql.Composable]:
        return [self.filter(each, on, (*at, place)) for place, each in enumerate(filters)]

    def _somewhere(
        self, name: str, on: str | None, at: Steps, make: Callable[[FieldPlace], sql.Composable]
    ) -> sql.Composable:
        """Returns an SQL condition on the field `name`. Each card type may store the field at
        another place. `make` makes the condition for one place, and `_somewhere` joins these
        conditions with OR. Raises InvalidQuery if the query's value is invalid for every place."""
        self._count(at)
        made: list[sql.Composable] = []
        wrong: InvalidQuery | None = None
        for place in self._places(name, on, at):
            try:
                made.append(make(place))
            except InvalidQuery as error:
                wrong = error
        if wrong is not None and not made:
            raise wrong
        return _all_or_any(" OR ", made)

    def _eq(self, place: FieldPlace, value: Any, at: Steps) -> sql.Composable:
        if value is None:
            nothing = f"{place.jsonpath} ? (@ != null)"
            return sql.SQL("NOT {}").format(_exists(nothing, {}))
        checked = self._value(place, value, at)
        if place.type == "link":
            checked = {"id": checked}
        return _contains(place.document(checked))

    def _in(self, place: FieldPlace, value: list[Any], at: Steps) -> sql.Composable:
        each = [self._eq(place, one, (*at, number)) for number, one in enumerate(value)]
        return _all_or_any(" OR ", each)

    def _contains(self, place: FieldPlace, value: Any, at: Steps) -> sql.Composable:
        if place.type not in _TEXT:
            raise InvalidQuery(pointer_to(*at), f"{_described(place)} can't contain text; use eq")
        if not isinstance(value, str):
            raise InvalidQuery(pointer_to(*at), f"should be text, not {_kind(value)}")
        anywhere = sql.SQL(
            "EXISTS (SELECT FROM jsonb_path_query(c.search, {path}::jsonpath) AS v"
            " WHERE jsonb_typeof(v) = 'string' AND strpos(lower(v #>> '{{}}'), lower({text})) > 0)"
        ).format(path=sql.Literal(f"{place.jsonpath}[*]"), text=sql.Literal(value))
        if not place.plain:
            return anywhere
        # Postgres checks this condition for every card of the realm, so its speed matters. The
        # condition below has the same result as `anywhere`. It takes less than half the time,
        # because it has no JSON path.
        return sql.SQL(
            "(COALESCE(strpos(lower(c.search ->> {name}), lower({text})), 0) > 0"
            " AND jsonb_typeof(c.search -> {name}) = 'string')"
        ).format(name=sql.Literal(place.names[0]), text=sql.Literal(value))

    def _range(self, place: FieldPlace, value: Range, at: Steps) -> sql.Composable:
        if place.type not in ("number", "date", "string", "any"):
            raise InvalidQuery(pointer_to(*at), f"{_described(place)} has no order; use eq")
        bounds = value.model_dump(exclude_unset=True)
        if not bounds:
            raise InvalidQuery(pointer_to(*at), "has no bound; expected gt, gte, lt or lte")
        values: dict[str, Any] = {}
        for key, bound in bounds.items():
            if bound is None or isinstance(bound, bool):
                raise InvalidQuery(pointer_to(*at, key), f"{_kind(bound)} can't be a bound")
            values[key] = self._value(place, bound, (*at, key))
        if place.plain and place.type == "number":
            # As in `_contains`, a condition without a JSON path is faster.
            stored = sql.SQL("c.search -> {}").format(sql.Literal(place.names[0]))
            parts: list[sql.Composable] = [
                stored + sql.SQL(_RANGES[key]) + sql.Literal(Jsonb(each))
                for key, each in values.items()
            ]
            parts.append(sql.SQL("jsonb_typeof({}) = 'number'").format(stored))
            return sql.SQL("COALESCE({}, FALSE)").format(_all_or_any(" AND ", parts))
        tests = " && ".join(f"@ {_RANGES[key]}${key}" for key in values)
        return _exists(f"{place.jsonpath} ? ({tests})", values)

    # --- sorting ---

    def order(self, query: Query) -> sql.Composable:
        """Returns the SQL sort keys, separated by commas. The last sort key is a constant, so the
        SQL is never empty."""
        keys = [
            self._sort_key(sort.by, sort.on, sort.direction, ("sort", number))
            for number, sort in enumerate(query.sort)
        ]
        return sql.SQL(", ").join([*keys, sql.SQL("NULL::integer")])

    def _sort_key(self, by: str, ref: TypeRef | None, direction: str, at: Steps) -> sql.Composable:
        on = self._type(ref, (*at, "on")) if ref else None
        place = self._places("id" if by == "cardURL" else by, on, (*at, "by"))[0]
        if place.many or place.type in ("card", "link"):
            raise InvalidQuery(pointer_to(*at, "by"), f"{_described(place)} can't be sorted by")
        key = sql.SQL(
            "lower(c.search #>> {path})" if place.type in ("string", "markdown", "image", "id")
            else "NULLIF(c.search #> {path}, 'null')"
        ).format(path=sql.Literal(place.names))  # fmt: skip
        if on is not None:
            key = sql.SQL("CASE WHEN {} THEN {} END").format(_contains({"_types": [on]}), key)
        down = sql.SQL("DESC" if direction == "desc" else "ASC")
        return sql.SQL("{key} {down} NULLS LAST").format(key=key, down=down)

    # --- types, fields, values ---

    def _type(self, ref: TypeRef, at: Steps) -> str:
        """Returns the key of the card type that a query refers to. Raises InvalidQuery if the card
        type doesn't exist."""
        module = resolve_module(ref.module, self._realm_url)
        if module is not None:
            key = f"{_module_key(module)}/{ref.name}"
            if any(key in each.keys for each in self._types):
                return key
            definition = self._known(module, ref.name)
            if definition is not None:
                self._types.append(CardType((key,), fields_of_definition(definition)))
                return key
        what = f"there is no card type {ref.name!r} in the module {module or ref.module!r}"
        raise InvalidQuery(pointer_to(*at), what)

    def _places(self, name: str, on: str | None, at: Steps) -> list[FieldPlace]:
        """Returns the places at which search documents store a field. Considers the card type `on`
        or, if the realm has only cards of types that extend `on`, these types. If `on` is None,
        considers all types. Raises InvalidQuery if no considered type has the field."""
        of = [each for each in self._types if on is None or on in each.keys]
        exact = [each for each in of if on is not None and each.keys[0] == on]
        places = {
            place: None
            for each in exact or of
            if (place := place_of({**each.fields, **_EVERY_CARD}, name.split("."))) is not None
        }
        if not places:
            if not of:
                raise InvalidQuery(pointer_to(*at), f"the realm has no cards with a field {name!r}")
            names = {field for each in exact or of for field in each.fields}
            owner = on.rsplit("/", 1)[-1] if on else "the realm's cards"
            known = ", ".join(sorted(names)[:50])
            raise InvalidQuery(
                pointer_to(*at), f"{name!r} is not a field of {owner}; its fields are {known}"
            )
        return list(places)

    def _value(self, place: FieldPlace, value: Any, at: Steps) -> Any:
        """Converts a value of a query to the form that search documents store. Raises InvalidQuery
        if the field can't have that value."""
        if self._text and isinstance(value, str):
            value = _from_text(place.type, value)
        right = False
        match place.type:
            case "any":
                right = True
            case "number":
                right = isinstance(value, int | float) and not isinstance(value, bool)
            case "boolean":
                right = isinstance(value, bool)
            case "date":
                value = _moment(value)
                right = value is not None
            case "id" | "link":
                right = isinstance(value, str)
                if right:
                    value = _card_url(value, self._realm_url)
                    right = value is not None
            case "card":
                named = ", ".join(f"{place.names[-1]}.{field}" for field in place.fields)
                raise InvalidQuery(pointer_to(*at), f"is a card; use one of its fields: {named}")
            case _:
                right = isinstance(value, str)
        if not right:
            raise InvalidQuery(
                pointer_to(*at), f"should be {_EXPECTED.get(place.type, 'another value')}"
            )
        return value

    def _count(self, at: Steps) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidQuery(pointer_to(*at), f"a query has {MAX_CONDITIONS} conditions at most")


_EXPECTED = {
    "number": "a number",
    "boolean": "true or false",
    "date": "a date such as 2026-03-01 or 2026-03-01T09:30:00Z",
    "id": "the URL of a card",
    "link": "the URL of a card",
    "string": "text",
    "markdown": "text",
    "image": "text",
}


def _module_key(module: str) -> str:
    """Returns the part of a card type's key that identifies the module: the module's URL without
    its extension, or `@realm/base` for the card library. `typeKey` in `card_library/search.ts`
    makes the keys in the index, in the same form."""
    name = stem(module)
    return "@realm/base" if name == stem(BASE_MODULE) else name


def _moment(value: Any) -> str | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment.strftime('%Y').zfill(4)}{moment.isoformat(timespec='milliseconds')[4:23]}Z"


def _card_url(value: str, realm_url: str) -> str | None:
    url = joined(realm_url, value)
    return None if url is None else card_at(url)


def _from_text(kind: str, value: str) -> Any:
    """Converts text from a URL to the type of a field. Returns the text unchanged if it can't be
    converted."""
    if kind == "boolean":
        return _BOOLEANS.get(value, value)
    if kind == "number" and re.fullmatch(r"-?\d{1,300}(\.\d{1,300})?", value, re.ASCII):
        return float(value) if "." in value else int(value)
    return value


def _described(place: FieldPlace) -> str:
    kind = {"card": "a card", "link": "a link", "id": "a URL"}.get(place.type, f"a {place.type}")
    return f"{'.'.join(place.names)}, {'a list' if place.many else kind},"


def _kind(value: Any) -> str:
    return "null" if value is None else "a truth value" if isinstance(value, bool) else "a number"


def _contains(document: Any) -> sql.Composable:
    return sql.SQL("c.search @> {}").format(sql.Literal(Jsonb(document)))


def _exists(path: str, values: dict[str, Any]) -> sql.Composable:
    return sql.SQL("jsonb_path_exists(c.search, {path}::jsonpath, {values}, true)").format(
        path=sql.Literal(path), values=sql.Literal(Jsonb(values))
    )


def _config() -> sql.Composable:
    return sql.SQL("{}::regconfig").format(sql.Literal(TEXT_CONFIG))


def _all_or_any(operator: Literal[" AND ", " OR "], parts: list[sql.Composable]) -> sql.Composable:
    """Joins SQL conditions with an operator. If `parts` is empty, the result is TRUE for AND and
    FALSE for OR."""
    if not parts:
        return _TRUE if operator == " AND " else _FALSE
    return sql.SQL("({})").format(sql.SQL(operator).join(parts))

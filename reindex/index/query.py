"""Parses search queries, and reports their errors with positions.

A query is JSON, or the same structure in a URL's query string
(`filter[eq][title]=Home&page[size]=10`). All values in a URL are text. Before the search compares
such a value with a field, it converts the value to the field's type.
"""

import json
import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote_plus

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from notifications.texts import is_storable, whole_number
from reindex.reading.strict_json import finite_only

#: The limits of a query.
MAX_DEPTH = 10  # levels of nested filters
MAX_CONDITIONS = 100
MAX_VALUES = 500  # values in an `in` list
MAX_TEXT = 1000  # characters in a name or in `matches`
MAX_PAGE_SIZE = 100  # cards on a page

_KEY = re.compile(r"[^\[\]]+|\[([^\[\]]*)\]")


class InvalidQuery(ValueError):
    """{pointer}: {why}"""

    def __init__(self, pointer: str, why: str) -> None:
        self.pointer, self.why = pointer, why
        super().__init__((type(self).__doc__ or "").format(pointer=pointer or "/", why=why))


def pointer_to(*steps: object) -> str:
    """Returns the JSON pointer (RFC 6901) that consists of `steps`."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError("should be text, a number, true, false or null")
    return value


def _whole(value: Any) -> Any:
    """Converts a number that is written as text, as in a URL."""
    number = whole_number(value, digits=9) if isinstance(value, str) else None
    return value if number is None else number


Value = Annotated[Any, AfterValidator(_scalar)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TypeRef(_Part):
    """A reference to a card type, which `module` exports under the name `name`. The URL `module`
    may be relative to the realm's URL."""

    module: Name
    name: Name


class Range(_Part):
    """The lower and upper bounds of a field's value."""

    gt: Value = None
    gte: Value = None
    lt: Value = None
    lte: Value = None


class Filter(_Part):
    """A set of conditions. A card matches a filter if the card meets all conditions. If `on` is
    given, only cards of the type `on` match, and the conditions refer to the fields of this type.
    """

    CONDITIONS: ClassVar = (
        "type", "any", "every", "not", "eq", "contains", "in", "range", "matches",
    )  # fmt: skip

    type: TypeRef | None = None
    on: TypeRef | None = None
    any: list["Filter"] | None = None
    every: list["Filter"] | None = None
    not_: "Filter | None" = Field(None, alias="not")
    eq: dict[Name, Value] | None = None
    contains: dict[Name, Value] | None = None
    in_: dict[Name, Annotated[list[Value], Field(max_length=MAX_VALUES)]] | None = Field(
        None, alias="in"
    )
    range: dict[Name, Range] | None = None
    matches: Annotated[str, Field(max_length=MAX_TEXT)] | None = None


class Sort(_Part):
    """A sort key. The results are sorted by the field `by`. If `on` is given, the key applies only
    to cards of the type `on`, and all other cards come after them."""

    by: Name
    on: TypeRef | None = None
    direction: Literal["asc", "desc"] = "asc"


class Page(_Part):
    """A page of the search results. The first page has the number 0."""

    number: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1_000_000)] = 0
    size: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_PAGE_SIZE)] = 20


class Query(_Part):
    """A search query: a filter, sort keys and a page."""

    filter: Filter | None = None
    sort: Annotated[list[Sort], Field(max_length=10)] = []
    page: Page = Page()


def parse_json(body: bytes) -> Query:
    """Parses the query in a request's JSON body. An empty body is a query that every card matches.
    Raises InvalidQuery."""
    try:
        value = json.loads(body or b"{}", parse_float=finite_only, parse_constant=finite_only)
    except (ValueError, RecursionError) as error:
        raise InvalidQuery("", f"the query is not valid JSON: {error}") from error
    return _parsed(value)


def parse_url(text: str) -> Query:
    """Parses the query in a URL's query string. Raises InvalidQuery."""
    root: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        key, equals, value = pair.partition("=")
        try:
            name, text = unquote_plus(key, errors="strict"), unquote_plus(value, errors="strict")
        except UnicodeDecodeError as error:
            raise InvalidQuery("", f"{pair[:80]!r} is not valid UTF-8") from error
        # The parameter `acceptHeader` selects the response's media type and is not part of the
        # query.
        if name != "acceptHeader":
            _place(root, name, text if equals else None)
    return _parsed({key: _lists(each) for key, each in root.items()})


def _place(root: dict[str, Any], name: str, value: str | None) -> None:
    steps = [match[1] if match[0].startswith("[") else match[0] for match in _KEY.finditer(name)]
    if "".join(match[0] for match in _KEY.finditer(name)) != name or not steps:
        raise InvalidQuery("", f"{name[:80]!r} is not a name such as filter[eq][title]")
    if len(steps) > 2 * MAX_DEPTH + 4:
        raise InvalidQuery("", f"{name[:80]!r} is nested too deep")
    here = root
    for at, step in enumerate(steps):
        step = step or str(len(here))
        if at == len(steps) - 1:
            if step in here:
                raise InvalidQuery(pointer_to(*steps), "is given twice")
            here[step] = value
        else:
            here = here.setdefault(step, {})
            if not isinstance(here, dict):
                raise InvalidQuery(pointer_to(*steps[: at + 1]), "is given twice")


def _lists(value: Any) -> Any:
    """Turns objects with the keys 0, 1, 2 … into lists."""
    if not isinstance(value, dict):
        return value
    inner = {key: _lists(each) for key, each in value.items()}
    if sorted(inner) == sorted(str(place) for place in range(len(inner))):
        return [inner[str(place)] for place in range(len(inner))]
    return inner


def _parsed(value: Any) -> Query:
    if not isinstance(value, dict):
        raise InvalidQuery("", "the query should be a JSON object")
    _check(value, 0, ())
    try:
        return Query.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        steps = [step for step in fault["loc"] if step != "[key]"]
        why = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            why = "is not known here"
        raise InvalidQuery(pointer_to(*steps), why) from error


def _check(value: Any, depth: int, steps: tuple[object, ...]) -> None:
    """Raises InvalidQuery if a query has text that Postgres can't store, or is nested too deep."""
    if depth > 2 * MAX_DEPTH + 4:
        raise InvalidQuery(pointer_to(*steps[:6]), f"filters nest {MAX_DEPTH} deep at most")
    if isinstance(value, str):
        if not is_storable(value):
            raise InvalidQuery(pointer_to(*steps), "has a character that can't be stored")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check(key, depth, steps)
            _check(each, depth + 1, (*steps, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            _check(each, depth + 1, (*steps, place))

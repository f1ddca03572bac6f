"""Checks the prerenderer's results before the index stores them.

Card code can manipulate results, so a result may be any JSON. A valid result has the form and the
size that the index, the search and the pages rely on. An invalid result becomes an error of its own
card or module, and affects no other result.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from reindex.reading.strict_json import BrokenDocument

Message: TypeAlias = dict[str, Any]

#: The maximum size of a card's HTML and search document together, so that its row isn't too large.
#: Unit: bytes.
MAX_RESULT = 8_000_000

#: The maximum length of a card's searchable text. The card library has the same limit. Postgres can
#: index a text of ten times this length. A text that Postgres can't index would make the swap fail
#: for all cards. Unit: characters.
MAX_TEXT = 100_000

#: A card has at most this many warnings, and at most this many references. `deno/cards.ts` has the
#: same limit of warnings, and the card library's `referencesOf` the same limit of references.
MAX_WARNINGS = 20
MAX_REFERENCES = 1_000

#: The maximum length of each text in an error. Unit: characters.
MAX_WORDS = 4_000
MAX_CAUSES = 10


def _cut(value: Any) -> Any:
    match value:
        case str() if len(value) > MAX_WORDS:
            return f"{value[:MAX_WORDS]} …"
        case list():
            return value[:MAX_CAUSES]
    return value


_Words = Annotated[str, BeforeValidator(_cut)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Error(_Strict):
    status: Annotated[int, Field(ge=400, le=599)]
    title: _Words
    message: _Words
    causes: Annotated[list[_Words], BeforeValidator(_cut)] = []
    card: _Words | None = None
    field: _Words | None = None
    module: _Words | None = None
    line: Annotated[int, Field(ge=1, lt=10**9)] | None = None
    dependencies: Annotated[list["_Error"], BeforeValidator(_cut)] = []


class _CodeRef(_Strict):
    module: Annotated[str, Field(max_length=MAX_WORDS)]
    name: Annotated[str, Field(max_length=MAX_WORDS)]


class _Shape(
    RootModel[
        "str | dict[str, _Shape] | Annotated[list[_Shape], Field(min_length=1, max_length=1)]"
    ]
):
    """The type of a searchable field: a plain type, a card's fields, or a list of one of these."""


class _Search(_Strict):
    type: Annotated[_CodeRef, Field(alias="_type")]
    types: Annotated[list[str], Field(alias="_types")]
    fields: Annotated[dict[str, _Shape], Field(alias="_fields")]
    text: Annotated[str, Field(alias="_text", max_length=MAX_TEXT)]


class _Warning(_Strict):
    key: _Words
    message: _Words


class _Reference(_Strict):
    key: _Words
    url: str
    kind: Literal["image", "link"]


class _Rendered(_Strict):
    html: dict[str, str]
    search: _Search
    links: list[str]
    warnings: Annotated[list[_Warning], Field(max_length=MAX_WARNINGS)]
    references: Annotated[list[_Reference], Field(max_length=MAX_REFERENCES)]


class _Field(_Strict):
    kind: str
    type: str | _CodeRef
    computed: bool


class _Definition(_Strict):
    codeRef: _CodeRef
    displayName: str
    fields: dict[str, _Field]
    adoptionChain: list[_CodeRef]


class _Defined(_Strict):
    definitions: dict[str, _Definition]


def checked_card(result: Message) -> Message:
    """Checks a card's result from the prerenderer. Returns `html`, `search` and `links`, or an
    `error`."""
    base = {"type": "card", "url": result["url"], "ms": _milliseconds(result.get("ms"))}
    if result.get("size", 0) > MAX_RESULT:
        why = f"its result has {result['size']} bytes; the limit is {MAX_RESULT}"
        return base | failed(result["url"], why)
    error = _error(result)
    if error is not None:
        return {**base, "error": error}
    if "error" not in result and _is(_Rendered, result):
        return {**base, **{key: result[key] for key in _Rendered.model_fields}}
    return base | failed(result["url"], "its result has an invalid form")


def checked_definitions(result: Message) -> Message:
    """Checks a module's result from the prerenderer. Returns `definitions` or an `error`."""
    if result.get("size", 0) > MAX_RESULT:
        why = f"its definitions have {result['size']} bytes; the limit is {MAX_RESULT}"
        return not_built(500, why)
    error = _error(result)
    if error is not None:
        return {"error": error}
    if "error" not in result and _is(_Defined, result):
        return {"definitions": result["definitions"]}
    return not_built(500, "the module's definitions have an invalid form")


def failed(url: str, why: object) -> Message:
    """Returns the error result of a card that could not be rendered."""
    error = {
        "status": 500,
        "title": "Render Failed",
        "message": f"this card could not be rendered: {why}",
        "causes": [],
        "card": url,
    }
    return {"type": "card", "url": url, "error": error}


def broken_card(error: BrokenDocument) -> Message:
    """Returns the error document of a card with a broken file."""
    # The prefix that the fields and links of all cards share is left out.
    field = error.field.removeprefix("data.attributes.").removeprefix("data.relationships.")
    return {
        "status": 422,
        "title": "The card's file is broken",
        "message": _cut(str(error)),
        "causes": [],
        **({"field": _cut(field)} if field else {}),
    }


def not_built(status: int, why: object) -> Message:
    """Returns the error result of a module that could not be built."""
    return {"error": {"status": status, "title": "Build Failed", "message": str(why)}}


def _error(result: Message) -> Message | None:
    if "error" not in result:
        return None
    try:
        return _Error.model_validate(result.get("error")).model_dump(exclude_unset=True)
    except ValidationError:
        return None


def _is(form: type[BaseModel], result: Message) -> bool:
    try:
        form.model_validate(result)
    except ValidationError:
        return False
    return True


def _milliseconds(value: Any) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 <= value < 1e9 else 0

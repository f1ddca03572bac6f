"""Checks the prerenderer's results before the index stores them.

The prerenderer is a Deno process that runs card code. Card code can manipulate results, so a result
may be any JSON. A valid result has the form and the size that the index, the search and the pages
rely on. An invalid result becomes an error of its own card or module, and affects no other result.
"""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from reindex.reading.strict_json import BrokenDocument

Message: TypeAlias = dict[str, Any]
_Form = TypeVar("_Form", bound=BaseModel)

#: The maximum size of the JSON of one result, for a card or for a module's definitions. The limit
#: bounds the size of a row in the database. Unit: bytes.
MAX_RESULT = 8_000_000

#: The maximum length of a card's searchable text. The card library has the same limit
#: (`card_library/search.ts`). A single text that Postgres can't index would prevent the swap, which
#: shows all new cards of a job to visitors. Postgres can index a text of ten times this length.
#: Unit: characters.
MAX_TEXT = 100_000

#: The maximum numbers of a card's warnings and references. `deno/cards.ts` also limits the warnings
#: to MAX_WARNINGS. The card library's `referencesOf` also limits the references to MAX_REFERENCES.
MAX_WARNINGS = 20
MAX_REFERENCES = 1_000

#: The maximum length of each text in an error or a warning. A longer text is cut. Unit: characters.
MAX_WORDS = 4_000
#: An error has at most this many causes, and at most this many `dependencies`, which are errors of
#: imported modules.
MAX_CAUSES = 10


def cut(value: Any) -> Any:
    """Cuts a text to MAX_WORDS characters, and a list to MAX_CAUSES items."""
    match value:
        case str() if len(value) > MAX_WORDS:
            return f"{value[:MAX_WORDS]} …"
        case list():
            return value[:MAX_CAUSES]
    return value


_Words = Annotated[str, BeforeValidator(cut)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Error(_Strict):
    status: Annotated[int, Field(ge=400, le=599)]
    title: _Words
    message: _Words
    causes: Annotated[list[_Words], BeforeValidator(cut)] = []
    card: _Words | None = None
    field: _Words | None = None
    module: _Words | None = None
    line: Annotated[int, Field(ge=1, lt=10**9)] | None = None
    dependencies: Annotated[list["_Error"], BeforeValidator(cut)] = []


class _CodeRef(_Strict):
    module: Annotated[str, Field(max_length=MAX_WORDS)]
    name: Annotated[str, Field(max_length=MAX_WORDS)]


class _Shape(
    RootModel[
        "str | dict[str, _Shape] | Annotated[list[_Shape], Field(min_length=1, max_length=1)]"
    ]
):
    """The type of a searchable field. It is the name of a plain type, a dictionary from a card's
    field names to their types, or a list with one such type."""


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
    """Checks a card's result from the prerenderer. Returns the fields of `_Rendered` if the result
    is valid. Returns an `error` if the result is invalid or is itself an error."""
    base = {"type": "card", "url": result["url"], "ms": _milliseconds(result.get("ms"))}
    if result.get("size", 0) > MAX_RESULT:
        why = f"its result has {result['size']} bytes; the limit is {MAX_RESULT}"
        return base | failed(result["url"], why)
    error = _error(result)
    if error is not None:
        return {**base, "error": error}
    rendered = _valid(_Rendered, result)
    if "error" not in result and rendered is not None:
        sent = {key: result[key] for key in _Rendered.model_fields}
        # In the `warnings` and `references` of `rendered`, long texts are cut.
        return {**base, **sent, **rendered.model_dump(include={"warnings", "references"})}
    return base | failed(result["url"], "its result has an invalid form")


def checked_definitions(result: Message) -> Message:
    """Checks a module's result from the prerenderer. Returns `definitions` if the result is valid.
    Returns an `error` if the result is invalid or is itself an error."""
    if result.get("size", 0) > MAX_RESULT:
        why = f"its definitions have {result['size']} bytes; the limit is {MAX_RESULT}"
        return not_built(500, why)
    error = _error(result)
    if error is not None:
        return {"error": error}
    if "error" not in result and _valid(_Defined, result) is not None:
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
    # The path of every field begins with `data.attributes.`, and the path of every link begins with
    # `data.relationships.`. The returned `field` leaves out these beginnings.
    field = error.field.removeprefix("data.attributes.").removeprefix("data.relationships.")
    return {
        "status": 422,
        "title": "The card's file is broken",
        "message": cut(str(error)),
        "causes": [],
        **({"field": cut(field)} if field else {}),
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


def _valid(form: type[_Form], result: Message) -> _Form | None:
    """Returns the result as an object of the class `form`; None if the result is invalid."""
    try:
        return form.model_validate(result)
    except ValidationError:
        return None


def _milliseconds(value: Any) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 <= value < 1e9 else 0

"""What the prerenderer answers, made sure of before anything believes it.

Results are made where card code can reach them, so a result may be anything that JSON can say. What
passes here has the form that the index, the search and the pages rely on, and a size that they can
bear; what doesn't is an error of the card or module that it is said to be of, and of no other.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from reindex.reading.strict_json import BrokenDocument

Message: TypeAlias = dict[str, Any]

#: A card's HTML and search document together; a database row has its limits. Unit: bytes.
MAX_RESULT = 8_000_000

#: As much text of a card as the card library has searched. Postgres indexes ten times as much,
#: and else a swap would fail for all cards. Unit: characters.
MAX_TEXT = 100_000

#: What `deno/cards.ts` and `referencesOf` of the card library tell of one card.
MAX_WARNINGS = 20
MAX_REFERENCES = 1_000

#: What an error says at most. Unit: characters.
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
    """Which fields a search may name: a plain type, a card's fields, or a list of one of these."""


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
    """The result for a card: `html`, `search` and `links`, or an `error`."""
    told = {"type": "card", "url": result["url"], "ms": _milliseconds(result.get("ms"))}
    if result.get("size", 0) > MAX_RESULT:
        why = f"it comes to {result['size']} bytes; at most {MAX_RESULT} are kept"
        return told | failed(result["url"], why)
    error = _error(result)
    if error is not None:
        return {**told, "error": error}
    if "error" not in result and _is(_Rendered, result):
        return {**told, **{key: result[key] for key in _Rendered.model_fields}}
    return told | failed(result["url"], "its result is not one")


def checked_definitions(result: Message) -> Message:
    """The result for a module: `definitions` or an `error`."""
    if result.get("size", 0) > MAX_RESULT:
        why = f"its definitions come to {result['size']} bytes; at most {MAX_RESULT} are kept"
        return not_built(500, why)
    error = _error(result)
    if error is not None:
        return {"error": error}
    if "error" not in result and _is(_Defined, result):
        return {"definitions": result["definitions"]}
    return not_built(500, "what the module defines is not what definitions are")


def failed(url: str, why: object) -> Message:
    """The result for a card of which nothing usable came back."""
    error = {
        "status": 500,
        "title": "Render Failed",
        "message": f"rendering this card failed as a whole: {why}",
        "causes": [],
        "card": url,
    }
    return {"type": "card", "url": url, "error": error}


def broken_card(error: BrokenDocument) -> Message:
    """The error document of a card whose file is broken."""
    told = {"status": 422, "title": "The card's file is broken", "message": _cut(str(error))}
    # Fields and links are named without what every card has around them.
    field = error.field.removeprefix("data.attributes.").removeprefix("data.relationships.")
    return {**told, "causes": [], **({"field": _cut(field)} if field else {})}


def not_built(status: int, why: object) -> Message:
    """The result for a module of which nothing usable came back."""
    return {"error": {"status": status, "title": "Build Failed", "message": str(why)}}


def _error(result: Message) -> Message | None:
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
    told = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return int(value) if told else 0

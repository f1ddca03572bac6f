"""Parses the JSON bodies of requests, and makes the error messages for invalid bodies.

`_create-realm`, `_atomic` and similar names in this module are endpoints. An endpoint's name is the
last segment of a request's path.
"""

import json
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from notifications.texts import check_encodable, check_storable, is_storable
from realms.errors import Malformed
from reindex.reading.strict_json import MAX_DEPTH, finite_only, is_held

M = TypeVar("M", bound=BaseModel)

#: The maximum number of values in a body that is longer than _SMALL_BYTES. A body with many small
#: values can take much memory, because a value of one or two bytes in JSON can become a Python
#: object of fifty bytes or more.
MAX_VALUES = 500_000
#: The values of a body up to this size are not counted. Unit: bytes.
_SMALL_BYTES = 1024 * 1024
#: How many bytes of a body are scanned at a time.
_PIECE_BYTES = 64 * 1024


Text = Annotated[str, AfterValidator(check_storable)]


def check_readable(value: Any, depth: int) -> Any:
    """Checks the nesting, the texts and the integers of a JSON value, and returns the value. The
    value stands in a card's file, within `depth` objects and lists. Raises ValueError with the
    reason if the file couldn't be read back with this value."""
    pending: list[tuple[Any, int]] = [(value, depth)]
    while pending:
        each, outside = pending.pop()
        if isinstance(each, dict | list) and outside >= MAX_DEPTH:
            raise ValueError(f"nests deeper than {MAX_DEPTH} levels")
        if isinstance(each, dict):
            pending += [(part, outside + 1) for pair in each.items() for part in pair]
        elif isinstance(each, list):
            pending += [(part, outside + 1) for part in each]
        elif isinstance(each, str) and not is_storable(each):
            raise ValueError("has a character that can't be stored")
        elif isinstance(each, int) and not is_held(str(each)):
            raise ValueError("has a number that JavaScript can't hold; write it as text")
    return value


#: Checks a value of `data`, such as `attributes`. It stands within the document and `data`.
READABLE = BeforeValidator(partial(check_readable, depth=2))


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class RealmAttributes(_Body):
    """The attributes of a new realm. Here `endpoint` isn't an API endpoint, but the last segment of
    the realm's URL, `<origin>/<owner>/<endpoint>/`."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=200)]
    name: Annotated[Text, StringConstraints(min_length=1, max_length=500)]
    backgroundURL: Text | None = None
    iconURL: Text | None = None


class _CreateData(_Body):
    type: Literal["realm"]
    attributes: RealmAttributes


class CreateRealm(_Body):
    """The body of a request to `_create-realm`."""

    data: _CreateData


class PublishRealm(_Body):
    """The body of a request to `_publish-realm`."""

    sourceRealmURL: Text
    publishedRealmURL: Text


class UnpublishRealm(_Body):
    """The body of a request to `_unpublish-realm`."""

    publishedRealmURL: Text


class _DeleteData(_Body):
    type: Literal["realm"]
    id: Text


class DeleteRealm(_Body):
    """The body of a request to `_delete-realm`."""

    data: _DeleteData


class Session(_Body):
    """The body of a request to `_server-session` for a server token, or to a realm's `_session` for
    a realm token."""

    username: Text
    password: Text
    lifetime: Literal["standard", "extended"] = "standard"

    @property
    def seconds(self) -> int:
        """The lifetime of the requested token in seconds."""
        return 24 * 3600 * (7 if self.lifetime == "extended" else 1)


class _Permissions(_Body):
    permissions: dict[Text, list[Literal["read", "write", "realm-owner"]] | None]


class _PermissionsData(_Body):
    type: Literal["permissions"]
    attributes: _Permissions


class PatchPermissions(_Body):
    """The body of a PATCH request to a realm's `_permissions`."""

    data: _PermissionsData


class _SourceAttributes(_Body):
    content: Annotated[str, AfterValidator(check_encodable)]


class SourceResource(_Body):
    """A text file that an `_atomic` request writes."""

    type: Literal["source"]
    attributes: _SourceAttributes


class _AdoptsFrom(_Body):
    module: Text
    name: Text


class _CardMeta(_Body):
    adoptsFrom: _AdoptsFrom


class CardResource(_Body):
    """A card that an `_atomic` request writes, as a JSON:API resource."""

    type: Literal["card"]
    attributes: Annotated[dict[str, Any], READABLE] = Field(default_factory=dict)
    relationships: Annotated[dict[str, Any], READABLE] = Field(default_factory=dict)
    meta: Annotated[_CardMeta, READABLE]


class Operation(_Body):
    """One operation of an `_atomic` request, which writes one file."""

    op: Literal["add", "update"]
    href: Annotated[Text, StringConstraints(min_length=1)]
    data: Annotated[SourceResource | CardResource, Field(discriminator="type")]


class Atomic(_Body):
    """The body of a request to `_atomic`. `realms/cards/atomic.py` validates each operation on its
    own, so that one error can report all invalid operations."""

    operations: list[Any] = Field(alias="atomic:operations")


def parse(model: type[M], body: bytes) -> M:
    """Parses a JSON body and validates it as an instance of `model`. Raises Malformed if the body
    is not a JSON object or has too many values. If fields are invalid, raises one Malformed with a
    reason for each invalid field."""
    if len(body) > _SMALL_BYTES and _has_too_many_values(body):
        raise Malformed(what=f"Request body has more than {MAX_VALUES:,} values")
    try:
        value = json.loads(body, parse_float=finite_only, parse_constant=finite_only)
    except (ValueError, RecursionError) as error:
        raise Malformed(what=f"Request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(what=f"Request body must be a JSON object, not {_kind(value)}")
    return checked(model, value)


def _has_too_many_values(body: bytes) -> bool:
    """Returns whether a JSON body has more than MAX_VALUES values. Counts the commas and opening
    brackets outside of strings, because nearly every value follows one of them.

    Scans the body in pieces, so that other threads can run between two pieces. A backslash outside
    of a string makes the count wrong, but a body with such a backslash is not JSON anyway.
    """
    values, in_string, rest = 0, False, b""
    for start in range(0, len(body), _PIECE_BYTES):
        piece = rest + body[start : start + _PIECE_BYTES]
        piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        # If the piece ends with a backslash, the character that the backslash escapes is in the
        # next piece.
        rest = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.removesuffix(rest).split(b'"')
        bare = b"".join(parts[1 if in_string else 0 :: 2])
        in_string ^= len(parts) % 2 == 0
        values += sum(bare.count(mark) for mark in (b",", b"[", b"{"))
        if values > MAX_VALUES:
            return True
    return False


def checked(model: type[M], value: Any, within: str = "") -> M:
    """Validates a value as an instance of `model`. `within` is the value's path in the body, for
    error messages. Raises Malformed."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(step) for step in (within, *fault['loc']) if step != '')}: "
            f"{fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise Malformed(what="; ".join(faults)) from error


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

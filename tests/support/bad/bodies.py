"""Lists request bodies that every endpoint refuses, and valid bodies with one wrong field."""

from collections.abc import Iterator
from typing import Any

from tests.support.bad.requests import ADAS_PAGE, SITE, Case, endpoint


def created(name: str, body: Any, *says: str) -> Case:
    return endpoint(name, "_create-realm", body, 400, *says)


def realm_document(**attributes: Any) -> Any:
    return {"data": {"type": "realm", "attributes": attributes}}


ENDPOINTS = {
    "_create-realm": "POST",
    "_publish-realm": "POST",
    "_unpublish-realm": "POST",
    "_delete-realm": "DELETE",
    "_server-session": "POST",
}

#: Bodies that every endpoint refuses, by kind, each with words that the error message must have.
BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "half a document": (b'{"data": {"type": "re', "not valid JSON"),
    "single quotes": (b"{'data': 1}", "not valid JSON"),
    "a trailing comma": (b'{"data": 1,}', "not valid JSON"),
    "text after the document": (b"{} {}", "not valid JSON"),
    "invalid UTF-8": (b'{"data": "\xff\xfe"}', "not valid JSON"),
    "a number of 60,000 digits": (b'{"data": ' + b"9" * 60_000 + b"}", "not valid JSON"),
    "a number beyond all floats": (b'{"data": 1e999}', "1e999"),
    "NaN": (b'{"data": NaN}', "NaN"),
    "nesting without end": (b"[" * 60_000, "not valid JSON"),
    "nested objects without end": (b'{"data":' * 8_000, "not valid JSON"),
    "an array": (b"[]", "must be a JSON object, not an array"),
    "a string": (b'"data"', "must be a JSON object, not a string"),
    "null": (b"null", "must be a JSON object, not null"),
    "true": (b"true", "must be a JSON object, not a boolean"),
    "a number": (b"12", "must be a JSON object, not a number"),
    "more than 64 KiB": (b'{"data": "' + b"x" * 65_536 + b'"}', "exceeds maximum allowed size"),
}

WRONG_STRINGS: dict[str, tuple[Any, str]] = {
    "null": (None, "valid string"),
    "a number": (7, "valid string"),
    "true": (True, "valid string"),
    "an array": ([], "valid string"),
    "an object": ({}, "valid string"),
    "a lone surrogate": ("http://ada.localhost:4201/\ud800", ""),
    "a NUL": ("http://ada.localhost:4201/\x00", "NUL"),
}

#: The string fields of each endpoint's body. `RIGHT` has a valid body for each endpoint.
FIELDS: dict[str, tuple[str, ...]] = {
    "_publish-realm": ("sourceRealmURL", "publishedRealmURL"),
    "_unpublish-realm": ("publishedRealmURL",),
    "_create-realm": (
        "data.type",
        "data.attributes.endpoint",
        "data.attributes.name",
        "data.attributes.iconURL",
        "data.attributes.backgroundURL",
    ),
    "_delete-realm": ("data.type", "data.id"),
    "_server-session": ("username", "password"),
}

RIGHT: dict[str, Any] = {
    "_publish-realm": {"sourceRealmURL": SITE, "publishedRealmURL": ADAS_PAGE},
    "_unpublish-realm": {"publishedRealmURL": ADAS_PAGE},
    "_create-realm": realm_document(endpoint="new", name="New", iconURL="/i", backgroundURL="/b"),
    "_delete-realm": {"data": {"type": "realm", "id": SITE}},
    "_server-session": {"username": "ada", "password": "ada"},
}


def replaced(document: Any, place: str, value: Any) -> Any:
    """Returns a copy of `document` with `value` at the dotted path `place`. The value `...` removes
    the field."""
    first, _, rest = place.partition(".")
    inner = replaced(document[first], rest, value) if rest else value
    return {key: inner if key == first else each for key, each in document.items()
            if not (key == first and inner is ...)}  # fmt: skip


def bodies() -> Iterator[Case]:
    """Yields requests that the server's endpoints must refuse. Each endpoint gets each body in
    BODIES. It also gets its valid body in RIGHT, but with one field missing or wrong."""
    for name, method in ENDPOINTS.items():
        for kind, (body, says) in BODIES.items():
            status = 413 if len(body) > 64 * 1024 else 400
            yield endpoint(f"with {kind}", name, body, status, says, method=method)
        yield endpoint("with {}", name, {}, 400, FIELDS[name][0].split(".")[0], method=method)
        for place in FIELDS[name]:
            if not place.endswith(("iconURL", "backgroundURL")):
                without = replaced(RIGHT[name], place, ...)
                yield endpoint(f"without {place}", name, without, 400, place, method=method)
            for kind, (value, says) in WRONG_STRINGS.items():
                if value is None and place.endswith(("iconURL", "backgroundURL")):
                    continue
                if place == "data.type":
                    says = "Input should be"
                if place.endswith("endpoint") and isinstance(value, str):
                    says = ""
                body = replaced(RIGHT[name], place, value)
                yield endpoint(f"with {kind} for {place}", name, body, 400, place, says,
                               method=method)  # fmt: skip
    for place in ("data", "data.attributes"):
        for value in (None, [], "x", 3):
            body = replaced(RIGHT["_create-realm"], place, value)
            yield created(f"with {value!r} for {place}", body, place)
    twice = b'{"publishedRealmURL": "' + ADAS_PAGE.encode() + b'", "publishedRealmURL": 3}'
    yield endpoint("with a key twice", "_unpublish-realm", twice, 400, "publishedRealmURL")

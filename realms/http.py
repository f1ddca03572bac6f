"""What the front and the views share: reading a request's address and giving an answer its form."""

import os
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.http import parse_etags

from realms.errors import Malformed
from realms.serving import Answer, Headers, Variant
from realms.urls_and_paths import public_origin

SOURCE = "application/vnd.card+source"
CARD = "application/vnd.card+json"
API = "application/vnd.api+json"

MIN_GENERATION = "HTTP_X_REALM_MIN_GENERATION"


@lru_cache(maxsize=1024)
def accepted(accept: str) -> str:
    """The first supported media type of an Accept header, `text/html` for browsers, else `*/*`."""
    types = [part.split(";", 1)[0].strip().lower() for part in accept.split(",")]
    if "text/html" in types and not any(each.startswith("application/vnd.") for each in types):
        return "text/html"
    for each in types:
        if each in (SOURCE, CARD, API, "application/json"):
            return each
    return "*/*"


VARIANTS = {SOURCE: Variant.SOURCE, "text/html": Variant.HTML, "*/*": Variant.MODULE}


def request_url(host: str, path_info: str) -> str:
    """The public URL, unescaped, that a request to this replica means.

    Raises UnicodeDecodeError where the path is not valid UTF-8.
    """
    return public_origin(host) + path_info.encode("latin-1").decode()


def min_generation(value: str | None) -> int:
    """The generation that X-Realm-Min-Generation asks for; 0 without one. Raises Malformed."""
    if value is None:
        return 0
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Malformed(what=f"X-Realm-Min-Generation is {value[:40]!r}; expected a whole number")
    return int(value)


@lru_cache(maxsize=1)
def replica_header() -> str:
    """Which replica, and which of its web workers, answers."""
    return f"{settings.REALM_REPLICA}/{os.getpid()}"


def not_modified(answer: Answer, if_none_match: str | None) -> bool:
    """Whether the client has this content already, by RFC 9110's weak comparison."""
    if not if_none_match or answer.content.status != 200:
        return False
    etag = next((value for name, value in answer.headers if name == "etag"), None)
    if etag is None:
        return False
    known = parse_etags(if_none_match)
    return "*" in known or etag in [each.removeprefix("W/") for each in known]


def response_parts(
    answer: Answer, method: str, if_none_match: str | None, cache: str
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an answer to one request. `cache` is `hit` or `miss`."""
    told = (("x-boxel-cache", cache),)
    if not_modified(answer, if_none_match):
        kept = tuple(h for h in answer.headers if h[0] not in ("content-type", "x-created"))
        return 304, kept + told, b""
    body = answer.content.body
    length = ("content-length", str(len(body)))
    return (
        answer.content.status,
        (*answer.headers, length, *told),
        b"" if method == "HEAD" else body,
    )


def respond(request: HttpRequest, answer: Answer, cache: str) -> HttpResponse:
    """An answer as Django's response."""
    status, headers, body = response_parts(
        answer, request.method or "GET", request.headers.get("If-None-Match"), cache
    )
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in headers:
        response[name] = value
    return response

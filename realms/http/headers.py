"""Makes the headers that state an answer's realm and generation, and who may cache and read the
answer.

This module has one function for each kind of answer. Header names are in lower case.
"""

from typing import TypeAlias

from django.conf import settings
from django.http.response import HttpResponseBase

from notifications.channels import EVERY_REALM, surrogate_key
from notifications.short_cached import short_cached

Headers: TypeAlias = tuple[tuple[str, str], ...]

#: The headers that state an answer's realm and generation.
REALM, GENERATION = "x-boxel-realm-url", "x-realm-generation"
#: The usual values of Cache-Control.
NO_STORE = "no-store"
NEVER_SHARED = "private, no-store"
REVALIDATED = "max-age=0, must-revalidate"
#: Cache-Control for the answers of a realm's endpoints. No cache may store these answers.
_NEVER_KEPT = "no-store, no-cache, must-revalidate"

#: Forbids shared caches to serve expired answers. By default, some shared caches serve an expired
#: answer while they fetch a new answer, or if no replica responds.
_NEVER_STALE = "stale-while-revalidate=0, stale-if-error=0"

#: Allows scripts of any origin to read an answer.
CORS: Headers = (
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "*"),
)


def of_server() -> Headers:
    """Returns headers for an answer of one of the server's own endpoints."""
    return (*CORS, ("cache-control", NO_STORE))


def of_error() -> Headers:
    """Returns headers for an error of any kind."""
    return (("cache-control", NO_STORE), *CORS)


def of_generation(generation: int) -> Headers:
    """Returns headers for an answer that was made at a generation of a realm."""
    return (_pair(GENERATION, str(generation)),)


def of_content(
    own: Headers, realm_url: str, generation: int, *, public: bool, shared: bool
) -> Headers:
    """Returns the content's headers with a Cache-Control that says who may store the answer.

    `shared` says whether every client that sends the headers in `Vary` gets the same answer. Shared
    caches may store the answer only if `shared` is set and the realm is public. A shared cache must
    stop serving the stored answer after REALM_EDGE_SECONDS, even if all replicas are down. Browsers
    store images for 60 s (`raw` in `realms/serving/contents.py`).
    """
    chosen = dict(own).get("cache-control", REVALIDATED)
    others = tuple(each for each in own if each[0] != "cache-control")
    kept = scoped(chosen, public=public)
    if not (public and shared and settings.REALM_EDGE_SECONDS) or chosen == NO_STORE:
        return (*others, _pair("cache-control", _asked_each_time(kept)))
    key = surrogate_key(realm_url)
    keys = (EVERY_REALM, key, f"{key}-{generation}")
    return (
        *others,
        ("cache-control", f"{kept}, {_shared_time()}"),
        ("surrogate-key", " ".join(keys)),
        ("cache-tag", ",".join(keys)),
    )


def of_file(realm_url: str, generation: int, *, public: bool, compressible: bool) -> Headers:
    """Returns headers for a variant of a file. `of_content` later adds Cache-Control."""
    return (
        _realm(realm_url),
        *of_generation(generation),
        _pair("vary", _file_varies(compressible)),
        *CORS,
        *_readable(public),
    )


def of_card(realm_url: str, generation: int, *, public: bool) -> Headers:
    """Returns headers for a JSON document with one or more cards of a realm."""
    kept = ("cache-control", NO_STORE)
    return (
        _realm(realm_url),
        *of_generation(generation),
        ("vary", "Accept"),
        kept,
        *CORS,
        *_readable(public),
    )


def of_write(realm_url: str, generation: int) -> Headers:
    """Returns headers for the answer to a write or deletion of a file."""
    return (_realm(realm_url), *of_generation(generation), ("cache-control", NO_STORE), *CORS)


def of_endpoint(realm_url: str, length: int | None, *, public: bool) -> Headers:
    """Returns the default headers for an answer of a realm's endpoint (`_name`). `length` is the
    body's length in bytes, or None."""
    kept = ("cache-control", _NEVER_KEPT)
    size = () if length is None else (("content-length", str(length)),)
    return (_realm(realm_url), ("vary", "Accept"), kept, *CORS, *size, *_readable(public))


def of_publication(realm_url: str, generation: int) -> Headers:
    """Returns headers for the answer to a publish. Everyone may read the published realm."""
    return (_realm(realm_url), *_readable(True), *of_generation(generation))


def of_pin(generation: int) -> Headers:
    """Returns headers for a read at a pinned generation. Only the pin's reader may see the
    answer."""
    return (*of_generation(generation), ("cache-control", NEVER_SHARED))


def of_draft(realm_url: str, generation: int) -> Headers:
    """Returns headers for the page of a draft. Only the realm's owner sees the page."""
    return (
        *of_generation(generation),
        _realm(realm_url),
        ("cache-control", NEVER_SHARED),
        ("vary", "Accept, Authorization, Cookie"),
        ("x-robots-tag", "noindex"),
    )


def of_sitemap(realm_url: str, generation: int) -> Headers:
    """Returns headers for the sitemap of a realm's pages at a generation."""
    return (_realm(realm_url), *of_generation(generation), ("cache-control", REVALIDATED))


def scoped(cache_control: str, *, public: bool) -> str:
    """Returns a Cache-Control that lets shared caches store an answer only if everyone may read the
    answer."""
    return f"{'public' if public else 'private'}, {cache_control}"


def _asked_each_time(cache_control: str) -> str:
    """Returns a Cache-Control that lets browsers store an answer. Shared caches must revalidate the
    answer for each request."""
    kept = cache_control.startswith("public") and "max-age=0" not in cache_control
    return (
        f"{cache_control}, s-maxage=0" if kept and NO_STORE not in cache_control else cache_control
    )


def withhold(response: HttpResponseBase) -> None:
    """Makes shared caches revalidate an answer for each request. By default, shared caches could
    serve the answer for REALM_EDGE_SECONDS."""
    if settings.REALM_EDGE_SECONDS and "Cache-Control" in response.headers:
        kept = response.headers["Cache-Control"]
        own = kept.removesuffix(f", {_shared_time()}")
        response.headers["Cache-Control"] = _asked_each_time(own)


def add(response: HttpResponseBase, headers: Headers) -> None:
    """Sets headers of a response."""
    for name, value in headers:
        response.headers[name] = value


def add_missing(response: HttpResponseBase, headers: Headers) -> None:
    """Sets the headers that a response doesn't have yet."""
    for name, value in headers:
        response.headers.setdefault(name, value)


def _file_varies(compressible: bool) -> str:
    named = ["Accept", *(["Accept-Encoding"] if compressible else [])]
    # A request with a generation may need a newer answer than the stored one.
    return ", ".join([*named, *(["X-Realm-Min-Generation"] if settings.REALM_EDGE_SECONDS else [])])


def _shared_time() -> str:
    return f"s-maxage={settings.REALM_EDGE_SECONDS}, {_NEVER_STALE}"


def _realm(url: str) -> tuple[str, str]:
    return _pair(REALM, url)


@short_cached(maxsize=4096)
def _pair(name: str, value: str) -> tuple[str, str]:
    """Returns the header `name: value` as a tuple. The result is cached, so that all answers with
    the same header share one tuple."""
    return (name, value)


def _readable(public: bool) -> Headers:
    return (("x-boxel-realm-public-readable", "true"),) if public else ()

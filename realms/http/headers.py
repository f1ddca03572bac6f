"""Makes the headers that state an answer's realm and generation, and who may cache and read the
answer.

A realm's generation is a number that grows when the realm's files change. A replica is one of the
web services that answer requests. A shared cache is a cache between clients and replicas, such as a
CDN.

This module has one function for each kind of answer. Header names are in lower case.
"""

from typing import TypeAlias

from django.conf import settings
from django.http.response import HttpResponseBase

from notifications.channels import EVERY_REALM, surrogate_key
from notifications.short_cached import short_cached

Headers: TypeAlias = tuple[tuple[str, str], ...]

#: The names of the headers that state an answer's realm and generation.
REALM, GENERATION = "x-boxel-realm-url", "x-realm-generation"
#: Values of Cache-Control. A browser that has stored an answer with REVALIDATED must ask the server
#: before each use of the answer.
NO_STORE = "no-store"
NEVER_SHARED = "private, no-store"
REVALIDATED = "max-age=0, must-revalidate"
#: Cache-Control for the answers of a realm's endpoints, such as `_search`. No cache may store these
#: answers.
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
    """Returns headers for the response to an error."""
    return (("cache-control", NO_STORE), *CORS)


def of_generation(generation: int) -> Headers:
    """Returns the header that states at which generation of its realm an answer was made."""
    return (_pair(GENERATION, str(generation)),)


def of_content(
    own: Headers, realm_url: str, generation: int, *, public: bool, shared: bool
) -> Headers:
    """Returns the content's own headers (`own`) with a Cache-Control that says who may store the
    answer.

    Set `shared` if all requests with the same URL and the same values of the headers that `Vary`
    names get the same answer. If `shared` is set and the realm is public, shared caches may serve
    the stored answer for REALM_EDGE_SECONDS, but no longer, even if all replicas are down. The
    surrogate keys of such an answer let a purge find the answer in a shared cache.

    Shared caches must not store an answer of a private realm. They must revalidate any other answer
    of a public realm for each request. No cache may store an answer if `own` has NO_STORE.

    Browsers obey the max-age in `own`. It is 60 s for images and 0 for all other files (`raw` in
    `realms/serving/contents.py`).
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
    """Returns headers for a file's source, module or page. `of_content` makes the Cache-Control of
    such an answer."""
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
    """Returns the headers for an answer of a realm's endpoint, such as `_search`. The caller adds
    only those that the endpoint's view has not set. `length` is the body's length in bytes; None
    for a streamed body."""
    kept = ("cache-control", _NEVER_KEPT)
    size = () if length is None else (("content-length", str(length)),)
    return (_realm(realm_url), ("vary", "Accept"), kept, *CORS, *size, *_readable(public))


def of_publication(realm_url: str, generation: int) -> Headers:
    """Returns headers for the answer to a request that publishes a realm. Everyone may read a
    published realm."""
    return (_realm(realm_url), *_readable(True), *of_generation(generation))


def of_pin(generation: int) -> Headers:
    """Returns headers for the answer to a request with a pin. A pin is a signed token that lets one
    reader read a realm at one generation. Only this reader may see the answer."""
    return (*of_generation(generation), ("cache-control", NEVER_SHARED))


def of_draft(realm_url: str, generation: int) -> Headers:
    """Returns headers for a draft page. A draft page is a page of a source realm, and only the
    realm's owner sees it."""
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
    """Returns `cache_control` with `public` in front if everyone may read the answer, else with
    `private` in front. `private` forbids shared caches to store the answer."""
    return f"{'public' if public else 'private'}, {cache_control}"


def _asked_each_time(cache_control: str) -> str:
    """Returns a Cache-Control that makes shared caches revalidate the answer for each request. Adds
    `s-maxage=0`, which browsers ignore, if `cache_control` alone would let a shared cache use a
    stored answer without asking."""
    kept = cache_control.startswith("public") and "max-age=0" not in cache_control
    return (
        f"{cache_control}, s-maxage=0" if kept and NO_STORE not in cache_control else cache_control
    )


def withhold(response: HttpResponseBase) -> None:
    """Makes shared caches revalidate an answer for each request. Otherwise they could serve the
    answer for REALM_EDGE_SECONDS without asking a replica."""
    if settings.REALM_EDGE_SECONDS and "Cache-Control" in response.headers:
        kept = response.headers["Cache-Control"]
        own = kept.removesuffix(f", {_shared_time()}")
        response.headers["Cache-Control"] = _asked_each_time(own)


def add(response: HttpResponseBase, headers: Headers) -> None:
    """Sets headers of a response. Replaces those that the response has already."""
    for name, value in headers:
        response.headers[name] = value


def add_missing(response: HttpResponseBase, headers: Headers) -> None:
    """Sets the headers that a response doesn't have yet."""
    for name, value in headers:
        response.headers.setdefault(name, value)


def _file_varies(compressible: bool) -> str:
    named = ["Accept", *(["Accept-Encoding"] if compressible else [])]
    # A request with X-Realm-Min-Generation may need a newer answer than a shared cache has stored.
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

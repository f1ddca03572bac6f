"""The headers that answers have in common: whose realm, which generation, who may keep and read it.

Each kind of answer has one function here. Names are in lower case, as on the wire.
"""

from typing import TypeAlias

from django.conf import settings
from django.http.response import HttpResponseBase

from notifications.channels import EVERY_REALM, surrogate_key
from notifications.short_cached import short_cached

Headers: TypeAlias = tuple[tuple[str, str], ...]

#: Values of Cache-Control.
NO_STORE = "no-store"
NEVER_SHARED = "private, no-store"
REVALIDATED = "max-age=0, must-revalidate"
#: The answers of a realm's endpoints, which have no validators.
_NEVER_KEPT = "no-store, no-cache, must-revalidate"

#: What some shared caches do unless they are told not to.
_NEVER_STALE = "stale-while-revalidate=0, stale-if-error=0"

#: Scripts of any origin may read an answer.
CORS: Headers = (
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "*"),
)


def of_server() -> Headers:
    """An answer of one of the server's own endpoints."""
    return (*CORS, ("cache-control", NO_STORE))


def of_error() -> Headers:
    """An error of any kind."""
    return (("cache-control", NO_STORE), *CORS)


def of_generation(generation: int) -> Headers:
    """An answer that was made at a generation of a realm."""
    return (_pair("x-realm-generation", str(generation)),)


def of_content(
    own: Headers, realm_url: str, generation: int, *, public: bool, shared: bool
) -> Headers:
    """A content's own headers, with who may keep it. `shared` says whether the answer is the same
    for everyone who sends the headers that `Vary` names; only then a shared cache may keep it, for
    REALM_EDGE_SECONDS. No shared cache may show it after that, even if the origin is away; a
    visitor's browser keeps an image for 60 s (`raw` in `realms/serving/contents.py`)."""
    chosen = dict(own).get("cache-control")
    if not (public and shared and settings.REALM_EDGE_SECONDS) or chosen == NO_STORE:
        return tuple(
            _pair("cache-control", _asked_each_time(scoped(each[1], public=public)))
            if each[0] == "cache-control"
            else each
            for each in own
        )
    kept = f"{scoped(chosen or REVALIDATED, public=True)}, {_shared_time()}"
    key = surrogate_key(realm_url)
    keys = (EVERY_REALM, key, f"{key}-{generation}")
    return (
        *(each for each in own if each[0] != "cache-control"),
        ("cache-control", kept),
        ("surrogate-key", " ".join(keys)),
        ("cache-tag", ",".join(keys)),
    )


def of_file(realm_url: str, generation: int, *, public: bool, compressible: bool) -> Headers:
    """The form of a file that a request prefers. The file decides how long it may be kept."""
    return (
        _realm(realm_url),
        *of_generation(generation),
        _pair("vary", _file_varies(compressible)),
        *CORS,
        *_readable(public),
    )


def of_card(realm_url: str, generation: int, *, public: bool) -> Headers:
    """One or more cards of a realm as a document."""
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
    """A file that was written or deleted."""
    return (_realm(realm_url), *of_generation(generation), ("cache-control", NO_STORE), *CORS)


def of_endpoint(realm_url: str, length: int | None, *, public: bool) -> Headers:
    """An endpoint of a realm, `_name`. The endpoint itself may choose other values. `length` is the
    body's, if that is known. Unit: bytes."""
    kept = ("cache-control", _NEVER_KEPT)
    size = () if length is None else (("content-length", str(length)),)
    return (_realm(realm_url), ("vary", "Accept"), kept, *CORS, *size, *_readable(public))


def of_publication(realm_url: str, generation: int) -> Headers:
    """A realm that was published; everyone may read it."""
    return (_realm(realm_url), *_readable(True), *of_generation(generation))


def of_pin(generation: int) -> Headers:
    """A read at a pinned generation; only the reader who has the pin may see it."""
    return (*of_generation(generation), ("cache-control", NEVER_SHARED))


def of_draft(realm_url: str, generation: int) -> Headers:
    """A page that only the realm's owner sees."""
    return (
        *of_generation(generation),
        _realm(realm_url),
        ("cache-control", NEVER_SHARED),
        ("vary", "Accept, Authorization, Cookie"),
        ("x-robots-tag", "noindex"),
    )


def scoped(cache_control: str, *, public: bool) -> str:
    """A Cache-Control that allows shared caches to keep an answer only if everyone may read it."""
    return f"{'public' if public else 'private'}, {cache_control}"


def _asked_each_time(cache_control: str) -> str:
    """A Cache-Control by which browsers may keep an answer, but no shared cache."""
    kept = cache_control.startswith("public") and "max-age=0" not in cache_control
    return (
        f"{cache_control}, s-maxage=0" if kept and NO_STORE not in cache_control else cache_control
    )


def withhold(response: HttpResponseBase) -> None:
    """Has shared caches ask each time for an answer that they might have kept."""
    if settings.REALM_EDGE_SECONDS and "Cache-Control" in response.headers:
        kept = response.headers["Cache-Control"]
        own = kept.removesuffix(f", {_shared_time()}")
        response.headers["Cache-Control"] = _asked_each_time(own)


def add(response: HttpResponseBase, headers: Headers) -> None:
    """Sets headers of a response."""
    for name, value in headers:
        response.headers[name] = value


def add_missing(response: HttpResponseBase, headers: Headers) -> None:
    """Sets those headers of a response that it doesn't have."""
    for name, value in headers:
        response.headers.setdefault(name, value)


def _file_varies(compressible: bool) -> str:
    named = ["Accept", *(["Accept-Encoding"] if compressible else [])]
    # With a generation a request may need a newer answer than others are shown.
    return ", ".join([*named, *(["X-Realm-Min-Generation"] if settings.REALM_EDGE_SECONDS else [])])


def _shared_time() -> str:
    return f"s-maxage={settings.REALM_EDGE_SECONDS}, {_NEVER_STALE}"


def _realm(url: str) -> tuple[str, str]:
    return _pair("x-boxel-realm-url", url)


@short_cached(maxsize=4096)
def _pair(name: str, value: str) -> tuple[str, str]:
    """A header that many answers have. Cached, so that the cached answers share it."""
    return (name, value)


def _readable(public: bool) -> Headers:
    return (("x-boxel-realm-public-readable", "true"),) if public else ()

"""The WSGI front: answers reads from this process's caches, and passes the rest on to Django.

A hit is a dictionary lookup and a comparison of stamps, without Django and without the database.
Requests that the front can't answer for certain (a miss, a private realm, a query, a write) go to
Django unchanged.
"""

from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any, TypeAlias

from django.db import DatabaseError, InterfaceError

from notifications.texts import composed
from realms.errors import RealmError
from realms.figures.counting import counts
from realms.http.accept import accepted, takes_pages
from realms.http.conditions import WSGI_HEADERS, Conditions
from realms.http.requests import MIN_GENERATION, RAW_PATH, min_generation, request_url
from realms.serving import origins
from realms.serving.answers import cached, cached_at, lacks_file
from realms.serving.contents import Answer, Variant
from realms.serving.drafts import may_preview
from realms.serving.pinned_reads import PIN, opened
from realms.serving.responses import VARIANTS, replica_header, response_parts
from realms.serving.site import GENERATED
from reindex.reading.media_types import ANY

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_PINNED = "/_at/"
_STATUS = {code: f"{code} {phrase}" for code, phrase in responses.items()}


class Front:
    """Wraps another WSGI application and answers cache hits in its place."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind

    def hit(self, environ: Environ) -> tuple[int, list[tuple[str, str]], bytes | memoryview] | None:
        """Status, headers and body, if this process's caches have the answer. Never waits and
        never uses the database, except to check a pin."""
        answer = _hit(environ)
        if answer is None:
            return None
        counts.hits += 1
        conditions = Conditions(*map(environ.get, WSGI_HEADERS))
        status, headers, body = response_parts(answer, environ["REQUEST_METHOD"], conditions, "hit")
        host = environ.get("HTTP_HOST", "")
        return status, [*origins.with_policy(headers, host, answer.realm_url), _replica()], body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hit = self.hit(environ)
        if hit is not None:
            status, headers, body = hit
            start_response(_STATUS[status], headers)
            return (bytes(body),)
        environ[RAW_PATH] = environ["PATH_INFO"]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, _replica()], *error)

        return self._behind(environ, start)


def _replica() -> tuple[str, str]:
    return ("x-realm-replica", replica_header())


def _pinned_hit(environ: Environ, path: str) -> Answer | None:
    """The cached answer to a pinned read, if the request's pin is valid."""
    if environ.get("QUERY_STRING") or environ.get("HTTP_ACCEPT", ANY) != ANY:
        return None
    try:
        pin = opened(environ.get(PIN, ""))
        name = composed(path.removeprefix(_PINNED).encode("latin-1").decode())
        return cached_at(pin.realm_url, pin.generation, name)
    except (RealmError, UnicodeDecodeError, DatabaseError, InterfaceError):
        # Django answers with the error, on a working connection.
        return None


def _hit(environ: Environ) -> Answer | None:
    path, host = environ["PATH_INFO"], environ.get("HTTP_HOST", "")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or origins.is_admin_host(host):
        return None
    if path.startswith(_PINNED):
        return _pinned_hit(environ, path)
    if path.startswith("/_"):
        return None
    # With a method override the GET may be a QUERY; Django decides.
    if environ.get("QUERY_STRING") or "HTTP_X_HTTP_METHOD_OVERRIDE" in environ:
        return None
    accept = environ.get("HTTP_ACCEPT", ANY)
    variant = VARIANTS.get(accepted(accept))
    if variant is None or path.endswith(GENERATED):
        return None
    # A draft's owner gets another page than other clients.
    if variant is Variant.HTML and may_preview(environ):
        return None
    try:
        url = request_url(host, path)
        at_least = min_generation(environ.get(MIN_GENERATION))
        answer = cached(variant, url, at_least)
        if answer is not None and lacks_file(answer, variant) and takes_pages(accept):
            page = cached(Variant.HTML, url, at_least)
            answer = page if page is None or page.content.for_all else answer
    except (UnicodeDecodeError, RealmError):
        return None
    if answer is None or not answer.public or answer.realm_url is None:
        return None
    return answer

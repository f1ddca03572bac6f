"""The front: answers reads from this process's caches, and passes the rest on to Django.

A hit is a dictionary lookup and a comparison of stamps, without Django and without the database.
Its reply is made once and kept with the cached answer. Requests that the front can't answer for
certain (a miss, a private realm, a query, a write) go to Django unchanged.
"""

from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any, TypeAlias, cast

from django.db import DatabaseError, InterfaceError

from notifications.texts import composed
from realms.errors import RealmError
from realms.figures.counting import counts
from realms.http.compression import Coding
from realms.http.conditions import NO_CONDITIONS, Conditions
from realms.http.replies import Finished, Reply
from realms.http.requests import RAW_PATH, request_path
from realms.serving import origins
from realms.serving.answers import Place, cached, cached_at, finished, lacks_file
from realms.serving.asked import Asked, asked
from realms.serving.compact import Answer
from realms.serving.contents import Variant
from realms.serving.pinned_reads import PIN, opened
from realms.serving.responses import is_made, outcome, replica_header, response_parts
from realms.serving.site import GENERATED
from reindex.reading.media_types import ANY

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_PINNED = "/_at/"
_STATUS = {code: f"{code} {phrase}" for code, phrase in responses.items()}


class Front:
    """Wraps a WSGI application and answers cache hits in its place."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind

    def reply(
        self, method: str, path: str, wanted: Asked, copy: bytes | None = None
    ) -> Reply | None:
        """The reply to a read without a query, if this process's caches have it. `path` is
        unescaped and composed. `copy` is the If-None-Match of a request whose other conditions mean
        nothing beside it; `wanted` has none then. Never uses the database."""
        if path.startswith("/_") or path.endswith(GENERATED):
            return None
        place = wanted.variant, wanted.origin + path
        answer = cached(*place, wanted.at_least)
        if answer is None:
            return None
        frame = answer.frame
        if frame.status == 404 and wanted.takes_pages and lacks_file(answer, wanted.variant):
            page = cached(Variant.HTML, place[1], wanted.at_least)
            if page is None:
                return None
            if page.frame.for_all:
                answer, frame, place = page, page.frame, (Variant.HTML, place[1])
        if not frame.public or frame.realm_url is None:
            return None
        if copy is not None:
            reply = _unchanged(answer, copy, wanted.form)
        elif wanted.conditions is NO_CONDITIONS:
            reply = _kept(answer, wanted.form, 200)
        else:
            reply = None
        if reply is None:
            named = Conditions(if_none_match=copy.decode("latin-1")) if copy is not None else None
            reply = _made(answer, place, method, named or wanted.conditions, wanted.form)
        counts.hits += reply is not None
        return reply

    def hit(self, environ: Environ) -> Reply | None:
        """Like `reply`, for a request as WSGI describes it. Answers pinned reads too, and checks
        their pins, for which it may use the database."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method not in ("GET", "HEAD") or environ.get("QUERY_STRING"):
            return None
        if path.startswith(_PINNED):
            return _pinned_hit(environ, path)
        wanted = asked(environ)
        if wanted is None:
            return None
        try:
            return self.reply(method, request_path(path), wanted)
        except (UnicodeDecodeError, RealmError):
            return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        hit = self.hit(environ)
        if hit is not None:
            start_response(_STATUS[hit.status], hit.headers)
            body = cast(bytes | memoryview, hit.body)
            return () if environ["REQUEST_METHOD"] == "HEAD" else (bytes(body),)
        environ[RAW_PATH] = environ["PATH_INFO"]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, _replica()], *error)

        return self._behind(environ, start)


def _kept(answer: Answer, form: tuple[str, Coding | None], decided: int) -> Finished | None:
    """The finished reply in this form, of which an answer has one or two."""
    host, coding = form
    for each in answer.replies:
        if each.host == host and each.decided == decided and each.coding is coding:
            return each
    policy = origins.policy(host, answer.frame.realm_url)
    for each in answer.replies:
        if each.policy == policy and each.decided == decided and each.coding is coding:
            # The next request is probably to this host too.
            each.host = host
            return each
    return None


def _unchanged(answer: Answer, copy: bytes, form: tuple[str, Coding | None]) -> Reply | None:
    """The kept 304 for a client whose If-None-Match names this answer's ETag and nothing else,
    which most clients send. None if that has to be found out."""
    reply = _kept(answer, form, 304)
    return reply if reply is not None and reply.etag == copy.removeprefix(b"W/") else None


def _made(
    answer: Answer,
    place: Place,
    method: str,
    conditions: Conditions,
    form: tuple[str, Coding | None],
) -> Reply | None:
    """The reply with an answer; None if its body has to be compressed first, which takes longer
    than the event loop may."""
    host, coding = form
    if not is_made(answer, coding):
        return None
    decided = outcome(answer, coding, conditions)
    # Replies with parts of the content, and refusals, which repeat the condition, aren't kept.
    keeps = conditions.range is None and decided != 412
    kept = _kept(answer, form, decided) if keeps else None
    if kept is not None:
        return kept
    # A kept reply answers GET and HEAD, for which no body is sent.
    parts = response_parts(answer, "GET" if keeps else method, conditions, "hit", coding, decided)
    status, headers, body = parts
    policed = origins.with_policy(headers, host, answer.realm_url)
    reply = Reply(status, [*policed, _replica()], body)
    if keeps:
        policy = origins.policy(host, answer.realm_url)
        finished(place, answer, Finished(reply, host, policy, coding, decided))
    return reply


def _replica() -> tuple[str, str]:
    return ("x-realm-replica", replica_header())


def _pinned_hit(environ: Environ, path: str) -> Reply | None:
    """The cached reply to a pinned read, if the request's pin is valid."""
    host = environ.get("HTTP_HOST", "")
    if origins.is_admin_host(host) or environ.get("HTTP_ACCEPT", ANY) != ANY:
        return None
    try:
        pin = opened(environ.get(PIN, ""))
        name = composed(path.removeprefix(_PINNED).encode("latin-1").decode())
        place = pin.realm_url, pin.generation, name
        answer = cached_at(*place)
    except (RealmError, UnicodeDecodeError, DatabaseError, InterfaceError):
        # Django answers with the error, on a working connection.
        return None
    if answer is None:
        return None
    method, conditions = environ["REQUEST_METHOD"], Conditions.of(environ)
    reply = _made(answer, (Variant.MODULE, place), method, conditions, (host, None))
    counts.hits += reply is not None
    return reply

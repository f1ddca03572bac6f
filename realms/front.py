"""Provides the front, a WSGI application that answers public reads and cached pinned reads, and
passes all other requests to Django. A realm's generation is a number that rises with each change. A
pinned read has a pin, a token in a header that gives access to a realm at exactly one generation.

The event loop of the web server (`web/asgi.py`) calls `Front.reply` for cache hits. For a hit, the
front only looks up the answer in a dictionary, and asks the board (`notifications/board.py`)
whether the answer is fresh. Neither Django nor the database takes part. The first hit makes a
finished reply, which later hits send unchanged. The cached answer keeps a finished reply for each
combination of security policy headers, content coding, and outcome of the request's conditions.

Threads call `Front.read`, which also answers cached pinned reads, even of private realms. For an
unpinned read that isn't cached, `read` loads the file or module if everyone may read it
(`load_public`). If Django's view loads the same URL at the same time, the two share one load.

Django gets all other requests, such as reads of pages that aren't cached, unpinned reads of private
realms, queries, and writes. The front adds the raw path to a request for Django, and the replica's
name to Django's response.
"""

from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any, TypeAlias, cast

from django.db import DatabaseError, InterfaceError, connection

from notifications.emit import local_board
from notifications.texts import composed
from realms.errors import Busy, RealmError
from realms.figures.counting import counts
from realms.http.compression import Coding
from realms.http.conditions import NO_CONDITIONS, Conditions
from realms.http.error_answers import error_response
from realms.http.replies import Finished, Reply
from realms.http.requests import RAW_PATH, request_path
from realms.serving import origins
from realms.serving.answers import (
    Place,
    Unfinished,
    cached,
    cached_at,
    coded,
    finished,
    lacks_file,
    load_public,
)
from realms.serving.asked import Asked, asked
from realms.serving.compact import Answer
from realms.serving.contents import Variant
from realms.serving.pinned_reads import PIN, opened
from realms.serving.responses import is_made, outcome, replica_header, response_parts
from realms.serving.transpiling import TranspilerFailed
from reindex.reading.card_paths import GENERATED
from reindex.reading.media_types import ANY

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_PINNED = "/_at/"
_STATUS = {code: f"{code} {phrase}" for code, phrase in responses.items()}


class Front:
    """A WSGI application that answers public reads and cached pinned reads, and passes all other
    requests to the application `behind`."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind

    def read(self, environ: Environ) -> Reply | None:
        """Replies to a public read from the caches or the database, and to a pinned read only from
        the cache. Returns None if Django must answer. The reply to HEAD may have a body, which the
        caller must not send. This method may block, so it must run in a thread."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method not in ("GET", "HEAD") or environ.get("QUERY_STRING"):
            return None
        if path.startswith(_PINNED):
            return _pinned_hit(environ, path)
        wanted = asked(environ)
        if wanted is None:
            return None
        try:
            path = request_path(path)
        except (UnicodeDecodeError, RealmError):
            return None
        return self.reply(method, path, wanted) or _loaded(method, path, wanted)

    def reply(
        self, method: str, path: str, wanted: Asked, copy: bytes | None = None
    ) -> Reply | None:
        """Returns the reply to a read without a query string, if this process's caches have the
        answer. `path` is unescaped and in Unicode's composed form. This method doesn't block, so
        the event loop may call it.

        `wanted` has the conditions of the request. If the only condition is an If-None-Match, the
        caller may pass the header's value as `copy`, and omit the condition from `wanted`. An
        If-Modified-Since doesn't count as another condition, because HTTP ignores it beside an
        If-None-Match.
        """
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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reply = self.read(environ)
        if reply is None:
            return self.pass_on(environ, start_response)
        start_response(_STATUS[reply.status], reply.headers)
        body = cast(bytes | memoryview, reply.body)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (bytes(body),)

    def pass_on(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Returns Django's answer to a request that `read` doesn't answer."""
        environ[RAW_PATH] = environ["PATH_INFO"]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, _replica()], *error)

        return self._behind(environ, start)


def _kept(answer: Answer, form: tuple[str, Coding | None], decided: int) -> Finished | None:
    """Returns the finished reply that `answer` keeps for a request; None if it keeps no such reply.
    `form` is the request's Host header and the content coding. `decided` is the status that results
    from the request's conditions."""
    host, coding = form
    for each in answer.replies:
        if each.host == host and each.decided == decided and each.coding is coding:
            return each
    policy = origins.policy(host, answer.frame.realm_url)
    for each in answer.replies:
        if each.policy == policy and each.decided == decided and each.coding is coding:
            # The next request probably has the same Host header. The first loop then finds the
            # reply.
            each.host = host
            return each
    return None


def _unchanged(answer: Answer, copy: bytes, form: tuple[str, Coding | None]) -> Reply | None:
    """Compares `copy`, the value of If-None-Match, with the ETag of the kept 304 reply. Most
    clients send exactly one ETag, with or without `W/`. If it is the reply's ETag, returns the
    reply. Otherwise returns None, and the caller must evaluate the condition."""
    reply = _kept(answer, form, 304)
    return reply if reply is not None and reply.etag == copy.removeprefix(b"W/") else None


def _made(
    answer: Answer,
    place: Place,
    method: str,
    conditions: Conditions,
    form: tuple[str, Coding | None],
) -> Reply | None:
    """Returns the reply for a cached answer. Returns None if the body must be compressed first,
    which would block the event loop for too long."""
    host, coding = form
    if not is_made(answer, coding):
        return None
    decided = outcome(answer, coding, conditions)
    # Replies to range requests aren't kept. A 412 isn't kept either, because its text quotes the
    # condition of this request and fits no other request.
    keeps = conditions.range is None and decided != 412
    kept = _kept(answer, form, decided) if keeps else None
    if kept is not None:
        return kept
    # A kept reply answers both GET and HEAD, so it is made with a body, as for GET.
    parts = response_parts(answer, "GET" if keeps else method, conditions, "hit", coding, decided)
    status, headers, body = parts
    policed = origins.with_policy(headers, host, answer.realm_url)
    reply = Reply(status, [*policed, _replica()], body)
    if keeps:
        policy = origins.policy(host, answer.realm_url)
        finished(place, answer, Finished(reply, host, policy, coding, decided))
    return reply


def _loaded(method: str, path: str, wanted: Asked) -> Reply | None:
    """Loads an uncached file or module that everyone may read, and returns the reply. Returns None
    if Django must answer."""
    if not _may_load(path, wanted):
        return None
    url = wanted.origin + path
    # Skip Django's health check of the connection, which would send one more statement to the
    # database. If the connection is broken, the load fails, and Django gets the request and
    # reconnects.
    connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        # `reply` also returns None for a cached answer that lacks a body in the client's content
        # coding. Such an answer needs no load.
        kept = cached(wanted.variant, url, wanted.at_least)
        answer = kept or load_public(wanted.variant, url)
        if not answer.public or answer.realm_url is None or answer.high < wanted.at_least:
            return None
        if wanted.takes_pages and lacks_file(answer, wanted.variant):
            return None
        coding = coded(wanted.variant, url, answer, wanted.form[1])
    except Unfinished:
        return None
    except TranspilerFailed as error:
        # Don't pass this request to Django, which would only try to transpile the module again. If
        # the first attempt took too long, the second attempt would too.
        return _refusal(Busy(what=str(error)), wanted)
    except RealmError as error:
        return _refusal(error, wanted)
    cache = "hit" if kept else "miss"
    counts.read(cache, live=local_board().live())
    decided = outcome(answer, coding, wanted.conditions)
    status, headers, body = response_parts(
        answer, method, wanted.conditions, cache, coding, decided
    )
    policed = origins.with_policy(headers, wanted.form[0], answer.realm_url)
    return Reply(status, [*policed, _replica()], body)


def _may_load(path: str, wanted: Asked) -> bool:
    """Returns whether the front may load the answer to a read. The read must be for a file or a
    module, and this thread's database connection must be open and without errors. Django gets all
    other reads, and opens or replaces the connection."""
    if connection.connection is None or connection.errors_occurred:
        return False
    # The names of endpoints begin with `_`.
    if path.startswith("/_") or path.rpartition("/")[2].startswith("_"):
        return False
    return wanted.variant is not Variant.HTML and not path.endswith(GENERATED)


def _refusal(error: RealmError, wanted: Asked) -> Reply:
    response = error_response(error)
    length = ("content-length", str(len(response.content)))
    policy = origins.policy(wanted.form[0], None)
    headers = [*response.items(), length, *policy, _replica()]
    return Reply(response.status_code, headers, response.content)


def _replica() -> tuple[str, str]:
    return ("x-realm-replica", replica_header())


def _pinned_hit(environ: Environ, path: str) -> Reply | None:
    """Returns the reply to a pinned read if the answer is cached and the request's pin is valid.
    Returns None if Django must answer."""
    host = environ.get("HTTP_HOST", "")
    if origins.is_admin_host(host) or environ.get("HTTP_ACCEPT", ANY) != ANY:
        return None
    try:
        pin = opened(environ.get(PIN, ""))
        name = composed(path.removeprefix(_PINNED).encode("latin-1").decode())
        place = pin.realm_url, pin.generation, name
        answer = cached_at(*place)
    except (RealmError, UnicodeDecodeError, DatabaseError, InterfaceError):
        # Django gets the request and makes the error response. If the database connection is
        # broken, Django opens a new one.
        return None
    if answer is None:
        return None
    method, conditions = environ["REQUEST_METHOD"], Conditions.of(environ)
    reply = _made(answer, (Variant.MODULE, place), method, conditions, (host, None))
    counts.hits += reply is not None
    return reply

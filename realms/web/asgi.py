"""Defines the ASGI application that the web server granian runs.

The event loop answers cache hits itself, so a cached read waits for no thread. For any other
request, the event loop first receives the whole body. Then a thread calls the front, a WSGI
application that answers some reads itself and passes the other requests to Django
(`realms/front.py`). The event loop sends the answer as fast as the client reads it. A slow client
therefore occupies some memory but never a thread. If a request's body is too large or of unknown
length, the request is refused and its body is not read.

Each kind of work has its own group of threads, called a lane (`realms/web/lanes.py`). The event
loop never uses the database.
"""

import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import BytesIO
from time import perf_counter
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from django.conf import settings

from notifications.short_cached import short_cached
from notifications.texts import whole_number
from realms.errors import Malformed, RealmError
from realms.figures.counting import counts
from realms.front import Front
from realms.http.conditions import HEADERS, MANY, Conditions
from realms.http.error_answers import error_response
from realms.http.packed import Packed
from realms.http.replies import Reply
from realms.http.requests import check_host_length, request_path
from realms.serving import origins
from realms.serving.asked import Asked, asked
from realms.serving.pinned_reads import PIN
from realms.web.lanes import Lanes, lane_of
from realms.web.transfer import (
    PIECE_BYTES,
    Bodies,
    Disconnected,
    Outbox,
    Receive,
    Send,
    give_up_on_stalled_connections,
)
from reindex.reading import pins

logger = logging.getLogger(__name__)

Scope: TypeAlias = Mapping[str, Any]
Environ: TypeAlias = dict[str, Any]

_CLOSE = ("connection", "close")
#: The maximum number of sets of headers that `_Asked` caches.
_MAX_KNOWN = 1024
#: The maximum size of a set of headers that `_Asked` caches. Unit: bytes.
_MAX_KEPT_BYTES = 2048
_READS = ("GET", "HEAD")
_SECRET = (b"authorization", b"cookie", pins.PIN_HEADER.lower().encode())
_CONDITIONS = {name.lower().encode() for name in HEADERS}
#: Request bodies of up to this many bytes are received even if FILE_SIZE_LIMIT_BYTES is smaller. A
#: list of paths may have this size (MAX_QUESTION_BYTES in `realms/serving/pinned_reads.py`).
_LEAST_LARGEST = 4 * 1024 * 1024


class RealmServer:
    """The ASGI application."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._lanes = Lanes(settings.REALM_THREADS)
        self._bodies = Bodies(
            max_bytes=settings.REALM_BODY_BYTES, seconds=settings.REALM_BODY_SECONDS
        )
        # Processes that render pages wait for pinned reads (`_is_pinned`). The bodies of pinned
        # reads have a memory limit of their own, so that uploads can't block rendering.
        self._pinned_bodies = Bodies(
            max_bytes=settings.REALM_BODY_BYTES // 4, seconds=settings.REALM_BODY_SECONDS
        )
        self._outbox = Outbox(
            max_bytes=settings.REALM_ANSWER_BYTES, seconds=settings.REALM_SEND_SECONDS
        )
        self._new = True
        self._asked = _Asked()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts.requests += 1
        reply, head = self._hit(scope), scope["method"] == "HEAD"
        if reply is not None and not head and len(reply.body) <= PIECE_BYTES:
            # `Outbox.send` would send the same two messages for this small reply, but calling it
            # would make a cache hit a few percent slower.
            await send(reply.start)
            await send({"type": "http.response.body", "body": reply.body})
            return
        try:
            reply = reply or await self._answer(scope, receive)
        except Disconnected:
            return
        await self._outbox.send(send, reply, head=head)

    def _hit(self, scope: Scope) -> Reply | None:
        """Returns the reply to a read if the caches have it, else None. Returns None for each
        pinned read, because checking a pin may need the database."""
        raw: bytes = scope["raw_path"]
        if scope["method"] not in _READS or scope["query_string"]:
            return None
        wanted, copy = self._asked.get(scope["headers"])
        if wanted is None:
            return None
        try:
            plain = raw.isascii() and b"%" not in raw
            path = raw.decode("ascii") if plain else request_path(_path_info(raw))
        except (UnicodeDecodeError, RealmError):
            return None
        return self._front.reply(scope["method"], path, wanted, copy)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        if self._new:
            # The listening sockets are configured here, because they don't exist before the server
            # runs. The first request always reaches this line, because the caches are still empty.
            self._new = False
            give_up_on_stalled_connections(settings.REALM_SEND_SECONDS)
        environ = _environ(scope)
        try:
            check_host_length(environ.get("HTTP_HOST", ""))
            return await self._made(environ, receive)
        except Malformed as error:
            return _closing(_refusal(error, ""))

    async def _made(self, environ: Environ, receive: Receive) -> Reply:
        """Returns the front's answer, or a refusal. If the request's body was not read completely,
        the answer closes the connection. On an open connection, the server would parse the rest of
        the body as the next request."""
        began = perf_counter()
        lane = lane_of(environ)
        size = _size(environ)
        environ["wsgi.input"] = BytesIO()

        async def disconnected() -> None:
            # The whole body has been received, or is empty. A message with the empty body may still
            # arrive. After it, the only message that can arrive is the disconnect.
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            if size == 0:
                return await self._lanes.run(
                    lane, lambda: _call(self._front, environ), disconnected
                )
            if size is None or size > _largest(environ["PATH_INFO"]):
                # Don't read the body. Django refuses the request and tells the client the reason.
                reply = await self._lanes.run(lane, lambda: _call(self._front, environ))
                return _closing(reply)
            bodies = self._pinned_bodies if _is_pinned(environ) else self._bodies
            async with bodies.received(receive) as body:
                environ["wsgi.input"] = body
                return await self._lanes.run(
                    lane, lambda: _call(self._front, environ), disconnected
                )
        except RealmError as error:
            return _closing(_refusal(error, environ.get("HTTP_HOST", "")))
        finally:
            # Measure the time until the answer is ready, without the time that a slow client takes
            # to read the answer.
            counts.slow_request(perf_counter() - began)


class _Asked:
    """A cache of the parsed headers of read requests. Most clients send the same headers with each
    request, except for conditions, such as `If-None-Match`."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[bytes, bytes], ...], Asked] = {}

    def get(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Asked | None, bytes | None]:
        """Returns the parsed headers, and the value of `If-None-Match` or None. If the request's
        only condition is `If-None-Match`, the parsed headers omit this condition. In all other
        cases, the parsed headers include all conditions, and the second value is None. An
        `If-Modified-Since` doesn't count as a condition beside an `If-None-Match`.

        If only Django can handle the request, the parsed headers are None.
        """
        key = tuple(headers)
        found = self._known.get(key)
        if found is not None:
            return found, None
        copy: bytes | None = None
        others, conditions = [], []
        for each in key:
            if each[0] not in _CONDITIONS:
                others.append(each)
            elif each[0] == b"if-none-match" and copy is None:
                copy = each[1]
            elif each[0] != b"if-modified-since":
                conditions.append(each)
        if len(others) == len(key):
            return self._new(key), None
        # Each client has its own cached copy and therefore sends its own conditions, so conditions
        # aren't cached.
        found = self._known.get(tuple(others)) or self._new(tuple(others))
        if copy is not None and not conditions:
            return (found, copy) if len(copy) <= MANY else (None, None)
        named = Conditions.of(_variables(each for each in key if each[0] in _CONDITIONS))
        if found is None or named.are_long:
            return None, None
        return replace(found, conditions=named), None

    def _new(self, headers: tuple[tuple[bytes, bytes], ...]) -> Asked | None:
        found = asked(_variables(headers))
        if found is not None and _may_be_kept(headers):
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[headers] = found
        return found


def _may_be_kept(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Returns whether a set of headers is short enough to be cached and has no credentials."""
    if any(name in _SECRET for name, _ in headers):
        return False
    return sum(len(name) + len(value) for name, value in headers) <= _MAX_KEPT_BYTES


def _call(front: Front, environ: Environ) -> Reply:
    """Returns the front's answer, or Django's answer if the front has no answer."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    try:
        reply = front.read(environ)
        if reply is not None:
            return reply
        result = front.pass_on(
            environ, lambda status, headers, *_: started.append((status, headers))
        )
        try:
            packed = getattr(result, "packed", None)
            body = packed if isinstance(packed, Packed) else b"".join(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        if not any(name.lower() == "content-length" for name, _ in headers) and body:
            # The length lets a client detect an incomplete answer.
            headers = [*headers, ("content-length", str(len(body)))]
        return Reply(int(status[:3]), headers, body)
    except Exception:
        logger.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"][:200])
        return Reply(500, [("content-type", "text/plain"), ("content-length", "0")], b"")


def _is_pinned(environ: Environ) -> bool:
    """Returns whether a request is a pinned read: it has a valid pin, which is a signed token for
    reading a realm at one generation. `pinned_reads.opened` later checks the reader's access."""
    if not environ["PATH_INFO"].startswith("/_at/"):
        return False
    try:
        pins.read(environ.get(PIN, ""))
    except pins.InvalidPin:
        return False
    return True


def _closing(reply: Reply) -> Reply:
    return Reply(reply.status, [*reply.headers, _CLOSE], reply.body)


def _refusal(error: RealmError, host: str) -> Reply:
    response = error_response(error)
    length = ("content-length", str(len(response.content)))
    headers = [*response.items(), length, *origins.policy(host, None)]
    return Reply(response.status_code, headers, response.content)


def _size(environ: Environ) -> int | None:
    """Returns the size of a request's body in bytes. Returns None if the size is unknown: the
    request has a Transfer-Encoding or a malformed Content-Length."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    return whole_number(environ.get("CONTENT_LENGTH") or "0")


def _largest(path: str) -> int:
    """Returns the maximum size of a request body for a path. Unit: bytes."""
    usual = max(settings.FILE_SIZE_LIMIT_BYTES, _LEAST_LARGEST)
    return max(settings.ATOMIC_SIZE_LIMIT_BYTES, usual) if path.endswith("/_atomic") else usual


def _environ(scope: Scope) -> Environ:
    """Returns the WSGI environment of a request (PEP 3333). Joins repeated headers. Omits headers
    with an underscore in the name, because WSGI can't distinguish an underscore from a hyphen."""
    host, port = scope["server"] or ("", "")
    return {
        **_CONSTANT,
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": _path_info(scope["raw_path"]),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope["client"] or ("",))[0],
        "wsgi.url_scheme": scope["scheme"],
        **_variables(scope["headers"]),
    }


def _variables(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns the headers by their WSGI names. Joins and omits headers as `_environ` says."""
    variables: dict[str, str] = {}
    for raw, value in headers:
        name = _variable(raw)
        if name is not None:
            text = value.decode("latin-1")
            variables[name] = f"{variables[name]},{text}" if name in variables else text
    return variables


def _path_info(raw: bytes) -> str:
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("latin-1")


_CONSTANT: Environ = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


@short_cached(maxsize=1024)
def _variable(header: bytes) -> str | None:
    if b"_" in header:
        return None
    name = header.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"

"""The ASGI application that the web server runs: where requests come in and answers go out.

What this process has in its caches is answered at once, in the event loop. For everything else the
body is received whole, a thread of the request's lane makes the answer by the WSGI application, and
it is sent as the client takes it. So a slow client, at sending or at reading, holds some memory and
never a thread, and a cached read waits for no thread at all.

Nothing here touches the database: only the lanes' threads do.
"""

import logging
import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from django.conf import settings

from notifications.short_cached import short_cached
from realms.errors import Malformed, RealmError, error_response
from realms.front import Application, Front
from realms.http.packed import Packed
from realms.http.requests import check_host_length
from realms.serving import origins
from realms.serving.pinned_reads import PIN
from realms.web.lanes import Lanes, lane_of
from realms.web.transfer import (
    Bodies,
    Disconnected,
    Outbox,
    Receive,
    Reply,
    Send,
    give_up_on_stalled_connections,
)
from reindex.reading import pins

logger = logging.getLogger(__name__)

Scope: TypeAlias = Mapping[str, Any]
Environ: TypeAlias = dict[str, Any]

_CLOSE = ("connection", "close")
#: The largest body that is not an `_atomic`'s: a list of paths or a file. Unit: bytes.
_LEAST_LARGEST = 4 * 1024 * 1024


class RealmServer:
    """The front before Django, served by threads of limited shares."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._lanes = Lanes(settings.REALM_THREADS)
        self._bodies = Bodies(
            max_bytes=settings.REALM_BODY_BYTES, seconds=settings.REALM_BODY_SECONDS
        )
        # What renders read is asked for beside whatever anyone uploads.
        self._pinned_bodies = Bodies(
            max_bytes=settings.REALM_BODY_BYTES // 4, seconds=settings.REALM_BODY_SECONDS
        )
        self._outbox = Outbox(
            max_bytes=settings.REALM_ANSWER_BYTES, seconds=settings.REALM_SEND_SECONDS
        )
        self._new = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._new:
            # Only now the server is sure to listen.
            self._new = False
            give_up_on_stalled_connections(settings.REALM_SEND_SECONDS)
        environ = _environ(scope)
        try:
            check_host_length(environ.get("HTTP_HOST", ""))
            reply = self._hit(environ) or await self._made(environ, receive)
        except Malformed as error:
            reply = _closing(_refusal(error, ""))
        except Disconnected:
            return
        await self._outbox.send(send, reply, head=environ["REQUEST_METHOD"] == "HEAD")

    def _hit(self, environ: Environ) -> Reply | None:
        # Who may use a pin may be a question to the database.
        if environ["PATH_INFO"].startswith("/_at/"):
            return None
        hit = self._front.hit(environ)
        return hit and Reply(*hit)

    async def _made(self, environ: Environ, receive: Receive) -> Reply:
        """The WSGI application's answer, or the refusal to work for it. A body that is not read
        ends the connection: what comes after it could not be told from it."""
        lane = lane_of(environ)
        size = _size(environ)
        environ["wsgi.input"] = BytesIO()

        async def gone() -> None:
            # Once the body has come, nothing but the end of the connection does.
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            if size == 0:
                return await self._lanes.run(lane, lambda: _call(self._front, environ), gone)
            if size is None or size > _largest(environ["PATH_INFO"]):
                # Nobody reads it; Django says why.
                reply = await self._lanes.run(lane, lambda: _call(self._front, environ))
                return _closing(reply)
            bodies = self._pinned_bodies if _is_pinned(environ) else self._bodies
            async with bodies.received(receive) as body:
                environ["wsgi.input"] = body
                return await self._lanes.run(lane, lambda: _call(self._front, environ), gone)
        except RealmError as error:
            return _closing(_refusal(error, environ.get("HTTP_HOST", "")))


def _call(application: Application, environ: Environ) -> Reply:
    """What a WSGI application answers, whole."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    try:
        result = application(environ, lambda status, headers, *_: started.append((status, headers)))
        try:
            packed = getattr(result, "packed", None)
            body = packed if isinstance(packed, Packed) else b"".join(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        if not any(name.lower() == "content-length" for name, _ in headers) and body:
            # By its length a client knows whether an answer has come whole.
            headers = [*headers, ("content-length", str(len(body)))]
        return Reply(int(status[:3]), headers, body)
    except Exception:
        logger.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"][:200])
        return Reply(500, [("content-type", "text/plain"), ("content-length", "0")], b"")


def _is_pinned(environ: Environ) -> bool:
    """Whether a request is a render's: this server signed its pin. Whether that still holds is
    asked later."""
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
    """How long the body is said to be; None where that is not said, or not as it should be."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    size = environ.get("CONTENT_LENGTH") or "0"
    return int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None


def _largest(path: str) -> int:
    """The largest body that could be accepted at an address. Unit: bytes."""
    others = max(settings.FILE_SIZE_LIMIT_BYTES, _LEAST_LARGEST)
    return max(settings.ATOMIC_SIZE_LIMIT_BYTES, others) if path.endswith("/_atomic") else others


def _environ(scope: Scope) -> Environ:
    """A request as PEP 3333 has it. Repeated headers are joined; a header with an underscore in its
    name is left out: it would be taken for the one with a hyphen."""
    path: bytes = scope["raw_path"]
    host, port = scope["server"] or ("", "")
    environ: Environ = {
        **_CONSTANT,
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope["client"] or ("",))[0],
        "wsgi.url_scheme": scope["scheme"],
    }
    for raw, value in scope["headers"]:
        name = _variable(raw)
        if name is not None:
            text = value.decode("latin-1")
            environ[name] = f"{environ[name]},{text}" if name in environ else text
    return environ


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

"""An ASGI and a WSGI application that answer from a dictionary of recorded answers. They only look
up each answer, so another Python application can hardly be faster under the same web server."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from bench.peers.recorded import saved

_ANSWERS = saved()
_ASGI = {
    path: (
        each.etag.encode(),
        each.body,
        [(name.encode(), value.encode()) for name, value in each.headers],
        [(name.encode(), value.encode()) for name, value in each.headers_304],
    )
    for path, each in _ANSWERS.items()
}
_WSGI = {
    path: (each.etag, each.body, list(each.headers), list(each.headers_304))
    for path, each in _ANSWERS.items()
}


async def asgi(
    scope: Mapping[str, Any],
    receive: object,
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    etag, body, headers, headers_304 = _ASGI[scope["path"]]
    status = 200
    for name, value in scope["headers"]:
        if name == b"if-none-match" and value == etag:
            status, body, headers = 304, b"", headers_304
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    etag, body, headers, headers_304 = _WSGI[environ["PATH_INFO"]]
    if environ.get("HTTP_IF_NONE_MATCH") == etag:
        start_response("304 Not Modified", headers_304)
        return ()
    start_response("200 OK", headers)
    return (body,)

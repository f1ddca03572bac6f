"""An ASGI application that answers each request with one query by key, in a thread, without caches.

The application doesn't use Django. It has as many threads as a web process of the realm server has
for small reads (Lane.READ in `realms/web/lanes.py`). Each thread has a database connection.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

_QUERY = "SELECT body FROM bench_answers WHERE path = %s"
_HEADERS = [(b"content-type", b"text/css; charset=utf-8"), (b"cache-control", b"public, max-age=0")]
_threads = ThreadPoolExecutor(int(os.environ["BENCH_THREADS"]))
_own = threading.local()


def _read(path: str) -> bytes:
    if not hasattr(_own, "connection"):
        _own.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    row = _own.connection.execute(_QUERY, (path,), binary=True).fetchone()
    return bytes(row[0])


async def asgi(
    scope: Mapping[str, Any],
    receive: object,
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    body = await asyncio.get_running_loop().run_in_executor(_threads, _read, scope["path"])
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Uses threads to run the requests that this process's caches can't answer. Each kind of work has
a lane, which is a fixed number of threads.

A request never waits for a thread that runs another kind of work. For example, uploads don't wait
for listings, and visitors don't wait for uploads or listings. A request is refused if no thread of
its lane becomes free in time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, TypeVar

from realms.api.definition_views import MAX_WAITING as MAX_WAITING_FOR_BUILDS
from realms.errors import Busy
from realms.http.accept import accepted
from realms.web.transfer import Disconnected
from reindex.reading.media_types import ANY, API

T = TypeVar("T")

#: The maximum number of requests that wait for a thread of one lane. While this many requests are
#: waiting, the lane refuses each new request.
MAX_WAITING = 200
#: The maximum time that a request waits for a thread. Unit: seconds.
WAIT_SECONDS = 10


class Lane(StrEnum):
    """A kind of work with its own threads."""

    #: Files, modules and pages that are not in the caches, and other small reads.
    READ = "read"
    #: Liveness checks of this process, which need no database.
    LIVENESS = "liveness"
    #: Readiness checks of this replica, which query the database.
    READINESS = "readiness"
    #: Requests below `/_at/`. A process that renders pages or builds definitions sends these
    #: requests to read a realm's files at one generation.
    PINNED = "pinned"
    #: Requests that read a large part of a realm.
    LARGE = "large"
    #: Requests for the definitions of a module, which describe the card types that the module
    #: exports. Such a request may wait until the definitions are built.
    DEFINITION = "definition"
    #: Writes that have no lane of their own, such as the write of a single file.
    WRITE = "write"
    #: Requests that publish, unpublish or delete a realm. In the lane WRITE, these requests would
    #: delay small writes.
    PUBLISH = "publish"
    #: Password checks. The lane runs one check at a time, because each check takes much processor
    #: time.
    LOGIN = "login"
    #: Requests that write many files at once. The lane runs one request at a time, because each
    #: request takes much memory.
    ATOMIC = "atomic"


_HEALTH = {"/_liveness": Lane.LIVENESS, "/_readiness": Lane.READINESS}
_LOGIN = ("/_session", "/_server-session", "/_admin/login/")
_LARGE = ("/_mtimes", "/_search", "/_publishability", "/sitemap.xml")
_PUBLISH = ("/_publish-realm", "/_unpublish-realm", "/_delete-realm")
_METHODS = ("GET", "HEAD", "OPTIONS")


def lane_of(environ: Mapping[str, Any]) -> Lane:
    """Returns the lane of a request, chosen by its method, path and headers."""
    path: str = environ["PATH_INFO"]
    if path in _HEALTH:
        return _HEALTH[path]
    if path in _PUBLISH:
        return Lane.PUBLISH
    if path.startswith("/_at/"):
        return Lane.PINNED
    if path.endswith("/_atomic"):
        return Lane.ATOMIC
    if path.endswith("/_definition"):
        return Lane.DEFINITION
    if path.endswith(_LARGE):
        return Lane.LARGE
    if environ["REQUEST_METHOD"] not in _METHODS:
        return Lane.LOGIN if path.endswith(_LOGIN) else Lane.WRITE
    if path.endswith("/") and (
        accepted(environ.get("HTTP_ACCEPT", ANY)) == API or environ["QUERY_STRING"]
    ):
        # The request asks for a folder's listing by its Accept header, or it has a query string. A
        # query string may ask for a listing by its parameter `acceptHeader`.
        return Lane.READ if path.startswith("/_") else Lane.LARGE
    return Lane.READ


async def _never() -> None:
    await asyncio.Event().wait()


class Lanes:
    """The threads of this process, grouped by lane. Only one event loop may use an instance."""

    def __init__(self, threads: int) -> None:
        """Creates the threads of all lanes. READ and PINNED get `threads` threads each. LARGE,
        WRITE and PUBLISH get half of `threads` each, but at least one thread. Each of the remaining
        lanes gets a fixed number of threads."""
        half = max(1, threads // 2)
        counts = {
            Lane.READ: threads,
            Lane.LIVENESS: 1,
            Lane.READINESS: 1,
            Lane.PINNED: threads,
            Lane.LARGE: half,
            # Up to MAX_WAITING_FOR_BUILDS requests may wait for builds of definitions. While so
            # many wait, the last thread refuses further requests that need a build.
            Lane.DEFINITION: MAX_WAITING_FOR_BUILDS + 1,
            Lane.WRITE: half,
            Lane.PUBLISH: half,
            Lane.LOGIN: 1,
            Lane.ATOMIC: 1,
        }
        self._lanes = {lane: _Threads(lane, count) for lane, count in counts.items()}

    async def run(
        self,
        lane: Lane,
        call: Callable[[], T],
        disconnected: Callable[[], Awaitable[object]] = _never,
    ) -> T:
        """Runs `call` in a thread of the lane and returns its result.

        Raises Busy if no thread becomes free in time. `disconnected` returns when the client
        disconnects. If it returns before a thread is free, raises Disconnected.
        """
        return await self._lanes[lane].run(call, disconnected)


class _Threads:
    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = asyncio.Semaphore(count)
        self._waiting = 0

    async def run(self, call: Callable[[], T], disconnected: Callable[[], Awaitable[object]]) -> T:
        if self._waiting >= MAX_WAITING:
            raise self._busy()
        self._waiting += 1
        try:
            if self._free.locked():
                await self._turn(disconnected)
            else:
                await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._free.release()

    async def _turn(self, disconnected: Callable[[], Awaitable[object]]) -> None:
        """Waits for a free thread. Raises Busy after WAIT_SECONDS, and Disconnected as soon as the
        client disconnects."""
        leaving = asyncio.ensure_future(disconnected())
        taking = asyncio.create_task(self._free.acquire())
        leaving.add_done_callback(lambda _: taking.cancel())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await taking
        except (TimeoutError, asyncio.CancelledError) as error:
            if taking.done() and not taking.cancelled():
                # A thread became free just when this request gave up, so release the thread.
                self._free.release()
            if isinstance(error, TimeoutError):
                raise self._busy() from error
            if leaving.done() and not leaving.cancelled():
                raise Disconnected from error
            raise
        finally:
            leaving.cancel()

    def _busy(self) -> Busy:
        return Busy(what=f"too many requests of this kind ({self._name}) are under way")

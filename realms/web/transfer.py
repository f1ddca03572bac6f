"""Bodies on their way in and answers on their way out, within deadlines and bounded memory.

Everything here runs in the event loop. A client that is too slow is cut off; one that is slow costs
what it has sent, or a piece of what it hasn't read yet.
"""

import asyncio
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeAlias, cast

from realms.errors import Busy, TooSlow
from realms.http.packed import Packed

logger = logging.getLogger(__name__)

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[str, str]]

#: How many bodies one process receives at a time.
MAX_BODIES = 128
#: What a body has to come with, in the long run, after the first seconds. Unit: bytes a second.
MIN_BODY_RATE = 32 * 1024
#: What of an answer is on its way at a time. A smaller one is handed over whole. Unit: bytes.
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes | memoryview | Packed


class Disconnected(Exception):
    """The client has gone."""


class Bodies:
    """The request bodies that this process holds: being received, or waiting to be worked on."""

    def __init__(self, *, max_bytes: int, seconds: float) -> None:
        """A body has `seconds` to come; every MIN_BODY_RATE bytes give one second more, but at no
        moment is more than `seconds` left: what came fast buys no silence later."""
        self._max_bytes, self._seconds = max_bytes, seconds
        self._receiving: dict[_Receiving, None] = {}
        self._held = 0

    @asynccontextmanager
    async def received(self, receive: Receive) -> AsyncIterator[BytesIO]:
        """A request's body, whole. Its memory counts until the end of the block.

        Raises TooSlow, Disconnected, and Busy where there is no room: who has sent the least
        lately is cut off to make room for the others.
        """
        upload = _Receiving()
        try:
            await self._receive(receive, upload)
            upload.body.seek(0)
            yield upload.body
        finally:
            self._held -= upload.size

    async def _receive(self, receive: Receive, upload: "_Receiving") -> None:
        if len(self._receiving) >= MAX_BODIES:
            self._cut(self._slowest(), "too many uploads are under way")
        self._receiving[upload] = None
        try:
            async with asyncio.timeout(self._seconds) as upload.deadline:
                more = True
                while more:
                    message = await receive()
                    if upload.cut:
                        raise Busy(what=upload.cut)
                    if message["type"] != "http.request":
                        raise Disconnected
                    self._add(upload, message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError as error:
            if upload.cut:
                raise Busy(what=upload.cut) from error
            raise TooSlow(size=upload.size, seconds=self._seconds, rate=MIN_BODY_RATE) from error
        finally:
            self._receiving.pop(upload, None)

    def _add(self, upload: "_Receiving", piece: bytes) -> None:
        excess = self._held + len(piece) - self._max_bytes
        if excess > 0:
            full = "the uploads under way are too large"
            if excess > sum(each.size for each in self._receiving if each is not upload):
                raise Busy(what=full)
            while self._held + len(piece) > self._max_bytes:
                self._cut(self._slowest(upload), full)
        upload.body.write(piece)
        upload.size += len(piece)
        self._held += len(piece)
        if upload.deadline is not None:
            now = asyncio.get_running_loop().time()
            longer = upload.ends() + len(piece) / MIN_BODY_RATE
            upload.deadline.reschedule(min(longer, now + self._seconds))

    def _slowest(self, but: "_Receiving | None" = None) -> "_Receiving":
        return min((each for each in self._receiving if each is not but), key=_Receiving.ends)

    def _cut(self, upload: "_Receiving", why: str) -> None:
        """Ends an upload. Its memory is free at once."""
        del self._receiving[upload]
        upload.cut = why
        self._held -= upload.size
        upload.body, upload.size = BytesIO(), 0
        if upload.deadline is not None:
            # Where it has just been reached there is nothing to end.
            with suppress(RuntimeError):
                upload.deadline.reschedule(0)


class _Receiving:
    """One body on its way."""

    def __init__(self) -> None:
        self.body = BytesIO()
        self.size = 0
        #: Why it was cut off; empty where it was not.
        self.cut = ""
        self.deadline: asyncio.Timeout | None = None

    def ends(self) -> float:
        """When its time is over unless more comes."""
        return (self.deadline and self.deadline.when()) or 0.0


class _Sending:
    """One large answer on its way."""

    def __init__(self, body: bytes | memoryview | Packed) -> None:
        #: What is held in memory for it: of a part, the whole that it is a part of.
        self.whole = cast(bytes, body.obj) if isinstance(body, memoryview) else body
        self.cut = False
        self.deadline: asyncio.Timeout | None = None


class Outbox:
    """The answers that this process sends, piece by piece as the clients take them."""

    def __init__(self, *, max_bytes: int, seconds: float) -> None:
        """`seconds` is the time for each piece. Large answers wait in up to `max_bytes`, one that
        is sent to many counted once: beyond that the sender that has waited longest is cut."""
        self._max_bytes, self._seconds = max_bytes, seconds
        self._sending: dict[_Sending, None] = {}
        self._bytes = 0
        self._shared: Counter[int] = Counter()

    async def send(self, send: Send, reply: Reply, *, head: bool) -> None:
        """Sends an answer, or as much of it as the client takes in time."""
        headers = [(_encoded(name), value.encode("latin-1")) for name, value in reply.headers]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        if head:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
        elif not isinstance(reply.body, Packed) and len(reply.body) <= PIECE_BYTES:
            await send(start)
            await send({"type": "http.response.body", "body": bytes(reply.body)})
        else:
            with self._held(reply.body) as sending:
                await send(start)
                await self._in_pieces(send, _pieces(reply.body), sending)

    async def _in_pieces(self, send: Send, pieces: Iterable[bytes], sending: _Sending) -> None:
        try:
            for piece in pieces:
                if sending.cut:
                    raise TimeoutError
                async with asyncio.timeout(self._seconds) as sending.deadline:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                # Nor may one who takes everything at once keep the others from their turn.
                await asyncio.sleep(0)
        except TimeoutError:
            # The answer ends short of its length, by which the client knows.
            logger.info("an answer that nobody reads was cut off")
            return
        await send({"type": "http.response.body", "body": b""})

    @contextmanager
    def _held(self, body: bytes | memoryview | Packed) -> Iterator[_Sending]:
        sending = _Sending(body)
        key, size = id(sending.whole), len(sending.whole)
        self._sending[sending] = None
        self._shared[key] += 1
        if self._shared[key] == 1:
            self._bytes += size
            self._cut()
        try:
            yield sending
        finally:
            del self._sending[sending]
            self._shared[key] -= 1
            if not self._shared[key]:
                del self._shared[key]
                self._bytes -= size

    def _cut(self) -> None:
        """Cuts those off that have waited longest, until the rest is within the bound."""
        excess = self._bytes - self._max_bytes
        ending: Counter[int] = Counter()
        for sending in list(self._sending)[:-1]:
            if excess <= 0:
                return
            if not sending.cut:
                sending.cut = True
                if sending.deadline is not None:
                    # Between two pieces there is none to end; `cut` is seen before the next.
                    with suppress(RuntimeError):
                        sending.deadline.reschedule(0)
            key = id(sending.whole)
            ending[key] += 1
            if ending[key] == self._shared[key]:
                excess -= len(sending.whole)


def _pieces(body: bytes | memoryview | Packed) -> Iterable[bytes]:
    if isinstance(body, Packed):
        return body.pieces(PIECE_BYTES)
    return (bytes(body[start : start + PIECE_BYTES]) for start in range(0, len(body), PIECE_BYTES))


@lru_cache(maxsize=4096)
def _encoded(name: str) -> bytes:
    return name.lower().encode("latin-1")


def give_up_on_stalled_connections(seconds: float) -> None:
    """Has the kernel end a connection whose client has taken nothing for so long. What the process
    has handed over it doesn't see any more: this is for the connections that it accepts from now
    on, which inherit it from the sockets that it listens on."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as each:
                    if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        each.setsockopt(
                            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000)
                        )

"""Receives request bodies and sends answers, with limits for time and memory.

All functions of this module run in the event loop, so a slow client occupies no thread. A client
that is too slow is cut off. A slow upload occupies memory only for the bytes that have arrived. A
slow download occupies memory only for the answer and for a copy of one piece of the answer.
"""

import asyncio
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from io import BytesIO
from typing import Any, TypeAlias, cast

from realms.errors import Busy, TooSlow
from realms.http.packed import Packed
from realms.http.replies import Body, Reply

logger = logging.getLogger(__name__)

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

#: The maximum number of bodies that one `Bodies` object receives at the same time.
MAX_BODIES = 128
#: This many bytes of an upload extend its deadline by one second (see `Bodies`).
MIN_BODY_RATE = 32 * 1024
#: An answer that is larger than this is sent in pieces of this size. Unit: bytes.
PIECE_BYTES = 64 * 1024
_NOTHING = {"type": "http.response.body", "body": b""}


class Disconnected(Exception):
    """The client has closed the connection."""


class Bodies:
    """Receives request bodies. Limits the memory of all bodies together, from their first byte
    until they are no longer used."""

    def __init__(self, *, max_bytes: int, seconds: float) -> None:
        """`max_bytes` is the memory limit. The deadline of an upload is at first `seconds` after
        its start. Each piece that arrives extends the deadline by the time that the piece takes at
        MIN_BODY_RATE. The deadline is never more than `seconds` in the future, so no client can
        pause for longer than `seconds`."""
        self._max_bytes, self._seconds = max_bytes, seconds
        self._receiving: dict[_Receiving, None] = {}
        self._held = 0

    @asynccontextmanager
    async def received(self, receive: Receive) -> AsyncIterator[BytesIO]:
        """Receives a request's complete body. The body counts towards the memory limit until the
        `with` block ends. If MAX_BODIES or the memory limit would be exceeded, other uploads are
        cut off. The upload with the earliest deadline is cut off first.

        Raises TooSlow if the client misses the deadline, and Disconnected if the client closes the
        connection. Raises Busy if this upload is cut off, or if it would exceed the memory limit
        even after all other uploads were cut off.
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

    def _slowest(self, other_than: "_Receiving | None" = None) -> "_Receiving":
        candidates = (each for each in self._receiving if each is not other_than)
        return min(candidates, key=_Receiving.ends)

    def _cut(self, upload: "_Receiving", why: str) -> None:
        """Ends an upload and frees its memory at once."""
        del self._receiving[upload]
        upload.cut = why
        self._held -= upload.size
        upload.body, upload.size = BytesIO(), 0
        if upload.deadline is not None:
            # `reschedule` raises RuntimeError if the deadline has just passed. In this case, the
            # deadline ends the upload anyway.
            with suppress(RuntimeError):
                upload.deadline.reschedule(0)


class _Receiving:
    """A body that this process is receiving."""

    def __init__(self) -> None:
        self.body = BytesIO()
        self.size = 0
        #: The reason why the upload was cut off; empty if it was not.
        self.cut = ""
        self.deadline: asyncio.Timeout | None = None

    def ends(self) -> float:
        """Returns the upload's deadline, as a time of the event loop's clock."""
        return (self.deadline and self.deadline.when()) or 0.0


class _Sending:
    """A large answer that this process is sending."""

    def __init__(self, body: Body) -> None:
        #: The content that the answer keeps in memory. If the answer is only a part of a content,
        #: the whole content stays in memory.
        self.whole = cast(bytes, body.obj) if isinstance(body, memoryview) else body
        self.cut = False
        self.deadline: asyncio.Timeout | None = None


class Outbox:
    """Sends answers, as fast as the clients read them. Sends large answers in pieces."""

    def __init__(self, *, max_bytes: int, seconds: float) -> None:
        """`seconds` is the time limit for each piece. `max_bytes` is the memory limit for all large
        answers together. If several clients read the same content, the limit counts this content
        once. If the limit is exceeded, the oldest transfers are cut off."""
        self._max_bytes, self._seconds = max_bytes, seconds
        self._sending: dict[_Sending, None] = {}
        self._bytes = 0
        self._shared: Counter[int] = Counter()

    async def send(self, send: Send, reply: Reply, *, head: bool) -> None:
        """Sends an answer, without its body if `head` is true. Stops a large answer early if the
        client doesn't read it in time, or if the memory limit is exceeded."""
        if head:
            await send(reply.start)
            await send(_NOTHING)
        elif not isinstance(reply.body, Packed) and len(reply.body) <= PIECE_BYTES:
            await send(reply.start)
            await send({"type": "http.response.body", "body": bytes(reply.body)})
        else:
            with self._held(reply.body) as sending:
                await send(reply.start)
                await self._in_pieces(send, _pieces(reply.body), sending)

    async def _in_pieces(self, send: Send, pieces: Iterable[bytes], sending: _Sending) -> None:
        try:
            for piece in pieces:
                if sending.cut:
                    raise TimeoutError
                async with asyncio.timeout(self._seconds) as sending.deadline:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                # If this client reads fast, `send` never waits. Without this pause, the event loop
                # would serve no other client until the whole answer is sent.
                await asyncio.sleep(0)
        except TimeoutError:
            # The client detects the cut, because fewer bytes arrive than Content-Length says.
            logger.info("cut off an answer: its client is slow, or answers take too much memory")
            return
        await send(_NOTHING)

    @contextmanager
    def _held(self, body: Body) -> Iterator[_Sending]:
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
        """Cuts off the oldest transfers until the others use at most `max_bytes`. Never cuts off
        the newest transfer."""
        excess = self._bytes - self._max_bytes
        ending: Counter[int] = Counter()
        for sending in list(self._sending)[:-1]:
            if excess <= 0:
                return
            if not sending.cut:
                sending.cut = True
                if sending.deadline is not None:
                    # Between two pieces, `reschedule` raises RuntimeError, because the last piece's
                    # `timeout` block has ended. `_in_pieces` checks `cut` before the next piece.
                    with suppress(RuntimeError):
                        sending.deadline.reschedule(0)
            key = id(sending.whole)
            ending[key] += 1
            if ending[key] == self._shared[key]:
                excess -= len(sending.whole)


def _pieces(body: Body) -> Iterable[bytes]:
    if isinstance(body, Packed):
        return body.pieces(PIECE_BYTES)
    return (bytes(body[start : start + PIECE_BYTES]) for start in range(0, len(body), PIECE_BYTES))


def give_up_on_stalled_connections(seconds: float) -> None:
    """Makes the kernel close a connection if data for the client stays unacknowledged for
    `seconds`. Otherwise the web server would keep this data in memory. The function sets the option
    TCP_USER_TIMEOUT on the listening sockets of this process, and every accepted connection
    inherits the option."""
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

"""Represents complete responses in the form of ASGI messages, which the web server sends
unchanged."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from notifications.short_cached import short_cached
from realms.http.packed import Packed

#: The names of the headers that have a different value in nearly every answer. Answers share the
#: other headers.
OWN = {"etag", "last-modified", "x-created", "x-boxel-canonical-path", "location"}
Body: TypeAlias = bytes | memoryview | Packed


class Reply:
    """A complete response, with a status, headers and a body. A reply is immutable, so that many
    requests can share it."""

    __slots__ = ("body", "start")

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], body: Body) -> None:
        #: The ASGI message with the status and the headers. The web server sends it before the
        #: body.
        self.start: dict[str, Any] = {
            "type": "http.response.start",
            "status": status,
            "headers": [_encoded(name, value) for name, value in headers],
        }
        self.body = body

    @property
    def status(self) -> int:
        return int(self.start["status"])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers in WSGI's form, which is text and not bytes. Their names are in lower
        case."""
        encoded: list[tuple[bytes, bytes]] = self.start["headers"]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in encoded]


class Finished(Reply):
    """A reply that is kept with the cached answer from which it was made. A later request for this
    answer gets the kept reply if the request leads to the same `policy`, `coding` and `decided`.
    `policy` are the security policy headers for the requested host. `coding` is the content coding.
    `decided` is the status that results from the request's conditions."""

    __slots__ = ("coding", "decided", "etag", "host", "length", "policy")

    def __init__(
        self, reply: Reply, host: str, policy: object, coding: str | None, decided: int
    ) -> None:
        self.start, self.body = reply.start, reply.body
        #: The Host header of the last request that got this reply. `realms/front.py` updates
        #: `host`, because a later request with the same host needs no comparison of policies. All
        #: other attributes are immutable.
        self.host = host
        self.policy, self.coding, self.decided = policy, coding, decided
        headers: list[tuple[bytes, bytes]] = self.start["headers"]
        #: The total length of the values of the headers. Unit: bytes.
        self.length = sum(len(value) for _, value in headers)
        #: The value of the ETag header; None if the reply has no ETag or a weak one.
        self.etag: bytes | None = next(
            (value for name, value in headers
             if name == b"etag" and not value.startswith(b"W/")), None,
        )  # fmt: skip


def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    """Encodes a header as the bytes that the web server sends."""
    return (_name(name), value.encode("latin-1")) if name in OWN else _shared(name, value)


@short_cached(maxsize=4096)
def _shared(name: str, value: str) -> tuple[bytes, bytes]:
    """Encodes a header as bytes. The result is cached, so that replies with the same header share
    the bytes."""
    return _name(name), value.encode("latin-1")


@lru_cache(maxsize=4096)
def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")

"""Represents complete responses in ASGI's form. The web server sends these responses unchanged."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from notifications.short_cached import short_cached
from realms.http.packed import Packed

#: Headers that have a different value in nearly every answer.
OWN = {"etag", "last-modified", "x-created", "x-boxel-canonical-path", "location"}
Body: TypeAlias = bytes | memoryview | Packed


class Reply:
    """A complete response, with a status, headers and a body. A reply is immutable, so that many
    requests can share it."""

    __slots__ = ("body", "start")

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], body: Body) -> None:
        #: ASGI's first message.
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
        """The headers in WSGI's form, with names in lower case."""
        encoded: list[tuple[bytes, bytes]] = self.start["headers"]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in encoded]


class Finished(Reply):
    """A reply that a cache keeps for later requests. The reply answers every request that has the
    same policy headers, the same content coding, and the same outcome of its conditions."""

    __slots__ = ("coding", "decided", "etag", "host", "length", "policy")

    def __init__(
        self, reply: Reply, host: str, policy: object, coding: str | None, decided: int
    ) -> None:
        self.start, self.body = reply.start, reply.body
        #: The Host header of the last request that got this reply. The front updates `host`. All
        #: other attributes are immutable.
        self.host = host
        self.policy, self.coding, self.decided = policy, coding, decided
        headers: list[tuple[bytes, bytes]] = self.start["headers"]
        #: The total length of the values of the headers. Unit: bytes.
        self.length = sum(len(value) for _, value in headers)
        #: The value of the ETag header; None for a weak ETag.
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

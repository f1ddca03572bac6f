"""Reads a request's URL, method and body."""

import re

from django.http import HttpRequest, UnreadablePostError

from notifications.texts import composed, whole_number
from realms.addresses import public_origin
from realms.errors import (
    LengthRequired,
    Malformed,
    TooLarge,
    TooLong,
)
from realms.http.codings import decoded

MIN_GENERATION = "HTTP_X_REALM_MIN_GENERATION"

#: The WSGI environment's key for the original PATH_INFO. The front stores it there, because Django
#: replaces PATH_INFO.
RAW_PATH = "realms.raw_path"
#: Longer than any realm URL with a path. Unit: bytes.
MAX_ADDRESS_BYTES = 4096
#: The longest host name in DNS, with a port. Unit: bytes.
MAX_HOST_BYTES = 260
#: The most digits that Python parses as a number. A long Content-Length is valid, but too large.
_MAX_LENGTH_DIGITS = 4300
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


def check_host_length(host: str) -> None:
    """Raises Malformed for a Host header that is longer than any host."""
    if len(host) > MAX_HOST_BYTES:
        raise Malformed(
            what=f"the Host header has {len(host)} bytes; the limit is {MAX_HOST_BYTES}"
        )


def request_url(host: str, path_info: str) -> str:
    """The public URL of a request, unescaped and in composed form (NFC). `path_info` is WSGI's
    PATH_INFO: unescaped bytes, decoded as Latin-1.

    Raises Malformed, TooLong, and UnicodeDecodeError for a path that is not valid UTF-8.
    """
    return request_origin(host) + request_path(path_info)


def request_origin(host: str) -> str:
    """The public origin of the realms at a Host header. Raises Malformed."""
    check_host_length(host)
    if not _HOST.fullmatch(host):
        raise Malformed(what=f"the Host header is {host[:80]!r}; expected a host name and a port")
    return public_origin(host)


def request_path(path_info: str) -> str:
    """The path of a request, unescaped and in composed form (NFC). `path_info` is WSGI's PATH_INFO.

    Raises Malformed, TooLong, and UnicodeDecodeError for a path that is not valid UTF-8.
    """
    if len(path_info) > MAX_ADDRESS_BYTES:
        raise TooLong(limit=MAX_ADDRESS_BYTES)
    return composed(without_nul(path_info).encode("latin-1").decode())


def without_nul(path: str) -> str:
    """The path of a request. Raises Malformed if it has a NUL, which no file's path may have."""
    if "\x00" in path:
        raise Malformed(what="the path has a NUL character")
    return path


def requested_url(request: HttpRequest) -> str:
    """Like `request_url`, for a Django request."""
    path = request.META.get(RAW_PATH)
    if path is None:
        path = request.path_info.encode().decode("latin-1")
    return request_url(request.META.get("HTTP_HOST", ""), path)


def read_body(request: HttpRequest, limit: int, name: str) -> bytes:
    """Reads and decodes the whole body, of at most `limit` bytes. Errors quote `name`.

    Raises TooLarge and UnsupportedCoding. Raises Malformed for a body that ends early, so that an
    incomplete upload is never stored. Raises LengthRequired for a body of unknown length, because
    WSGI can't distinguish its end from a lost connection.
    """
    announced = request.headers.get("Content-Length") or "0"
    if "Transfer-Encoding" in request.headers:
        raise LengthRequired()
    size = whole_number(announced, digits=_MAX_LENGTH_DIGITS)
    if size is None:
        raise Malformed(what=f"Content-Length is {announced[:40]!r}; expected a whole number")
    if size > limit:
        raise TooLarge(path=name, size=size, limit=limit)
    try:
        data = request.body
    except UnreadablePostError as error:
        raise Malformed(what=f"{name} could not be read to its end") from error
    if len(data) != size:
        raise Malformed(what=f"{name} ended after {len(data)} of {size} bytes")
    return decoded(data, request.headers.get("Content-Encoding", ""), limit, name)


def min_generation(value: str | None) -> int:
    """The generation in an X-Realm-Min-Generation header; 0 for None. Raises Malformed."""
    if value is None:
        return 0
    generation = whole_number(value)
    if generation is None:
        raise Malformed(what=f"X-Realm-Min-Generation is {value[:40]!r}; expected a whole number")
    return generation


def requested_method(request: HttpRequest) -> str:
    """The request's method. It is QUERY for a POST with `X-HTTP-Method-Override: QUERY`, which
    clients send that can't send QUERY."""
    method = request.method or "GET"
    override = request.headers.get("X-HTTP-Method-Override", "").strip().upper()
    return "QUERY" if method == "POST" and override == "QUERY" else method

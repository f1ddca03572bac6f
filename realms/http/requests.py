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

#: The WSGI name of the header with the lowest generation of a realm that the client accepts.
MIN_GENERATION = "HTTP_X_REALM_MIN_GENERATION"

#: The WSGI environment's key for the original PATH_INFO. The front (`realms/front.py`) stores the
#: value under this key before it passes a request to Django, because Django replaces PATH_INFO.
RAW_PATH = "realms.raw_path"
#: The maximum length of the path in a request's URL, unescaped. The path of a stored file's URL is
#: always shorter. Unit: bytes.
MAX_ADDRESS_BYTES = 4096
#: The maximum length of a Host header. The longest host name in DNS fits, with a port. Unit: bytes.
MAX_HOST_BYTES = 260
#: The maximum number of digits of a Content-Length. Python's `int` refuses texts with more digits.
_MAX_LENGTH_DIGITS = 4300
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


def check_host_length(host: str) -> None:
    """Raises Malformed for a Host header that is longer than any valid host."""
    if len(host) > MAX_HOST_BYTES:
        raise Malformed(
            what=f"the Host header has {len(host)} bytes; the limit is {MAX_HOST_BYTES}"
        )


def request_url(host: str, path_info: str) -> str:
    """Returns the public URL of a request, unescaped and in composed form (NFC). `path_info` is
    WSGI's PATH_INFO: unescaped bytes, decoded as Latin-1.

    Raises the errors that `request_origin` and `request_path` raise.
    """
    return request_origin(host) + request_path(path_info)


def request_origin(host: str) -> str:
    """Returns the public origin of the realms that a request with this Host header asks for. Raises
    Malformed if the header is not a host."""
    check_host_length(host)
    if not _HOST.fullmatch(host):
        raise Malformed(what=f"the Host header is {host[:80]!r}; expected a host or host:port")
    return public_origin(host)


def request_path(path_info: str) -> str:
    """Returns the path of a request, unescaped and in composed form (NFC). `path_info` is WSGI's
    PATH_INFO.

    Raises Malformed or TooLong for an invalid path, and UnicodeDecodeError for a path that is not
    valid UTF-8.
    """
    if len(path_info) > MAX_ADDRESS_BYTES:
        raise TooLong(limit=MAX_ADDRESS_BYTES)
    return composed(without_nul(path_info).encode("latin-1").decode())


def without_nul(path: str) -> str:
    """Returns `path`. Raises Malformed if the path has a NUL character, which no file's path may
    have."""
    if "\x00" in path:
        raise Malformed(what="the path has a NUL character")
    return path


def requested_url(request: HttpRequest) -> str:
    """Returns the public URL of a Django request, unescaped and in composed form (NFC)."""
    path = request.META.get(RAW_PATH)
    if path is None:
        path = request.path_info.encode().decode("latin-1")
    return request_url(request.META.get("HTTP_HOST", ""), path)


def read_body(request: HttpRequest, limit: int, name: str) -> bytes:
    """Reads a request's whole body and decodes its content codings. Error messages call the body
    `name`.

    Raises TooLarge if the body exceeds `limit` bytes before or after decoding. Raises
    UnsupportedCoding for an unknown content coding. Raises Malformed for a body that ends early, so
    that an incomplete upload is never stored. Raises LengthRequired for a body of unknown length,
    because WSGI can't distinguish the end of such a body from a lost connection.
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
    """Returns the generation in an X-Realm-Min-Generation header. Returns 0 if the request has no
    such header (None). Raises Malformed if the header is not a number."""
    if value is None:
        return 0
    generation = whole_number(value)
    if generation is None:
        raise Malformed(what=f"X-Realm-Min-Generation is {value[:40]!r}; expected a whole number")
    return generation


def requested_method(request: HttpRequest) -> str:
    """Returns the request's method. A POST with `X-HTTP-Method-Override: QUERY` counts as QUERY,
    for clients that can't send QUERY."""
    method = request.method or "GET"
    override = request.headers.get("X-HTTP-Method-Override", "").strip().upper()
    return "QUERY" if method == "POST" and override == "QUERY" else method

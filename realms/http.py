"""What the front and the views share: reading a request's address and giving an answer its form."""

import os
import re
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse, UnreadablePostError
from django.http.request import MediaType
from django.http.response import HttpResponseBase
from django.utils.http import parse_etags

from notifications.paths import composed
from notifications.short_cached import short_cached
from realms import ranges
from realms.codings import decoded
from realms.conditions import Conditions
from realms.errors import (
    LengthRequired,
    Malformed,
    RangeNotSatisfiable,
    RealmError,
    TooLarge,
    TooLong,
    error_response,
)
from realms.packed import Packed
from realms.serving import ACCEPT_RANGES, Answer, Headers, Variant
from realms.urls_and_paths import public_origin

SOURCE = "application/vnd.card+source"
CARD = "application/vnd.card+json"
API = "application/vnd.api+json"
JSON = "application/json"
HTML = "text/html"
#: Of a longer Accept header the rest is not read. Unit: characters.
_MAX_ACCEPT = 500

MIN_GENERATION = "HTTP_X_REALM_MIN_GENERATION"

#: Where the front leaves PATH_INFO as the server gave it: Django puts its own reading in its place.
RAW_PATH = "realms.raw_path"
#: A longer address names nothing: a realm's URL and a path in it, with room to spare. Unit: bytes.
MAX_ADDRESS_BYTES = 4096
#: A host's name and a port: DNS has none that is longer. Unit: bytes.
MAX_HOST_BYTES = 260
_UNPACKED_BYTES = 64 * 1024
_NO_CONDITIONS = Conditions()
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


@short_cached(maxsize=1024)
def accepted(accept: str) -> str:
    """What an Accept header wants most of what this protocol tells apart: one of its media types if
    it is named, `text/html` where a page is wanted before a module's JavaScript, else `*/*`.

    By the rules of RFC 9110, 12.5.1; of types that are wanted alike a named `application/vnd.` goes
    before a page, and a page before JSON.
    """
    ranges = _ranges(accept)
    named = dict.fromkeys(f"{each.main_type}/{each.sub_type}" for each in ranges)
    # In the order of preference among those that are wanted alike.
    offers = [*(each for each in named if each in (SOURCE, CARD, API)), HTML, JSON, "*/*"]
    wanted = {each: _quality(ranges, each) for each in offers if each in named}
    if "text/*" in named:
        wanted[HTML] = _quality(ranges, HTML)
    if wanted.get(HTML, 1) < _quality(ranges, "text/javascript"):
        del wanted[HTML]
    best = max(wanted, key=lambda each: wanted[each], default="*/*")
    return best if wanted.get(best) else "*/*"


@short_cached(maxsize=1024)
def takes_pages(accept: str) -> bool:
    """Whether HTML is among what an Accept header takes."""
    return _quality(_ranges(accept), HTML) > 0


def _ranges(accept: str) -> list[MediaType]:
    if len(accept) > _MAX_ACCEPT:
        accept = accept[:_MAX_ACCEPT].rpartition(",")[0]
    return [MediaType(each) for each in accept.split(",") if each.strip()] or [MediaType("*/*")]


def _quality(ranges: list[MediaType], media_type: str) -> float:
    """How much a type is wanted, from 0 to 1: the most specific range that it is in decides."""
    main, _, sub = media_type.partition("/")
    wanted = [
        (each.main_type == main, each.sub_type == sub, each.quality)
        for each in ranges
        # Some clients write `*` for `*/*`.
        if each.main_type in ("*", main) and (each.sub_type or "*") in ("*", sub)
    ]
    return max(wanted, default=(False, False, 0))[2]


VARIANTS = {
    SOURCE: Variant.SOURCE,
    HTML: Variant.HTML,
    "*/*": Variant.MODULE,
    JSON: Variant.MODULE,
}


def check_host_length(host: str) -> None:
    """Raises Malformed for a Host header that is longer than any host."""
    if len(host) > MAX_HOST_BYTES:
        raise Malformed(
            what=f"the Host header has {len(host)} bytes; the limit is {MAX_HOST_BYTES}"
        )


def request_url(host: str, path_info: str) -> str:
    """The public URL, unescaped and composed, that a request to this replica means. `path_info` is
    as WSGI has it: unescaped bytes, spelt as Latin-1.

    Raises Malformed, TooLong, and UnicodeDecodeError where the path is not valid UTF-8.
    """
    check_host_length(host)
    if not _HOST.fullmatch(host):
        raise Malformed(what=f"the Host header is {host[:80]!r}; expected a host name and a port")
    if len(path_info) > MAX_ADDRESS_BYTES:
        raise TooLong(limit=MAX_ADDRESS_BYTES)
    if "\x00" in path_info:
        raise Malformed(what="the path has a NUL character")
    return public_origin(host) + composed(path_info.encode("latin-1").decode())


def requested_url(request: HttpRequest) -> str:
    """As `request_url`, of a request that has come as far as Django."""
    path = request.META.get(RAW_PATH)
    if path is None:
        path = request.path_info.encode().decode("latin-1")
    return request_url(request.META.get("HTTP_HOST", ""), path)


def read_body(request: HttpRequest, limit: int, name: str) -> bytes:
    """The whole body, decoded, of which no more than `limit` bytes are ever held. `name` is for
    errors.

    Raises TooLarge, UnsupportedCoding, Malformed for a body that ends too early (half an upload is
    not a file), and LengthRequired for one of unknown length, whose early end WSGI can't tell from
    its end.
    """
    announced = request.headers.get("Content-Length") or "0"
    if "Transfer-Encoding" in request.headers:
        raise LengthRequired()
    if not announced.isascii() or not announced.isdigit():
        raise Malformed(what=f"Content-Length is {announced[:40]!r}; expected a whole number")
    size = int(announced)
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
    """The generation that X-Realm-Min-Generation asks for; 0 without one. Raises Malformed."""
    if value is None:
        return 0
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Malformed(what=f"X-Realm-Min-Generation is {value[:40]!r}; expected a whole number")
    return int(value)


def requested_method(request: HttpRequest) -> str:
    """The method that a request means: clients that can't send QUERY send POST and say so."""
    method = request.method or "GET"
    override = request.headers.get("X-HTTP-Method-Override", "").strip().upper()
    return "QUERY" if method == "POST" and override == "QUERY" else method


@lru_cache(maxsize=1)
def replica_header() -> str:
    """Which replica, and which of its web workers, answers."""
    return f"{settings.REALM_REPLICA}/{os.getpid()}"


def response_parts(
    answer: Answer, method: str, conditions: Conditions, cache: str
) -> tuple[int, Headers, bytes | memoryview]:
    """Status, headers and body of an answer to one request. `cache` is `hit` or `miss`. A part of
    the content is a view of it: copies would add up where nobody reads them."""
    told: Headers = (("x-boxel-cache", cache),)
    outcome = _outcome(answer, conditions)
    if outcome == 304:
        kept = tuple(h for h in answer.headers if h[0] not in ("content-type", "x-created"))
        return 304, kept + told, b""
    if outcome == 412:
        return _refused(answer, conditions.unmet(answer.realm_url or ""), told)
    body: bytes | memoryview = answer.content.body
    status = answer.content.status
    # Of nothing there is no part: the whole is as much as anyone can want.
    if conditions.range is not None and body and method == "GET" and _in_parts(answer, conditions):
        size = len(body)
        try:
            part = ranges.wanted(conditions.range, size)
        except ranges.Unsatisfiable:
            told += (("content-range", f"bytes */{size}"),)
            return _refused(answer, RangeNotSatisfiable(size=size), told)
        if part is not None:
            status, body = 206, memoryview(body)[part.start : part.stop]
            told += (("content-range", f"bytes {part.start}-{part.stop - 1}/{size}"),)
    length = ("content-length", str(len(body)))
    return status, (*answer.headers, length, *told), b"" if method == "HEAD" else body


def _in_parts(answer: Answer, conditions: Conditions) -> bool:
    """Whether a part of the answer may be sent: never of another content than the client has."""
    if ACCEPT_RANGES not in answer.headers:
        return False
    known = conditions.if_range
    validators = [value for name, value in answer.headers if name in ("etag", "last-modified")]
    return known is None or known.strip() in validators


def _outcome(answer: Answer, conditions: Conditions) -> int:
    if answer.content.status != 200 or conditions == _NO_CONDITIONS:
        return 200
    told = dict(answer.headers)
    return conditions.of_read(told.get("etag"), told.get("last-modified"))


def _refused(answer: Answer, error: RealmError, told: Headers) -> tuple[int, Headers, bytes]:
    """A refusal in place of an answer that there is."""
    refusal = error_response(error)
    changed = {"content-type": refusal["content-type"], "cache-control": "no-store"}
    kept = tuple(
        (name, changed.get(name, value))
        for name, value in answer.headers
        if name not in ("etag", "last-modified", "x-created", "content-encoding")
    )
    length = ("content-length", str(len(refusal.content)))
    return error.status, (*kept, length, *told), refusal.content


def respond(request: HttpRequest, answer: Answer, cache: str) -> HttpResponse:
    """An answer as Django's response."""
    status, headers, body = response_parts(
        answer, request.method or "GET", Conditions.of(request), cache
    )
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in headers:
        response[name] = value
    return response


class PackedResponse(StreamingHttpResponse):
    """A large text, unpacked as it is sent."""

    def __init__(self, packed: Packed) -> None:
        #: What the server sends itself, piece by piece as the client takes it.
        self.packed = packed
        super().__init__(packed.pieces(_UNPACKED_BYTES))
        self["Content-Length"] = str(packed.size)


def packed_response(
    request: HttpRequest, packed: Packed, content_type: str, generation: int
) -> HttpResponseBase:
    """A large text as it is kept, where the client takes that, else unpacked on its way."""
    etag = f'W/"{packed.sha256}"'
    known = parse_etags(request.headers.get("If-None-Match", ""))
    response: HttpResponseBase
    if "*" in known or etag in [f"W/{each.removeprefix('W/')}" for each in known]:
        response = HttpResponse(status=304)
    elif _takes_gzip(request.headers.get("Accept-Encoding", "")):
        response = HttpResponse(packed.data)
        response["Content-Encoding"] = "gzip"
    elif request.method == "HEAD":
        response = HttpResponse()
        response["Content-Length"] = str(packed.size)
    else:
        response = PackedResponse(packed)
    response["Content-Type"] = content_type
    response["ETag"] = etag
    response["Vary"] = "Accept, Accept-Encoding"
    response["X-Realm-Generation"] = str(generation)
    return response


def _takes_gzip(accept_encoding: str) -> bool:
    for each in accept_encoding.lower().split(","):
        coding, _, weight = (part.strip() for part in each.partition(";"))
        if coding in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False

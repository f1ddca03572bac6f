"""Turns a cached answer into the status, headers and body of an HTTP response."""

import os
from functools import lru_cache
from typing import Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import parse_etags

from notifications.emit import local_board
from realms.errors import (
    RangeNotSatisfiable,
    RealmError,
)
from realms.figures.counting import counts
from realms.http import ranges
from realms.http.compression import Coding, accepts, coded_etag
from realms.http.conditions import NO_CONDITIONS, Conditions
from realms.http.error_answers import error_response
from realms.http.headers import NO_STORE, Headers, add, of_generation
from realms.http.packed import Packed
from realms.serving.compact import Answer
from realms.serving.contents import ACCEPT_RANGES, Variant
from reindex.reading.media_types import ANY, HTML, JSON, SOURCE

_UNPACKED_BYTES = 64 * 1024
#: The headers that a 304 omits. They describe a body, which a 304 doesn't have.
_NOT_IN_304 = ("content-type", "content-encoding", "x-created", ACCEPT_RANGES[0])

VARIANTS = {
    SOURCE: Variant.SOURCE,
    HTML: Variant.HTML,
    ANY: Variant.MODULE,
    JSON: Variant.MODULE,
}


@lru_cache(maxsize=1)
def replica_header() -> str:
    """Returns the value of the header `x-realm-replica`: this replica's name and this process's
    ID."""
    return f"{settings.REALM_REPLICA}/{os.getpid()}"


def response_parts(
    answer: Answer,
    method: str,
    conditions: Conditions,
    cache: str,
    coding: Coding | None,
    decided: Literal[200, 304, 412],
) -> tuple[int, Headers, bytes | memoryview]:
    """Returns the status, headers and body of the response to one request. `cache` is `hit` or
    `miss`, and says whether the answer comes from a cache. `decided` is the result of `outcome`.

    The body of a 206 is a memoryview of the content, because a copy for each slow client would fill
    the memory.
    """
    extra: Headers = (("x-boxel-cache", cache),)
    headers, content = _form(answer, coding, conditions)
    if decided == 304:
        return 304, tuple(each for each in headers if each[0] not in _NOT_IN_304) + extra, b""
    if decided == 412:
        return _refused(answer, conditions.unmet(answer.realm_url or ""), extra)
    body: bytes | memoryview = content
    status = answer.status
    # An empty body has no ranges, so a request for a range of it gets the whole answer.
    if conditions.range is not None and body and method == "GET" and _in_parts(answer, conditions):
        size = len(body)
        try:
            part = ranges.wanted(conditions.range, size)
        except ranges.Unsatisfiable:
            extra += (("content-range", f"bytes */{size}"),)
            return _refused(answer, RangeNotSatisfiable(size=size), extra)
        if part is not None:
            status, body = 206, memoryview(body)[part.start : part.stop]
            extra += (("content-range", f"bytes {part.start}-{part.stop - 1}/{size}"),)
    length = ("content-length", str(len(body)))
    return status, (*headers, length, *extra), b"" if method == "HEAD" else body


def is_made(answer: Answer, coding: Coding | None) -> bool:
    """Returns whether the answer can be sent in a content coding at once, without compressing the
    answer's body first."""
    return coding is None or coding in answer.coded or not answer.frame.compressible


def outcome(
    answer: Answer, coding: Coding | None, conditions: Conditions
) -> Literal[200, 304, 412]:
    """Evaluates the conditions of a read request. If the result is 304 or 412, the response has
    this status. The result 200 means that the client gets the answer, or the requested range of
    the answer. The response may then have another status, for example 404 or 206."""
    if answer.status != 200 or conditions is NO_CONDITIONS:
        return 200
    validators = dict(_form(answer, coding, conditions)[0])
    return conditions.of_read(validators.get("etag"), validators.get("last-modified"))


def _form(answer: Answer, coding: Coding | None, conditions: Conditions) -> tuple[Headers, bytes]:
    """Returns the answer's headers and body in a content coding. The body is uncompressed if the
    answer has no body in this coding, or if the request asks for a range."""
    coded = answer.coded.get(coding) if coding else None
    if coding is None or coded is None or conditions.range is not None:
        return answer.headers, answer.body
    kept = (
        (name, coded_etag(value, coding) if name == "etag" else value)
        for name, value in answer.headers
        if name != ACCEPT_RANGES[0]
    )
    return (*kept, ("content-encoding", coding.value)), coded


def _in_parts(answer: Answer, conditions: Conditions) -> bool:
    """Returns whether the client may get a range of the answer. The answer must allow ranges, and
    `If-Range` must be absent or match."""
    if ACCEPT_RANGES not in answer.headers:
        return False
    if_range = conditions.if_range
    validators = [value for name, value in answer.headers if name in ("etag", "last-modified")]
    return if_range is None or if_range.strip() in validators


def _refused(answer: Answer, error: RealmError, extra: Headers) -> tuple[int, Headers, bytes]:
    """Returns the error response for failed conditions or an unsatisfiable range. The response's
    body describes the error. The response has the answer's headers, except those that describe the
    answer's body. Content-Type and Cache-Control get new values."""
    refusal = error_response(error)
    changed = {"content-type": refusal["content-type"], "cache-control": NO_STORE}
    kept = tuple(
        (name, changed.get(name, value))
        for name, value in answer.headers
        if name not in ("etag", "last-modified", "x-created", "content-encoding")
    )
    length = ("content-length", str(len(refusal.content)))
    return error.status, (*kept, length, *extra), refusal.content


def respond(
    request: HttpRequest, answer: Answer, cache: str, coding: Coding | None = None
) -> HttpResponse:
    """Counts a read request and returns its answer as a Django response."""
    counts.read(cache, live=local_board().live())
    conditions = Conditions.of(request.META)
    decided = outcome(answer, coding, conditions)
    status, headers, body = response_parts(
        answer, request.method or "GET", conditions, cache, coding, decided
    )
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in headers:
        response[name] = value
    return response


class PackedResponse(StreamingHttpResponse):
    """A response with a large text that is stored compressed. The text is decompressed while it is
    sent."""

    def __init__(self, packed: Packed) -> None:
        #: `realms/web/asgi.py` takes this attribute from the response, and sends the text in pieces
        #: as fast as the client reads the pieces.
        self.packed = packed
        super().__init__(packed.pieces(_UNPACKED_BYTES))
        self["Content-Length"] = str(packed.size)


def packed_response(
    request: HttpRequest, packed: Packed, content_type: str, generation: int
) -> HttpResponseBase:
    """Returns the response to a request for a large text. If the client already has the text, the
    response is a 304. If the client accepts gzip, the response has the stored gzip bytes. Otherwise
    a HEAD gets a response without a body, and a GET gets a `PackedResponse`."""
    etag = f'W/"{packed.sha256}"'
    known = parse_etags(request.headers.get("If-None-Match", ""))
    response: HttpResponseBase
    if "*" in known or etag in [f"W/{each.removeprefix('W/')}" for each in known]:
        response = HttpResponse(status=304)
    elif accepts(request.headers.get("Accept-Encoding", ""), Coding.GZIP):
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
    add(response, of_generation(generation))
    return response

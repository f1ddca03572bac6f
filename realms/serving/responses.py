"""Turns a cached answer into an HTTP response: status, headers, body."""

import os
from functools import lru_cache

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
from realms.http.conditions import Conditions
from realms.http.error_answers import error_response
from realms.http.headers import NO_STORE, Headers, add, of_generation
from realms.http.packed import Packed
from realms.serving.contents import ACCEPT_RANGES, Answer, Variant
from reindex.reading.media_types import ANY, HTML, JSON, SOURCE

_UNPACKED_BYTES = 64 * 1024
_NO_CONDITIONS = Conditions()


VARIANTS = {
    SOURCE: Variant.SOURCE,
    HTML: Variant.HTML,
    ANY: Variant.MODULE,
    JSON: Variant.MODULE,
}


@lru_cache(maxsize=1)
def replica_header() -> str:
    """The replica and the web worker process that answer."""
    return f"{settings.REALM_REPLICA}/{os.getpid()}"


def response_parts(
    answer: Answer, method: str, conditions: Conditions, cache: str
) -> tuple[int, Headers, bytes | memoryview]:
    """Status, headers and body of an answer to one request. `cache` is `hit` or `miss`. The body of
    a 206 is a view of the content: copies for many slow clients would fill the memory."""
    extra: Headers = (("x-boxel-cache", cache),)
    outcome = _outcome(answer, conditions)
    if outcome == 304:
        # nginx keeps no other 304 as it came.
        left_out = ("content-type", "x-created", "accept-ranges")
        kept = tuple(h for h in answer.headers if h[0] not in left_out)
        return 304, kept + extra, b""
    if outcome == 412:
        return _refused(answer, conditions.unmet(answer.realm_url or ""), extra)
    body: bytes | memoryview = answer.content.body
    status = answer.content.status
    # An empty body has no parts: it is sent whole.
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
    return status, (*answer.headers, length, *extra), b"" if method == "HEAD" else body


def _in_parts(answer: Answer, conditions: Conditions) -> bool:
    """Whether a part of the answer may be sent: only if `If-Range` is absent or matches it."""
    if ACCEPT_RANGES not in answer.headers:
        return False
    if_range = conditions.if_range
    validators = [value for name, value in answer.headers if name in ("etag", "last-modified")]
    return if_range is None or if_range.strip() in validators


def _outcome(answer: Answer, conditions: Conditions) -> int:
    if answer.content.status != 200 or conditions == _NO_CONDITIONS:
        return 200
    headers = dict(answer.headers)
    return conditions.of_read(headers.get("etag"), headers.get("last-modified"))


def _refused(answer: Answer, error: RealmError, extra: Headers) -> tuple[int, Headers, bytes]:
    """The refusal of a request whose answer exists: the error, with the answer's other headers."""
    refusal = error_response(error)
    changed = {"content-type": refusal["content-type"], "cache-control": NO_STORE}
    kept = tuple(
        (name, changed.get(name, value))
        for name, value in answer.headers
        if name not in ("etag", "last-modified", "x-created", "content-encoding")
    )
    length = ("content-length", str(len(refusal.content)))
    return error.status, (*kept, length, *extra), refusal.content


def respond(request: HttpRequest, answer: Answer, cache: str) -> HttpResponse:
    """An answer as a Django response, which is counted."""
    counts.read(cache, live=local_board().live())
    status, headers, body = response_parts(
        answer, request.method or "GET", Conditions.of(request), cache
    )
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in headers:
        response[name] = value
    return response


class PackedResponse(StreamingHttpResponse):
    """A large text that is unpacked while it is sent."""

    def __init__(self, packed: Packed) -> None:
        #: The web server sends this itself, as fast as the client reads it.
        self.packed = packed
        super().__init__(packed.pieces(_UNPACKED_BYTES))
        self["Content-Length"] = str(packed.size)


def packed_response(
    request: HttpRequest, packed: Packed, content_type: str, generation: int
) -> HttpResponseBase:
    """A large text: as stored if the client accepts gzip, else unpacked while it is sent."""
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
    add(response, of_generation(generation))
    return response


def _takes_gzip(accept_encoding: str) -> bool:
    for each in accept_encoding.lower().split(","):
        coding, _, weight = (part.strip() for part in each.partition(";"))
        if coding in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False

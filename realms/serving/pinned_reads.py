"""Answers requests of the processes that render pages or build definitions. These processes read a
realm's files at exactly one generation.

Each request has a pin (`reindex/reading/pins.py`). A pin is a signed token that names a realm, a
generation and a reader. The reader is a user, everyone, or the realm itself. This module checks
pins. It answers requests for the list of files, for the files that differ between two generations,
and for the content of many files.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from notifications.board import Slots
from notifications.channels import realm_key
from notifications.emit import local_board
from notifications.stamped_cache import StampedCache
from notifications.texts import composed, is_storable, whole_number
from realms import errors
from realms.access import auth
from realms.content import history
from realms.content.resolve import realms_within
from realms.http.headers import add, of_pin
from realms.http.requests import read_body
from realms.models import Realm
from reindex.reading import pins
from reindex.reading.media_types import API, NDJSON
from reindex.reading.pins import EVERYONE, ITSELF, Pin

#: The WSGI name of the header that contains the pin.
PIN = f"HTTP_{pins.PIN_HEADER.upper().replace('-', '_')}"

#: The maximum size of a request body that lists paths. Unit: bytes.
MAX_QUESTION_BYTES = 4 * 1024 * 1024


# --- Access ------------------------------------------------------------------------------------


def opened(token: str) -> Pin:
    """Verifies the pin `token` and returns its realm and generation. Also checks that the reader
    may still read the realm.

    Raises Unauthorized for an invalid or expired pin, and PinEnded if the reader has lost access.
    """
    try:
        signed = pins.read(token)
    except pins.InvalidPin as error:
        raise errors.Unauthorized(why=f"the pin is not valid: {error}") from error
    url, reader = signed.pin.realm_url, signed.reader
    if reader not in (EVERYONE, ITSELF):
        # The reader is a user, who loses access if the account is deleted or deactivated. The cache
        # learns of changes only through the board (`notifications/stamped_cache.py`). The board
        # doesn't record changes of accounts, so a user's access isn't cached.
        allowed = _may_read(url, reader)
    else:
        cached = _access().get((url, reader))
        allowed = _load_access(url, reader) if cached is None else cached
    if not allowed:
        raise errors.PinEnded(url=url)
    return signed.pin


@lru_cache(maxsize=1)
def _access() -> StampedCache[bool]:
    return StampedCache(
        local_board(),
        max_bytes=10_000_000,
        size_of=lambda allowed: 1,
        bound_ns=int(settings.REALM_STALENESS_BOUND * 1e9),
    )


def _load_access(url: str, reader: str) -> bool:
    return _access().load((url, reader), Slots([realm_key(url)]), lambda: _may_read(url, reader))


def _may_read(url: str, reader: str) -> bool:
    if reader == ITSELF:
        return Realm.objects.filter(url=url).exists()
    return auth.readable([url], None if reader == EVERYONE else auth.reader_of_key(reader))


def address(token: str) -> HttpResponse:
    """Returns the URL where visitors see the pages of the realm that the pin `token` names. If
    published realms show this realm, the result is the URL of the oldest of them. Otherwise the
    result is this realm's own URL.

    Raises Unauthorized for an invalid pin, or if the reader isn't the realm itself (`pins.ITSELF`).
    """
    try:
        signed = pins.read(token)
    except pins.InvalidPin as error:
        raise errors.Unauthorized(why=f"the pin is not valid: {error}") from error
    if signed.reader != ITSELF:
        raise errors.Unauthorized(why="the pin's reader is not the realm itself")
    url = signed.pin.realm_url
    shown = Realm.first_showing(source__url=url)
    attributes = {"address": url if shown is None else shown.url}
    document = {"data": {"type": "address", "id": url, "attributes": attributes}}
    response = JsonResponse(document, content_type=API)
    add(response, of_pin(signed.pin.generation))
    return response


# --- Many files --------------------------------------------------------------------------------


def manifest(request: HttpRequest, pin: Pin) -> HttpResponse:
    """Returns the paths of a realm's files, each with the hash of the file's content. Leaves out
    files of inner realms. With `?since=GENERATION`, returns only the files that differ between that
    generation and the pin's. A file that the realm doesn't serve at the pin's generation then has
    null instead of a hash.

    Raises Malformed if `since` isn't a number. Raises HistoryEnds (410) if the two generations
    can't be compared, or if a published realm's publication at the pin's generation was deleted.
    """
    realm = _realm(pin)
    since = request.GET.get("since")
    files: dict[str, str | None]
    if since is None:
        files = dict(history.versions_at(realm, pin.generation).values_list("path", "blob_id"))
        for path in realms_within(realm.url, files):
            del files[path]
        _check_history(realm, pin)
    else:
        earlier = whole_number(since)
        if earlier is None:
            raise errors.Malformed(
                what=f"the parameter 'since' is {since[:40]!r}; expected a generation"
            )
        changed = history.difference(realm, earlier, pin.generation)
        if changed is None:
            raise errors.HistoryEnds(url=realm.url, generation=since)
        files = changed
    attributes = {"generation": pin.generation, "files": files}
    document = {"data": {"type": "manifest", "id": pin.realm_url, "attributes": attributes}}
    response = JsonResponse(document, content_type=API)
    add(response, of_pin(pin.generation))
    return response


def many(request: HttpRequest, pin: Pin) -> HttpResponse:
    """Returns the files that the request lists. The request's body is `{"paths": [...]}`. The
    answer has one JSON line for each path, in the request's order: `{"path", "content"}`. For a
    missing file, `content` is null. For a file that isn't UTF-8, `content` is null and `base64`
    contains the bytes. For a path in an inner realm, `content` is null and `elsewhere` is true. If
    the answer would be too long, it leaves out the last paths, and the client requests these paths
    again."""
    realm = _realm(pin)
    try:
        body = json.loads(read_body(request, MAX_QUESTION_BYTES, "The list of paths"))
    except (ValueError, RecursionError) as error:
        raise errors.Malformed(what="the body is not JSON") from error
    match body:
        case {"paths": [*paths]} if all(isinstance(p, str) and is_storable(p) for p in paths):
            lines = b"".join(_lines(realm, pin.generation, paths))
            _check_history(realm, pin)
        case _:
            raise errors.Malformed(what='the body should be {"paths": [...]}, a list of strings')
    response = HttpResponse(lines, content_type=NDJSON)
    add(response, of_pin(pin.generation))
    if realm.source is not None:
        response[pins.SOURCE_HEADER] = realm.source.url
    return response


def _lines(realm: Realm, generation: int, paths: list[str]) -> Iterator[bytes]:
    names = list(map(composed, paths))
    within = realms_within(realm.url, names)
    # `read_many` omits the last files if the answer would be too long, so zip isn't strict.
    for requested, (path, data) in zip(
        paths, history.read_many(realm, generation, names), strict=False
    ):
        line: dict[str, str | bool | None] = {"path": requested, "content": None}
        if path in within:
            line["elsewhere"] = True
        elif data is not None:
            try:
                line["content"] = data.decode()
            except UnicodeDecodeError:
                line["base64"] = b64encode(data).decode()
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _realm(pin: Pin) -> Realm:
    realm = Realm.objects.select_related("source").filter(url=pin.realm_url).first()
    if realm is None or realm.generation < pin.generation:
        raise errors.NotFound(url=f"{pin.realm_url} at generation {pin.generation}")
    return realm


def _check_history(realm: Realm, pin: Pin) -> None:
    """Raises HistoryEnds if a published realm's publication at the pin's generation was deleted,
    for example together with its source realm. The caller calls this function after reading the
    files. A check before the reading would miss a deletion during the reading."""
    published = realm.kind == Realm.Kind.PUBLISHED
    if published and not realm.publications.at(pin.generation).exists():
        raise errors.HistoryEnds(url=realm.url, generation=pin.generation)

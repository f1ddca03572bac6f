"""Lists a realm's files as JSON: the times of all files, or the entries of a folder. Both leave
out `node_modules`, `.git` and some configuration files (`_FILES` in `realms/sql.py`).

One SQL statement builds a listing from one snapshot of the database. If the realm is deleted during
the request, the answer is therefore NotFound or the complete listing, but never an empty listing.
An empty listing would make a client that mirrors the realm delete its copies of the files. The
listing of a generation never changes, so each process caches listings, in compressed form.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, LiteralString

from django.conf import settings
from django.db import connection

from notifications.board import Slots
from notifications.channels import realm_key
from notifications.emit import local_board
from notifications.stamped_cache import StampedCache
from realms import sql
from realms.errors import NotFound
from realms.http.packed import Packed
from realms.models import Realm
from reindex.reading.references import file_url


@dataclass(frozen=True)
class Listed:
    """A JSON document about a realm, and the generation that the document describes."""

    generation: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """A compressed JSON document about a realm, and the generation that the document describes."""

    generation: int
    document: Packed


@lru_cache(maxsize=1)
def _listings() -> StampedCache[Packed]:
    """Returns this process's cache of listings."""
    return StampedCache(
        local_board(),
        max_bytes=settings.REALM_LISTING_BYTES,
        size_of=len,
        bound_ns=int(settings.REALM_STALENESS_BOUND * 1e9),
    )


def mtimes(realm: Realm) -> Listing:
    """Returns the URLs of all files with the times of their last changes, at the generation
    `realm.generation`. Raises NotFound for a deleted realm."""
    start = f'{{"data": {{"type": "mtimes", "id": {_text(realm.url)}, "attributes": {{"mtimes": {{'
    return _listing(realm, sql.LIST_TIMES, "", start, "}}}}")


def directory(realm: Realm, path: str) -> Listing:
    """Returns the files and folders directly below the folder `path`. `path` ends in `/`, or is
    empty for the realm's root.

    Raises NotFound for a deleted realm, and for a folder without files, unless it is the root.
    """
    url = _text(file_url(realm.url, path))
    start = f'{{"data": {{"type": "directory", "id": {url}, "relationships": {{'
    return _listing(realm, sql.LIST_FOLDER, path, start, "}}}")


def seconds(moment: datetime) -> float:
    """Returns a time in the form in which clients get times: seconds since 1970, to the
    microsecond."""
    return moment.timestamp()


def _listing(realm: Realm, statement: LiteralString, folder: str, start: str, end: str) -> Listing:
    key = (realm.pk, realm.generation, statement, folder)
    # `peek` may return a listing that the cache counts as stale. The listing is right all the same,
    # because the key contains the generation, and the files of a generation never change.
    packed = _listings().peek(key) or _listings().load(
        key,
        Slots([realm_key(realm.url)]),
        lambda: Packed(_document(realm, statement, folder, start, end)),
    )
    return Listing(realm.generation, packed)


def _document(
    realm: Realm, statement: LiteralString, folder: str, start: str, end: str
) -> Iterator[str]:
    url = realm.url if statement is sql.LIST_TIMES else file_url(realm.url, folder)
    values = {
        "realm": realm.pk, "generation": realm.generation, "folder": folder, "url": url,
    }  # fmt: skip
    realm_exists, has_members = False, False
    with connection.cursor() as cursor, connection.wrap_database_errors:
        for (members,) in cursor.stream(statement, values):
            realm_exists = True
            if members is not None:
                yield f"{', ' if has_members else start}{members}"
                has_members = True
    if not realm_exists or (folder and not has_members):
        raise NotFound(url=realm.url + folder)
    yield end if has_members else start + end


def _text(value: str) -> str:
    return json.dumps(value)

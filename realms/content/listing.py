"""Listings of a realm's content for its clients: the times of all files, and folders.

Each is one SQL statement that makes the JSON, and so one snapshot: a realm that is deleted
meanwhile is missing, never empty. After an empty answer, a client that mirrors the realm would
delete its own files. A listing is valid for its generation for ever, and is cached compressed.
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
from realms.errors import NotFound
from realms.http.packed import Packed
from realms.models import Realm
from reindex.reading.references import file_url

#: The files of a realm below a folder, at a generation. Files that tools leave in a folder can be
#: read and written but are not listed. A realm without files has one row, of NULL.
_FILES: LiteralString = r"""
WITH content AS (
    SELECT COALESCE(p.source_id, r.id) AS content_id,
        COALESCE(p.source_generation, %(generation)s) AS content_generation
    FROM realms_realm r LEFT JOIN realms_publication p
        ON r.kind = 'published' AND p.realm_id = r.id AND p.generation = %(generation)s
    WHERE r.id = %(realm)s AND (r.kind <> 'published' OR p.id IS NOT NULL)
), files AS (
    SELECT v.path, v.created_at, v.modified_at
    FROM content c LEFT JOIN realms_fileversion v ON v.realm_id = c.content_id
        AND v.from_generation <= c.content_generation
        AND (v.until_generation IS NULL OR v.until_generation > c.content_generation)
        AND starts_with(v.path, %(folder)s)
        AND v.path !~ '(^|/)(node_modules|\.git)(/|$)|(^|/)\.realm\.json$|^\.template-lintrc\.js$'
)
"""

#: `path`, escaped as by `file_url`.
_ESCAPED: LiteralString = r"""
CASE WHEN path ~ '^[][A-Za-z0-9/:@!$&''()+,;=~._|^-]*$' THEN path ELSE (
    SELECT string_agg(CASE WHEN letter ~ '[][A-Za-z0-9/:@!$&''()+,;=~._|^-]' THEN letter
        ELSE regexp_replace(upper(encode(convert_to(letter, 'UTF8'), 'hex')), '(..)', '%%\1', 'g')
        END, '' ORDER BY place)
    FROM regexp_split_to_table(path, '') WITH ORDINALITY AS letters (letter, place)
) END
"""

#: A thousand members a row, so that rows are neither many nor large.
_MTIMES: LiteralString = f"""
{_FILES}
SELECT string_agg(
    to_json(%(url)s || {_ESCAPED})::text || ': ' || extract(epoch FROM modified_at), ', '
    ORDER BY path
) FROM (SELECT *, row_number() OVER (ORDER BY path) / 1000 AS part FROM files) numbered
GROUP BY part ORDER BY part
"""

_FOLDER: LiteralString = f"""
{_FILES}, named AS (
    SELECT substr(path, length(%(folder)s) + 1) AS rest, created_at, modified_at FROM files
), entries AS (
    SELECT split_part(rest, '/', 1) || CASE WHEN strpos(rest, '/') > 0 THEN '/' ELSE '' END AS path,
        max(created_at) AS created_at, max(modified_at) AS modified_at
    FROM named GROUP BY 1
)
SELECT string_agg(
    to_json(path)::text || ': {{"links": {{"related": ' || to_json(%(url)s || {_ESCAPED})::text
    || '}}, "meta": ' || CASE WHEN path LIKE '%%/' THEN '{{"kind": "directory"}}}}' ELSE
        '{{"kind": "file", "lastModified": ' || extract(epoch FROM modified_at)
        || ', "resourceCreatedAt": ' || extract(epoch FROM created_at) || '}}}}' END, ', '
    ORDER BY path
) FROM (SELECT *, row_number() OVER (ORDER BY path) / 1000 AS part FROM entries) numbered
GROUP BY part ORDER BY part
"""


@dataclass(frozen=True)
class Listed:
    """A document about a realm, and the generation that it describes."""

    generation: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """Like Listed, with a document that may be large."""

    generation: int
    document: Packed


@lru_cache(maxsize=1)
def _listings() -> StampedCache[Packed]:
    """This process's listings, each of one generation."""
    return StampedCache(
        local_board(),
        max_bytes=settings.REALM_LISTING_BYTES,
        size_of=len,
        bound_ns=int(settings.REALM_STALENESS_BOUND * 1e9),
    )


def mtimes(realm: Realm) -> Listing:
    """The time of each file's last change, by its URL, at the generation in `realm`. Raises
    NotFound."""
    start = f'{{"data": {{"type": "mtimes", "id": {_text(realm.url)}, "attributes": {{"mtimes": {{'
    return _listing(realm, _MTIMES, "", start, "}}}}")


def directory(realm: Realm, path: str) -> Listing:
    """The files and folders directly below a folder; `path` is empty or ends in `/`.

    Raises NotFound for a deleted realm and for an empty folder.
    """
    url = _text(file_url(realm.url, path))
    start = f'{{"data": {{"type": "directory", "id": {url}, "relationships": {{'
    return _listing(realm, _FOLDER, path, start, "}}}")


def seconds(moment: datetime) -> float:
    """A moment as sent to clients: seconds since 1970, to the microsecond."""
    return moment.timestamp()


def _listing(realm: Realm, sql: LiteralString, folder: str, start: str, end: str) -> Listing:
    key = (realm.pk, realm.generation, sql, folder)
    # No stamp is checked: history is immutable, and the caller has just read the generation.
    packed = _listings().peek(key) or _listings().load(
        key,
        Slots([realm_key(realm.url)]),
        lambda: Packed(_document(realm, sql, folder, start, end)),
    )
    return Listing(realm.generation, packed)


def _document(realm: Realm, sql: LiteralString, folder: str, start: str, end: str) -> Iterator[str]:
    url = realm.url if sql is _MTIMES else file_url(realm.url, folder)
    values = {
        "realm": realm.pk, "generation": realm.generation, "folder": folder, "url": url,
    }  # fmt: skip
    realm_exists, has_members = False, False
    with connection.cursor() as cursor, connection.wrap_database_errors:
        for (members,) in cursor.stream(sql, values):
            realm_exists = True
            if members is not None:
                yield f"{', ' if has_members else start}{members}"
                has_members = True
    if not realm_exists or (folder and not has_members):
        raise NotFound(url=realm.url + folder)
    yield end if has_members else start + end


def _text(value: str) -> str:
    return json.dumps(value)

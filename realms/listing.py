"""What a realm holds, as its clients compare and browse it: times of all files, and folders.

Either is one SQL statement, and so one snapshot: a realm that is deleted meanwhile is missing,
never empty. A client that mirrors a realm would delete its own files after an empty answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from django.db import connection

from realms.errors import NotFound
from realms.models import Realm
from realms.urls_and_paths import file_url

_FILES: LiteralString = """
WITH content AS (
    SELECT r.generation, COALESCE(p.source_id, r.id) AS content_id,
        COALESCE(p.source_generation, r.generation) AS content_generation
    FROM realms_realm r LEFT JOIN realms_publication p
        ON r.kind = 'published' AND p.realm_id = r.id AND p.generation = r.generation
    WHERE r.id = %(realm)s
)
SELECT c.generation, v.path, v.created_at, v.modified_at
FROM content c LEFT JOIN realms_fileversion v ON v.realm_id = c.content_id
    AND v.from_generation <= c.content_generation
    AND (v.until_generation IS NULL OR v.until_generation > c.content_generation)
    AND starts_with(v.path, %(folder)s)
ORDER BY v.path
"""

#: Files that tools leave in a folder. They can be read and written, and are told of nowhere.
_HIDDEN = re.compile(r"(^|/)(node_modules|\.git)(/|$)|(^|/)\.realm\.json$|^\.template-lintrc\.js$")


@dataclass(frozen=True)
class Listed:
    """Something that a realm tells of itself, and the generation at which that holds."""

    generation: int
    document: dict[str, Any]


@dataclass(frozen=True)
class _File:
    path: str
    created_at: datetime
    modified_at: datetime


def mtimes(realm: Realm) -> Listed:
    """When each file was last changed, by its URL. Raises NotFound."""
    generation, files = _files(realm)
    times = {file_url(realm.url, file.path): seconds(file.modified_at) for file in files}
    return Listed(generation, _document("mtimes", realm.url, attributes={"mtimes": times}))


def directory(realm: Realm, path: str) -> Listed:
    """The files and folders right below a folder; `path` is empty or ends in `/`.

    Raises NotFound for a realm that is gone and for a folder in which there is nothing.
    """
    generation, files = _files(realm, path)
    relationships = dict(_entries(realm, path, files))
    url = file_url(realm.url, path)
    if path and not relationships:
        raise NotFound(url=url)
    return Listed(generation, _document("directory", url, relationships=relationships))


def seconds(moment: datetime) -> float:
    """A moment as clients count: seconds since 1970, to the microsecond."""
    return moment.timestamp()


def _files(realm: Realm, folder: str = "") -> tuple[int, list[_File]]:
    with connection.cursor() as cursor:
        cursor.execute(_FILES, {"realm": realm.pk, "folder": folder})
        rows = cursor.fetchall()
    if not rows:
        raise NotFound(url=realm.url)
    files = [
        _File(path, created_at, modified_at)
        for _, path, created_at, modified_at in rows
        if path is not None and not _HIDDEN.search(path)
    ]
    return rows[0][0], files


def _entries(realm: Realm, folder: str, files: list[_File]) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in files:
        name, slash, _ = file.path.removeprefix(folder).partition("/")
        meta: dict[str, Any] = {"kind": "directory"}
        if not slash:
            meta = {
                "kind": "file",
                "lastModified": seconds(file.modified_at),
                "resourceCreatedAt": seconds(file.created_at),
            }
        url = file_url(realm.url, folder + name + slash)
        yield name + slash, {"links": {"related": url}, "meta": meta}


def _document(kind: str, key: str, **parts: Any) -> dict[str, Any]:
    return {"data": {"type": kind, "id": key, **parts}}

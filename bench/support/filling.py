"""Fills realms with many files at once, with two SQL statements. Each file has 1 KB of text."""

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    from realms.models import Realm

_BLOBS: LiteralString = """
WITH made AS (
    SELECT convert_to(format('file %%s ', n) || repeat('x', 1024), 'UTF8') AS data
    FROM generate_series(%(first)s, %(last)s) n
) INSERT INTO realms_blob (sha256, size, data)
SELECT encode(sha256(data), 'hex'), length(data), data FROM made ON CONFLICT DO NOTHING
"""
_VERSIONS: LiteralString = """
WITH made AS (
    SELECT n, convert_to(format('file %%s ', CASE WHEN %(distinct)s THEN n ELSE %(first)s END)
        || repeat('x', 1024), 'UTF8') AS data
    FROM generate_series(%(first)s, %(last)s) n
) INSERT INTO realms_fileversion
    (realm_id, path, sha256, size, created_at, modified_at, from_generation)
SELECT %(realm)s, format('%%s/file-%%s.txt', n / 100, n), encode(sha256(data), 'hex'),
    length(data), now(), now(), %(generation)s
FROM made
"""


def fill(realm: "Realm", count: int, *, first: int = 1, distinct: bool = True) -> None:
    """Adds `count` files to a realm in one generation. The files are numbered from `first` on. If
    `distinct` is false, all added files have the content of the file `first`. Then this
    content is stored only once, as one blob."""
    from django.db import connection

    from realms.content.files import advance
    from realms.content.locks import realm_write_lock

    values: dict[str, Any] = {"first": first, "last": first + count - 1}
    with realm_write_lock(realm.url), connection.cursor() as cursor:
        cursor.execute(_BLOBS, values if distinct else {"first": first, "last": first})
        generation = advance(realm, "a benchmark", count, count * 1024)
        values |= {"realm": realm.pk, "distinct": distinct, "generation": generation}
        cursor.execute(_VERSIONS, values)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE realms_fileversion, realms_blob")


def path_of(number: int) -> str:
    """Returns the path of the file with the given number. File numbers start at 1."""
    return f"{number // 100}/file-{number}.txt"


def content_of(number: int) -> bytes:
    """Returns the content of the file with the given number."""
    return f"file {number} ".encode() + b"x" * 1024

"""Writes and deletes the files of a realm.

Each write and each deletion gives the realm its next generation, which is a number. A write closes
the current version of a file and adds a new version. No version is overwritten, so a reader always
sees a complete file at one generation.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from definitions.causes import cut
from realms import sql
from realms.content.blobs import Stored, store_blobs
from realms.content.changes import Change, raise_change
from realms.content.resolve import realms_within
from realms.errors import Conflict, NotFound, OverQuota, TooLarge
from realms.models import FileVersion, Realm
from reindex.reading.card_paths import is_card_file
from reindex.reading.documents import read_document
from reindex.reading.strict_json import BrokenDocument


@dataclass(frozen=True)
class Written:
    """The result of writing a file: the realm's new generation, and the file's times of creation
    and last change."""

    generation: int
    created_at: datetime
    modified_at: datetime


def etag(sha256: str, variant: str) -> str:
    """Returns the ETag of a file's content in one of its variants, `source` or `asset`."""
    return f'"{sha256}:{variant}"'


def validators(realm: Realm, path: str) -> tuple[list[str], datetime | None]:
    """Returns the current ETags of a file and the time of its last change. Returns an empty list
    and None if the file doesn't exist."""
    version = realm.versions.open().filter(path=path).first()
    if version is None:
        return [], None
    etags = [etag(version.blob_id, variant) for variant in ("source", "asset")]
    return etags, version.modified_at


# --- Writing -----------------------------------------------------------------------------------


def check_size(path: str, data: bytes) -> None:
    """Raises TooLarge if a file exceeds the size limit for cards or the limit for other files."""
    limit = (
        settings.CARD_SIZE_LIMIT_BYTES if is_card(path, data) else settings.FILE_SIZE_LIMIT_BYTES
    )
    if len(data) > limit:
        raise TooLarge(path=path, size=len(data), limit=limit)


def is_card(path: str, data: bytes) -> bool:
    """Returns whether a file is a card instance, which is a JSON:API document with
    `data.meta.adoptsFrom`."""
    if not is_card_file(path) or len(data) > settings.FILE_SIZE_LIMIT_BYTES:
        return False
    try:
        return read_document(data, path) is not None
    except BrokenDocument:
        return False


def advance(
    realm: Realm,
    by: str,
    files: int = 0,
    size: int = 0,
    *,
    source: Realm | None = None,
    published_at: datetime | None = None,
) -> int:
    """Gives the realm its next generation and returns this generation. `by` is a human-readable
    description of what raised the generation. `files` is added to the realm's number of files, and
    `size` is added to its number of bytes. For a publish, `source` is the published source realm,
    and `published_at` is the time of the publish. The caller holds the realm's lock."""
    parameters: dict[str, UUID | str | int | datetime | None] = {
        "realm": realm.pk,
        "by": cut(by),
        "files": files,
        "size": size,
        "source": None if source is None else source.pk,
        "published_at": published_at,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.ADVANCE, parameters)
        row = cursor.fetchone()
    if row is None:
        raise Realm.DoesNotExist(realm.url)
    realm.generation, realm.file_count, realm.byte_count = row
    return realm.generation


def check_quota(realm: Realm, files: int, size: int) -> None:
    """Raises OverQuota if `files` more files or `size` more bytes would exceed the realm's quota.
    A number that is zero or negative is not checked, so a realm over its quota can shrink."""
    quotas = (
        (files, realm.file_count, realm.max_files, settings.REALM_MAX_FILES, "files"),
        (size, realm.byte_count, realm.max_bytes, settings.REALM_MAX_BYTES, "bytes"),
    )
    for more, present, own, general, unit in quotas:
        limit = general if own is None else own
        if more > 0 and present + more > limit:
            raise OverQuota(url=realm.url, count=present + more, limit=limit, unit=unit)


def write_files(realm: Realm, files: Mapping[str, bytes]) -> dict[str, Written]:
    """Writes files to a realm, all at one new generation. A file with unchanged content keeps its
    version. If the content of every file is unchanged, the realm keeps its generation.

    The caller holds the realm's lock in a transaction. Database triggers announce the changed
    paths. Raises OverQuota, and Conflict for a path that belongs to an inner realm. After an error,
    the caller must roll back.
    """
    stored = {
        path: Stored(hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items()
    }
    return write_stored(realm, stored, list(files.values()))


def write_stored(
    realm: Realm, files: Mapping[str, Stored], contents: Iterable[bytes] = ()
) -> dict[str, Written]:
    """Writes files like `write_files`, but gets each file's hash and size instead of its content.
    Stores `contents`. Content that isn't in `contents` must be stored already."""
    for path, within in realms_within(realm.url, files).items():
        raise Conflict(what=f"{realm.url}{path} is in the realm {within}; write it there")
    now = timezone.now()
    before = {each.path: each for each in realm.versions.open().filter(path__in=list(files))}
    changed = [
        path
        for path, stored in files.items()
        if path not in before or before[path].blob_id != stored.sha256
    ]
    unchanged = files.keys() - set(changed)
    more = len(set(changed) - before.keys())
    size = sum(files[path].size for path in changed)
    size -= sum(before[path].size for path in before.keys() & set(changed))
    if changed:
        realm.refresh_from_db(fields=["file_count", "byte_count", "max_files", "max_bytes"])
        check_quota(realm, more, size)
    store_blobs(contents)
    if changed:
        advance(realm, by := f"write of {some(changed)}", more, size)
        _close(realm, [before[path] for path in changed if path in before])
        _open(realm, {path: files[path] for path in changed}, before, now)
        raise_change(Change.of(realm, by=by, paths=frozenset(changed)))
    return {
        path: Written(
            generation=realm.generation,
            created_at=before[path].created_at if path in before else now,
            modified_at=before[path].modified_at if path in unchanged else now,
        )
        for path in files
    }


def some(paths: Iterable[str]) -> str:
    """Returns a short text that names one file and counts the others, such as `index.json and 3
    more`."""
    first, *others = sorted(paths)
    return f"{first} and {len(others):,} more" if others else first


def delete_files(realm: Realm, paths: Iterable[str]) -> int:
    """Deletes files from a realm, all at one new generation, and returns this generation. The
    caller holds the realm's lock.

    If one of the paths doesn't exist, raises NotFound and deletes nothing.
    """
    wanted = list(dict.fromkeys(paths))
    versions = list(realm.versions.open().filter(path__in=wanted))
    missing = set(wanted) - {version.path for version in versions}
    if missing:
        raise NotFound(url=realm.url + min(missing))
    by = f"deletion of {some(wanted)}"
    generation = advance(realm, by, -len(versions), -sum(version.size for version in versions))
    _close(realm, versions)
    raise_change(Change.of(realm, by=by, paths=frozenset(wanted)))
    return generation


def _open(
    realm: Realm, files: Mapping[str, Stored], before: Mapping[str, FileVersion], now: datetime
) -> None:
    """Adds a version of each file. The versions begin at the realm's generation. A file that has a
    version in `before` keeps its time of creation."""
    opened: dict[str, Any] = {
        "realm": realm.pk,
        "generation": realm.generation,
        "now": now,
        "paths": list(files),
        "hashes": [stored.sha256 for stored in files.values()],
        "sizes": [stored.size for stored in files.values()],
        "created": [before[path].created_at if path in before else now for path in files],
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.OPEN_VERSIONS, opened)


def _close(realm: Realm, versions: list[FileVersion]) -> None:
    if versions:
        FileVersion.objects.filter(pk__in=[version.pk for version in versions]).update(
            until_generation=realm.generation, closed_at=Now()
        )

"""What realms hold: blobs by their hash, and the manifest that names them through time.

A write closes the path's open version and opens another at a new generation. Nothing is ever
overwritten, so a reader sees a file whole, as it was at one generation.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import LiteralString
from uuid import UUID

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import storages
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from notifications.paths import top_folder
from realms.changes import Change, raise_change
from realms.errors import Conflict, NotFound, OverQuota, TooLarge
from realms.models import Blob, FileVersion, Publication, Realm, RealmBorder
from realms.resolve import realms_within
from reindex.documents import read_document
from reindex.strict_json import BrokenDocument

#: Larger blobs go to the storage instead of the row. Unit: bytes.
ROW_BLOB_BYTES = 64 * 1024
#: How much content one answer may carry. Unit: bytes.
MANY_BYTES = 16 * 1024 * 1024
#: Of those files how many are read at a time: at most 64 KiB each, as larger ones are elsewhere.
MANY_AT_A_TIME = 100


@dataclass(frozen=True)
class Written:
    """What a write did: the realm's generation after it, and when the file was made and changed."""

    generation: int
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True)
class Stored:
    """Content that is kept: its hash, and its size in bytes."""

    sha256: str
    size: int


# --- Blobs -------------------------------------------------------------------------------------


def blob_name(sha256: str) -> str:
    """A blob's name in the storage."""
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def store_blob(data: bytes) -> str:
    """As `store_blobs`, for one content."""
    return store_blobs([data])[0]


def store_blobs(contents: Iterable[bytes]) -> list[str]:
    """Keeps contents and answers their SHA-256s. Large content is on disk when its row commits.

    A row that is there already is marked as stored now, and locked until the caller's transaction
    ends: the garbage collector, which takes the same lock, removes no content between its storing
    and its naming, and what it has just removed is stored again.
    """
    hashed = [(hashlib.sha256(data).hexdigest(), data) for data in contents]
    # In one order everywhere, so that no two writers wait for each other.
    blobs = [
        Blob(sha256=sha256, size=len(data), data=None if len(data) > ROW_BLOB_BYTES else data)
        for sha256, data in sorted(dict(hashed).items())
    ]
    with transaction.atomic():
        Blob.objects.bulk_create(
            blobs, update_conflicts=True, unique_fields=["sha256"], update_fields=["stored_at"]
        )
        for sha256, data in dict(hashed).items():
            if len(data) > ROW_BLOB_BYTES:
                _store_object(blob_name(sha256), data)
    return [sha256 for sha256, _ in hashed]


def _store_object(name: str, data: bytes) -> None:
    storage = storages["blobs"]
    if not storage.exists(name):
        storage.save(name, File(BytesIO(data)))


def read_blob(sha256: str, data: bytes | memoryview | None = None) -> bytes:
    """A blob's content, given the row's `data` if it has been read already."""
    if data is None:
        with storages["blobs"].open(blob_name(sha256)) as file:
            return bytes(file.read())
    return bytes(data)


# --- Reading at a generation -------------------------------------------------------------------


def versions_at(realm: Realm, generation: int) -> QuerySet[FileVersion]:
    """The manifest of a realm as it stood at a generation, a published one through its source."""
    if realm.kind == Realm.Kind.PUBLISHED:
        publication = publication_at(realm, generation)
        if publication is None:
            return FileVersion.objects.none()
        return _open_at(publication.source_id, publication.source_generation)
    return _open_at(realm.pk, generation)


def publication_at(realm: Realm, generation: int) -> Publication | None:
    """What a published realm showed at a generation; None if that isn't known any more, and then
    an older publication doesn't stand in for it."""
    return Publication.objects.filter(realm=realm, generation=generation).first()


def _open_at(realm_id: UUID, generation: int) -> QuerySet[FileVersion]:
    return FileVersion.objects.filter(
        Q(until_generation__isnull=True) | Q(until_generation__gt=generation),
        realm_id=realm_id,
        from_generation__lte=generation,
    )


def open_versions(realm: Realm, paths: Iterable[str]) -> QuerySet[FileVersion]:
    """The versions of these paths that stand now."""
    return FileVersion.objects.filter(
        realm=realm, path__in=list(paths), until_generation__isnull=True
    )


def etag(sha256: str, variant: str) -> str:
    """The ETag of stored content: as `source`, or as the `asset` that it is."""
    return f'"{sha256}:{variant}"'


def validators(realm: Realm, path: str) -> tuple[list[str], datetime | None]:
    """The ETags under which a file's content is answered now, and when it was last changed. None
    where there is no such file."""
    version = open_versions(realm, [path]).first()
    if version is None:
        return [], None
    etags = [etag(version.blob_id, variant) for variant in ("source", "asset")]
    return etags, version.modified_at


# --- Writing -----------------------------------------------------------------------------------


def check_size(path: str, data: bytes) -> None:
    """Raises TooLarge for a card or a file above its limit."""
    limit = (
        settings.CARD_SIZE_LIMIT_BYTES if is_card(path, data) else settings.FILE_SIZE_LIMIT_BYTES
    )
    if len(data) > limit:
        raise TooLarge(path=path, size=len(data), limit=limit)


def is_card(path: str, data: bytes) -> bool:
    """Whether a file is a card instance: a JSON:API document that says what it adopts from."""
    if not path.endswith(".json") or len(data) > settings.FILE_SIZE_LIMIT_BYTES:
        return False
    try:
        return read_document(data, path) is not None
    except BrokenDocument:
        return False


def advance(realm: Realm, files: int = 0, size: int = 0) -> int:
    """Gives the realm its next generation, with so many files and bytes more. The caller holds the
    realm's lock."""
    Realm.objects.filter(pk=realm.pk).update(
        generation=F("generation") + 1,
        # A process of an older release may have written files that it didn't count.
        file_count=Greatest(F("file_count") + files, 0),
        byte_count=Greatest(F("byte_count") + size, 0),
    )
    realm.refresh_from_db(fields=["generation", "file_count", "byte_count"])
    return realm.generation


def check_quota(realm: Realm, files: int, size: int) -> None:
    """Raises OverQuota if a realm may not have so many files and bytes more than it has. One that
    gets smaller may always."""
    quotas = (
        (files, realm.file_count, realm.max_files, settings.REALM_MAX_FILES, "files"),
        (size, realm.byte_count, realm.max_bytes, settings.REALM_MAX_BYTES, "bytes"),
    )
    for more, held, own, general, unit in quotas:
        limit = general if own is None else own
        if more > 0 and held + more > limit:
            raise OverQuota(url=realm.url, count=held + more, limit=limit, unit=unit)


def write_files(realm: Realm, files: Mapping[str, bytes]) -> dict[str, Written]:
    """Writes files in one generation; content that is there already is left untouched.

    The caller holds the realm's lock, in whose transaction everything happens; the triggers
    announce the paths. Raises OverQuota, and Conflict for what would be in another realm; then the
    transaction is to be undone.
    """
    stored = {
        path: Stored(hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items()
    }
    return write_stored(realm, stored, list(files.values()))


def write_stored(
    realm: Realm, files: Mapping[str, Stored], contents: Iterable[bytes] = ()
) -> dict[str, Written]:
    """As `write_files`, for content that is stored already, but for `contents`. Raises OverQuota;
    then nothing is stored."""
    for path, within in realms_within(realm.url, files).items():
        raise Conflict(what=f"{realm.url}{path} is in the realm {within}; write it there")
    now = timezone.now()
    before = {version.path: version for version in open_versions(realm, files)}
    changed = [
        path
        for path, stored in files.items()
        if path not in before or before[path].blob_id != stored.sha256
    ]
    touched = set(changed)
    more = len(changed) - sum(path in before for path in changed)
    size = sum(files[path].size for path in changed)
    size -= sum(before[path].size for path in changed if path in before)
    if changed:
        realm.refresh_from_db(fields=["file_count", "byte_count", "max_files", "max_bytes"])
        check_quota(realm, more, size)
    store_blobs(contents)
    if changed:
        generation = advance(realm, more, size)
        _close(realm, [before[path] for path in changed if path in before])
        FileVersion.objects.bulk_create(
            FileVersion(
                realm=realm,
                path=path,
                blob_id=files[path].sha256,
                size=files[path].size,
                created_at=before[path].created_at if path in before else now,
                modified_at=now,
                from_generation=generation,
            )
            for path in changed
        )
        raise_change(Change.of(realm, paths=frozenset(changed)))
    return {
        path: Written(
            generation=realm.generation,
            created_at=before[path].created_at if path in before else now,
            modified_at=now if path in touched else before[path].modified_at,
        )
        for path in files
    }


def delete_files(realm: Realm, paths: Iterable[str]) -> int:
    """Deletes files in one generation and answers it. The caller holds the realm's lock.

    Raises NotFound if one of the paths doesn't exist; then nothing is deleted.
    """
    wanted = list(dict.fromkeys(paths))
    versions = list(open_versions(realm, wanted))
    missing = set(wanted) - {version.path for version in versions}
    if missing:
        raise NotFound(url=realm.url + min(missing))
    generation = advance(realm, -len(versions), -sum(version.size for version in versions))
    _close(realm, versions)
    raise_change(Change.of(realm, paths=frozenset(wanted)))
    return generation


def _close(realm: Realm, versions: list[FileVersion]) -> None:
    if versions:
        FileVersion.objects.filter(pk__in=[version.pk for version in versions]).update(
            until_generation=realm.generation, closed_at=Now()
        )


# --- Asking ------------------------------------------------------------------------------------


def changed_between(source: Realm, older: int, newer: int) -> list[str]:
    """The paths of a source realm that differ between two of its generations, in one query."""
    low, high = sorted((older, newer))
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT path FROM realms_fileversion
            WHERE realm_id = %(realm)s AND (
                (from_generation > %(low)s AND from_generation <= %(high)s)
                OR (until_generation > %(low)s AND until_generation <= %(high)s)
            ) ORDER BY path
            """,
            {"realm": source.pk, "low": low, "high": high},
        )
        return [path for (path,) in cursor.fetchall()]


def difference(realm: Realm, since: int, at: int) -> dict[str, str | None] | None:
    """The files of a realm at one generation that were not the same at an earlier one, as path and
    SHA-256, or None for a file that is gone. None where history doesn't reach back that far: then
    nothing can be said to be unchanged.
    """
    content_id, low, high = realm.pk, since, at
    if realm.kind == Realm.Kind.PUBLISHED:
        before, after = publication_at(realm, since), publication_at(realm, at)
        if before is None or after is None or before.source_id != after.source_id:
            return None
        content_id, low, high = after.source_id, before.source_generation, after.source_generation
    elif not FileVersion.objects.filter(realm=realm, from_generation__lte=since).exists():
        # Another realm stood at this URL then.
        return None
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENCE, {"realm": content_id, "then": low, "now": high})
        files: dict[str, str | None] = dict(cursor.fetchall())
    files |= _behind_borders(realm, since, at)
    # Asked last: what is whole by now was whole when it was compared.
    return files if _is_whole(realm, since, at) else None


def _behind_borders(realm: Realm, since: int, at: int) -> dict[str, str | None]:
    """What a realm serves otherwise because another has come or gone within it: the files there,
    and the topmost folder, with its final slash, for whatever was looked for there in vain."""
    low, high = sorted((since, at))
    moved = RealmBorder.objects.filter(realm=realm, generation__gt=low, generation__lte=high)
    files: dict[str, str | None] = {}
    for folder in moved.values_list("path", flat=True):
        files[top_folder(folder)] = None
        there = versions_at(realm, at).filter(path__startswith=folder)
        files |= dict(there.values_list("path", "blob_id"))
    return files | dict.fromkeys(realms_within(realm.url, files))


def _is_whole(realm: Realm, *generations: int) -> bool:
    """Whether every file that a realm held at these generations is still known. A publication
    keeps what it shows."""
    if realm.kind == Realm.Kind.PUBLISHED:
        return all(publication_at(realm, generation) is not None for generation in generations)
    return Realm.objects.filter(pk=realm.pk, history_from__lte=min(generations)).exists()


_DIFFERENCE: LiteralString = """
WITH bounds AS (
    SELECT least(%(then)s, %(now)s)::bigint AS low, greatest(%(then)s, %(now)s)::bigint AS high
), touched AS (
    SELECT DISTINCT path FROM realms_fileversion, bounds
    WHERE realm_id = %(realm)s AND (
        (from_generation > low AND from_generation <= high)
        OR (until_generation > low AND until_generation <= high)
    )
)
SELECT t.path, new.sha256 FROM touched t
LEFT JOIN realms_fileversion old ON old.realm_id = %(realm)s AND old.path = t.path
    AND old.from_generation <= %(then)s
    AND (old.until_generation IS NULL OR old.until_generation > %(then)s)
LEFT JOIN realms_fileversion new ON new.realm_id = %(realm)s AND new.path = t.path
    AND new.from_generation <= %(now)s
    AND (new.until_generation IS NULL OR new.until_generation > %(now)s)
WHERE old.sha256 IS DISTINCT FROM new.sha256
"""


def read_many(
    realm: Realm, generation: int, paths: list[str]
) -> Iterator[tuple[str, bytes | None]]:
    """Files of a realm at one generation, None for one that isn't there. It ends early where they
    come to more than MANY_BYTES: the rest is to be asked for again."""
    there = versions_at(realm, generation).filter(path__in=paths)
    files = {
        path: (sha256, size) for path, sha256, size in there.values_list("path", "blob", "size")
    }
    total = 0
    for start in range(0, len(paths), MANY_AT_A_TIME):
        part = paths[start : start + MANY_AT_A_TIME]
        wanted = {files[path][0] for path in part if path in files}
        blobs = dict(Blob.objects.filter(pk__in=wanted).values_list("pk", "data"))
        for path in part:
            sha256, size = files.get(path, ("", 0))
            total += size
            if total > MANY_BYTES and total > size:
                return
            yield path, read_blob(sha256, blobs[sha256]) if sha256 else None

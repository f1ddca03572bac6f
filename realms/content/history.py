"""Reads the files of a realm at a generation, and finds the files that differ between two
generations. A realm's generation is a number that rises with each change of the realm's content."""

from collections.abc import Iterator

from django.db import connection
from django.db.models import QuerySet

from notifications.texts import top_folder
from realms import sql
from realms.content.blobs import read_blob
from realms.content.resolve import realms_within
from realms.models import Blob, FileVersion, Realm, RealmBorder

#: The maximum total size of the files in one response. Unit: bytes.
MANY_BYTES = 16 * 1024 * 1024
#: How many rows of blobs one query of `read_many` fetches. A row holds at most 64 KiB of content.
MANY_AT_A_TIME = 100


# --- Reading at a generation -------------------------------------------------------------------


def versions_at(realm: Realm, generation: int) -> QuerySet[FileVersion]:
    """Returns the file versions that a realm has at a generation. For a published realm, returns
    the versions of the source realm that the realm's publication at this generation shows. If this
    publication doesn't exist, returns no versions."""
    if realm.kind == Realm.Kind.PUBLISHED:
        publication = realm.publications.at(generation).first()
        if publication is None:
            return FileVersion.objects.none()
        return FileVersion.objects.as_of(publication.source_id, publication.source_generation)
    return FileVersion.objects.as_of(realm.pk, generation)


# --- Comparing generations ---------------------------------------------------------------------


def changed_between(source: Realm, older: int, newer: int) -> list[str]:
    """Returns the paths of the files of a source realm that were written or deleted between two
    generations. A file is in the result even if it has the same content at both generations."""
    low, high = sorted((older, newer))
    touched = source.versions.touched(low, high).order_by("path")
    return list(touched.values_list("path", flat=True).distinct())


def difference(realm: Realm, since: int, at: int) -> dict[str, str | None] | None:
    """Returns a dictionary with the paths of the files that differ between the generations `since`
    and `at` of a realm. A path's value is the file's SHA-256 at the generation `at`, or None if the
    file doesn't exist at `at`. If the two generations can't be compared, returns None instead of a
    dictionary."""
    content_id, low, high = realm.pk, since, at
    if realm.kind == Realm.Kind.PUBLISHED:
        shown = {each.generation: each for each in realm.publications.at(since, at)}
        before, after = shown.get(since), shown.get(at)
        if before is None or after is None or before.source_id != after.source_id:
            return None
        content_id, low, high = after.source_id, before.source_generation, after.source_generation
    elif not FileVersion.objects.filter(realm=realm, from_generation__lte=since).exists():
        # At the generation `since`, the realm had no files yet, or an earlier realm was at its URL.
        return None
    with connection.cursor() as cursor:
        cursor.execute(sql.DIFFERENCE, {"realm": content_id, "then": low, "now": high})
        files: dict[str, str | None] = dict(cursor.fetchall())
    files |= _behind_borders(realm, since, at)
    # The garbage collector may have deleted versions during the comparison. Check this last: if no
    # version is missing now, none was missing during the comparison.
    return files if _is_whole(realm, since, at) else None


def _behind_borders(realm: Realm, since: int, at: int) -> dict[str, str | None]:
    """Returns the files that a realm hides or shows because an inner realm was created or removed
    between the two generations. The values are as in `difference`.

    The result also has the topmost folder of the inner realm's path, with its final slash and the
    value None. Every card that looked for a file in this folder depends on the folder, even if the
    file didn't exist (`DependencyTracker` in `reindex/reading/dependency_keys.py`)."""
    low, high = sorted((since, at))
    moved = RealmBorder.objects.filter(realm=realm, generation__gt=low, generation__lte=high)
    files: dict[str, str | None] = {}
    for folder in moved.values_list("path", flat=True):
        files[top_folder(folder)] = None
        there = versions_at(realm, at).filter(path__startswith=folder)
        files |= dict(there.values_list("path", "blob_id"))
    return files | dict.fromkeys(realms_within(realm.url, files))


def _is_whole(realm: Realm, *generations: int) -> bool:
    """Returns whether every file version of a realm at these generations still exists. For a
    published realm, checks only whether the publications exist, because the garbage collector keeps
    the versions that a publication shows."""
    if realm.kind == Realm.Kind.PUBLISHED:
        return realm.publications.at(*generations).count() == len(set(generations))
    return Realm.objects.filter(pk=realm.pk, history_from__lte=min(generations)).exists()


def read_many(
    realm: Realm, generation: int, paths: list[str]
) -> Iterator[tuple[str, bytes | None]]:
    """Yields each path with its file's content at a generation, or with None for a missing file.
    Stops before the total size exceeds MANY_BYTES, but always yields the first file. The caller
    must request the remaining paths in another call."""
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

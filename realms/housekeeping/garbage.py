"""Removes content that nothing uses any more: old publications, file versions and blobs.

A realm's generation is a number that rises with each change. A publication says which generation of
a source realm a published realm shows. A file version says which content a file has from one
generation of its realm to another. A blob is the content itself.

The collector keeps these things:

- every current file version
- a replaced or deleted file version for the retention time (REALM_RETENTION_SECONDS)
- the file versions of each generation that a kept publication shows or that a job may still read
- a blob while a file version refers to it, and for a grace period after the blob was stored

While the collector chooses and removes rows, it holds the same locks as writers. For publications
and file versions, this is the realm's lock. For a blob, it is the lock of the blob's database row.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from django.conf import settings
from django.core.files.storage import Storage, storages
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone

from realms import sql
from realms.content.blobs import blob_name, storage_errors
from realms.content.locks import realm_write_lock
from realms.errors import Busy
from realms.housekeeping.pruning import prune
from realms.models import Blob, Realm
from reindex.models import IndexHead, ReindexJob
from reindex.reading.pins import PIN_SECONDS

#: How many of the newest publications of each published realm the collector keeps for rollbacks,
#: even after the retention time.
KEPT_PUBLICATIONS = 10
#: The default grace period of blobs.
GRACE_HOURS = 24
#: How many blobs one transaction removes at most. A writer that stores the content of one of these
#: blobs again has to wait until the transaction ends.
BATCH = 100

_HASH = re.compile(r"[0-9a-f]{64}")
_DRAFT = re.compile(r"\.draft-.*")


@dataclass
class Collected:
    """The numbers of rows and stored objects that a collection removed. After a dry run, the
    numbers that a collection would remove."""

    publications: int = 0
    versions: int = 0
    blobs: int = 0
    #: The total size of the removed blobs.
    bytes: int = 0
    #: Objects in the blob storage that have no row, because their writers were killed.
    strays: int = 0
    #: The URLs of realms that the collector could not lock in time. The next run handles them.
    busy: list[str] = field(default_factory=list)
    #: The numbers of rows that `pruning.py` removed, by the kind of the rows.
    rows: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """Describes the numbers in one line."""
        return (
            f"{self.publications} publications, {self.versions} file versions, "
            f"{self.blobs} blobs with {self.bytes / 1e6:.1f} MB, {self.strays} stray objects, "
            f"{sum(self.rows.values())} rows of finished work"
        )


@dataclass(frozen=True)
class Limits:
    """The limits of a collection. Rows of finished work may be removed if the work ended before the
    time `before`. Publications and file versions may be removed if they were replaced or deleted
    before this time. Blobs and stray objects may be removed if they were stored before the time
    `young`. `pins` lists the generations that jobs may still read, each with its realm's key."""

    before: datetime
    young: datetime
    pins: list[tuple[UUID, int]]

    def parameters(self, **more: Any) -> dict[str, Any]:
        """Returns the parameters of the SQL statements that choose the rows to remove."""
        return {
            "before": self.before,
            "young": self.young,
            "kept": KEPT_PUBLICATIONS,
            "pinned": [realm_id for realm_id, _ in self.pins],
            "pins": [generation for _, generation in self.pins],
            **more,
        }


def collect_garbage(
    *, grace: timedelta, dry_run: bool = False, progress: Callable[[str], None] = lambda what: None
) -> Collected:
    """Removes content that nothing uses any more, and rows of finished work. A blob is kept for at
    least the time `grace` after it was stored. Calls `progress` with the name of each step.

    A dry run takes no locks, and only counts what could be removed.
    """
    now = timezone.now()
    retention = max(settings.REALM_RETENTION_SECONDS, PIN_SECONDS)
    limits = Limits(now - timedelta(seconds=retention), now - grace, _pins(now))
    done = Collected()
    progress("finished work")
    done.rows = prune(limits.before, dry_run=dry_run)
    if dry_run:
        _count(limits, done, progress)
        return done
    for realm in list(Realm.objects.published()):
        progress(realm.url)
        done.publications += _unless_busy(realm, limits, done, _drop_publications)
    for realm in list(Realm.objects.with_own_files()):
        progress(realm.url)
        done.versions += _unless_busy(realm, limits, done, _drop_versions)
    progress("stored objects")
    done.strays = sum(_adopted(stray) for stray in _strays(limits))
    progress("blobs")
    while _drop_blobs(limits, done):
        pass
    return done


def _pins(now: datetime) -> list[tuple[UUID, int]]:
    """Returns the generations that jobs may still read, each with its realm's key. They are the
    generations of these jobs:

    - Unfinished jobs.
    - Jobs that ended in the last PIN_SECONDS. Their pins, which are tokens for reading one
      generation, may still be valid.
    - The job that made a realm's current pages. The realm's next job reads the changes since the
      generations of that job.
    """
    recent = now - timedelta(seconds=PIN_SECONDS)
    shown = IndexHead.objects.values("job")
    ended = ReindexJob.objects.filter(Q(finished_at__gt=recent) | Q(pk__in=shown))
    jobs = ReindexJob.objects.unfinished() | ended
    pinned = {
        (url, int(generation))
        for job in jobs
        for url, generation in [(job.realm_url, job.generation), *job.pins.items()]
    }
    ids = dict(Realm.objects.filter(url__in={url for url, _ in pinned}).values_list("url", "pk"))
    return [(ids[url], generation) for url, generation in pinned if url in ids]


def _unless_busy(
    realm: Realm, limits: Limits, done: Collected, drop: Callable[[Realm, Limits], int]
) -> int:
    try:
        with realm_write_lock(realm.url):
            return drop(realm, limits)
    except Busy:
        done.busy.append(realm.url)
        return 0


# --- Publications and versions -----------------------------------------------------------------


def _drop_publications(realm: Realm, limits: Limits) -> int:
    """Deletes old publications of a published realm. The caller holds the realm's lock, so no
    publish or rollback runs at the same time."""
    with connection.cursor() as cursor:
        cursor.execute(
            sql.DELETE_OLD_PUBLICATIONS, limits.parameters(realms=[realm.pk], dropped=[])
        )
        return int(cursor.rowcount)


def _drop_versions(realm: Realm, limits: Limits) -> int:
    """Deletes old file versions of a realm with files of its own. Sets the realm's `history_from`
    to the generation from which on no file version is missing.

    The caller holds the realm's lock, so no write, publish or rollback runs at the same time.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql.DELETE_OLD_VERSIONS, limits.parameters(realms=[realm.pk], dropped=[]))
        ends = [until for (until,) in cursor.fetchall()]
    if ends:
        Realm.objects.filter(pk=realm.pk).update(
            history_from=Greatest(F("history_from"), max(ends))
        )
    return len(ends)


# --- Blobs -------------------------------------------------------------------------------------


def _drop_blobs(limits: Limits, done: Collected) -> int:
    """Removes up to BATCH blobs that are past their grace period and to which no file version
    refers. Returns their number.

    Skips rows that a writer has locked. A writer that needs a deleted row waits for this
    transaction and then stores the content again. So this function deletes the blob's object in the
    storage before the transaction ends. A later deletion could remove the writer's new object.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql.DELETE_OLD_BLOBS, limits.parameters(gone=[], batch=BATCH))
            rows = cursor.fetchall()
            # Check the foreign keys of file versions now, and not only at the commit. The deletion
            # of an object can't be undone.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for sha256, _, in_storage in rows:
                if in_storage:
                    with storage_errors():
                        storages["blobs"].delete(blob_name(sha256))
    except IntegrityError:
        # Another transaction has just committed a file version that refers to one of these blobs,
        # so nothing was removed. The result is above 0, so the caller calls again.
        return BATCH
    done.blobs += len(rows)
    done.bytes += sum(size for _, size, _ in rows)
    return len(rows)


@dataclass(frozen=True)
class _Stray:
    """An object in the blob storage that has no database row."""

    name: str
    size: int
    modified_at: datetime


def _strays(limits: Limits) -> Iterator[_Stray]:
    """Yields the objects in the blob storage that have no row, because their writers were killed
    before the commit. Leaves out objects in their grace period, because their writers may still
    commit."""
    storage = storages["blobs"]
    for first in _listed(storage, "")[0]:
        for second in _listed(storage, first)[0]:
            folder = f"{first}/{second}"
            names = _listed(storage, folder)[1]
            known = set(Blob.objects.filter(sha256__in=names).values_list("sha256", flat=True))
            for name in names:
                if name in known or not (_HASH.fullmatch(name) or _DRAFT.fullmatch(name)):
                    continue
                stray = _stray(storage, f"{folder}/{name}")
                if stray is not None and stray.modified_at < limits.young:
                    yield stray


def _listed(storage: Storage, folder: str) -> tuple[list[str], list[str]]:
    try:
        with storage_errors():
            return storage.listdir(folder)
    except FileNotFoundError:
        # No object was ever stored in this folder.
        return [], []


def _stray(storage: Storage, name: str) -> _Stray | None:
    try:
        with storage_errors():
            return _Stray(name, storage.size(name), storage.get_modified_time(name))
    except FileNotFoundError:
        return None


def _adopted(stray: _Stray) -> int:
    """Creates a row for a stray object, so that `_drop_blobs` removes the object under the row's
    lock. A draft, which is a partly written object, needs no lock, because each draft has a name of
    its own. So a draft is deleted at once. Always returns 1, so that the caller can count the
    strays with `sum`."""
    name = stray.name.rsplit("/", 1)[-1]
    if _DRAFT.fullmatch(name):
        with storage_errors():
            storages["blobs"].delete(stray.name)
        return 1
    row = Blob(sha256=name, size=stray.size, stored_at=stray.modified_at)
    Blob.objects.bulk_create([row], ignore_conflicts=True)
    return 1


# --- Counting ----------------------------------------------------------------------------------


def _count(limits: Limits, done: Collected, progress: Callable[[str], None]) -> None:
    progress("publications")
    dropped = _ids(sql.OLD_PUBLICATIONS, limits, realms=_keys(Realm.objects.published()))
    progress("file versions")
    gone = _ids(
        sql.OLD_VERSIONS, limits, realms=_keys(Realm.objects.with_own_files()), dropped=dropped
    )
    done.publications, done.versions = len(dropped), len(gone)
    progress("stored objects")
    strays = list(_strays(limits))
    progress("blobs")
    with connection.cursor() as cursor:
        cursor.execute(sql.SIZES_OF_OLD_BLOBS, limits.parameters(gone=gone))
        sizes = [size for (size,) in cursor.fetchall()]
    sizes += [stray.size for stray in strays if not _DRAFT.fullmatch(stray.name.rsplit("/")[-1])]
    done.strays, done.blobs, done.bytes = len(strays), len(sizes), sum(sizes)


def _keys(realms: QuerySet[Realm]) -> list[UUID]:
    return list(realms.values_list("pk", flat=True))


def _ids(statement: LiteralString, limits: Limits, **more: Any) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, limits.parameters(**more))
        return [pk for (pk,) in cursor.fetchall()]

"""Makes old publications and blobs for tests of the garbage collector, which removes content that
nothing uses any more. A publication says which generation of a source realm a published realm
shows. A blob is the content of a file."""

from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.core.files.storage import storages
from django.db import connection, transaction

from realms.content.blobs import blob_name, read_blob
from realms.content.history import versions_at
from realms.housekeeping.garbage import Collected, collect_garbage
from realms.models import Blob, Publication, Realm
from tests.support import make

PAGE = "http://ada.localhost:4201/"
LARGE = bytes(range(256)) * 257
GRACE = timedelta(hours=24)


def age(days: float = 30) -> None:
    """Makes all replaced file versions, publications, blobs and ended jobs look `days` days older.
    So the garbage collector may remove those that nothing uses."""
    with transaction.atomic(), connection.cursor() as cursor:
        # With this setting, Postgres runs no triggers. Some triggers forbid the updates below.
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table, column in (
            ("realms_fileversion", "closed_at"),
            ("realms_publication", "at"),
            ("realms_blob", "stored_at"),
            ("reindex_reindexjob", "finished_at"),
        ):
            cursor.execute(
                f"UPDATE {table} SET {column} = {column} - %s::interval", [f"{days} days"]
            )


def collect(**options: Any) -> Collected:
    return collect_garbage(**{"grace": GRACE, **options})


def publications() -> dict[int, dict[str, bytes]]:
    """Returns the files of each publication. The outer keys are the publications' generations. The
    inner keys are the files' paths. Also asserts that each blob's row has the right size."""
    shown = {}
    for each in Publication.objects.select_related("realm"):
        versions = versions_at(each.realm, each.generation).select_related("blob")
        files = {v.path: read_blob(v.blob_id, v.blob.data) for v in versions}
        assert all(Blob.objects.get(pk=v.blob_id).size == len(files[v.path]) for v in versions)
        shown[each.generation] = files
    return shown


def edition(source: Realm, number: int) -> None:
    """Publishes an edition of a source realm. Before that, changes index.json, adds a file with the
    edition's number, and deletes the file that the previous edition added."""
    make.write_paths(
        source, {"index.json": str(number).encode(), f"{number}.md": LARGE + b"%d" % number}
    )
    if number:
        make.remove(source, f"{number - 1}.md")
    make.publish(source, PAGE)


def in_storage(data: bytes) -> bool:
    return storages["blobs"].exists(blob_name(sha256(data).hexdigest()))

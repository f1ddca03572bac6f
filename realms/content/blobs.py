"""Stores and reads blobs. A blob is the content of one or more files; its key is the SHA-256 of the
content. Small content is in the blob's database row. Large content is in a file in the blob storage
(REALM_BLOB_STORAGE)."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from typing import Any

from django.core.files.base import File
from django.core.files.storage import storages
from django.db import Error as DatabaseError
from django.db import connection, transaction

from realms import sql
from realms.errors import Busy, RealmError

logger = logging.getLogger(__name__)

#: The largest content that is stored in a blob's row. Unit: bytes.
ROW_BLOB_BYTES = 64 * 1024


@dataclass(frozen=True)
class Stored:
    """The hash of stored content, and its size in bytes."""

    sha256: str
    size: int


# --- Blobs -------------------------------------------------------------------------------------


def blob_name(sha256: str) -> str:
    """Returns the name of a blob's file in the blob storage."""
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def store_blob(data: bytes) -> str:
    """Stores the content of one file and returns its SHA-256; see `store_blobs`."""
    return store_blobs([data])[0]


def store_blobs(contents: Iterable[bytes]) -> list[str]:
    """Stores the contents of files and returns their SHA-256s. Large content is written to the blob
    storage before the blob's row is committed. Raises Busy if the storage fails.

    If a blob's row exists, the row gets a new `stored_at` and is locked until the caller's
    transaction ends. The garbage collector skips locked rows and rows with a recent `stored_at`. So
    it doesn't remove the blob before a file version refers to the blob. If the collector is already
    removing the blob, this function waits, and then stores the blob again.
    """
    hashed = [(hashlib.sha256(data).hexdigest(), data) for data in contents]
    # The blobs are sorted, so that two writers lock rows in the same order and can't deadlock.
    blobs = dict(sorted(hashed))
    sizes = [len(data) for data in blobs.values()]
    in_rows = [data if len(data) <= ROW_BLOB_BYTES else b"" for data in blobs.values()]
    rows: dict[str, Any] = {
        "hashes": list(blobs),
        "sizes": sizes,
        "starts": [
            start if size <= ROW_BLOB_BYTES else None
            for start, size in zip(accumulate(map(len, in_rows), initial=1), sizes, strict=False)
        ],
        "joined": b"".join(in_rows),
    }
    # No savepoint is needed, because the caller rolls back its whole transaction after an error.
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute(sql.STORE_BLOBS, rows)
        for sha256, data in blobs.items():
            if len(data) > ROW_BLOB_BYTES:
                _store_object(blob_name(sha256), data)
    return [sha256 for sha256, _ in hashed]


def _store_object(name: str, data: bytes) -> None:
    with storage_errors():
        storage = storages["blobs"]
        if not storage.exists(name):
            storage.save(name, File(BytesIO(data)))


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raises Busy, which asks the client to retry, if the blob storage fails inside the block. A
    FileNotFoundError isn't replaced, because a retry doesn't help if the file is missing."""
    try:
        yield
    except (FileNotFoundError, RealmError, DatabaseError):
        raise
    except Exception as error:
        # Storage backends have no common error class, so any other error may come from the storage.
        logger.warning("the storage of large content failed: %s: %s", type(error).__name__, error)
        raise Busy(what="the storage of large content can't be reached") from error


def read_blob(sha256: str, data: bytes | memoryview | None = None) -> bytes:
    """Returns a blob's content. `data` is the content in the blob's row. If `data` is None, reads
    the blob's file in the blob storage, and raises Busy if the storage fails."""
    if data is None:
        with storage_errors(), storages["blobs"].open(blob_name(sha256)) as file:
            return bytes(file.read())
    return bytes(data)

"""Blobs: content by its SHA-256, small ones in their rows and large ones in the storage."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

from django.core.files.base import File
from django.core.files.storage import storages
from django.db import transaction

from realms.models import Blob

#: Larger blobs go to the storage instead of the row. Unit: bytes.
ROW_BLOB_BYTES = 64 * 1024


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

"""The storage of blobs too large for a database row: a folder, or S3 through django-storages."""

import os
import tempfile
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

#: The timeouts for connecting to S3 and for its answer, and how many times a request is sent.
CONNECT_SECONDS, READ_SECONDS, TRIES = 3, 10, 2


class SyncedFileSystemStorage(FileSystemStorage):
    """A storage in a folder. A file is complete and on disk before it gets its name.

    A blob is written before its row. A crash between the two, or a power cut after both, must not
    leave a row whose bytes are incomplete.
    """

    def _save(self, name: str, content: "File[Any]") -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in content.chunks():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, 0o644)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return name


def blob_storage(url: str, default: Path) -> dict[str, Any]:
    """The STORAGES entry for REALM_BLOB_STORAGE: empty, a folder, or `s3://bucket[/prefix]`."""
    if not url or url.startswith("/"):
        return {
            "BACKEND": "settings.storage.SyncedFileSystemStorage",
            "OPTIONS": {"location": url or str(default)},
        }
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": bucket,
                "location": prefix,
                "file_overwrite": True,
                "client_config": _patience(),
                # Without this, a download is retried several times, each time with all the tries of
                # `client_config`.
                "transfer_config": _one_try(),
            },
        }
    raise ImproperlyConfigured(
        f"REALM_BLOB_STORAGE is {url!r}; expected an absolute folder or s3://bucket/prefix"
    )


def _one_try() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(num_download_attempts=1, use_threads=False)


def _patience() -> Any:
    """The limits on how long a request to S3 may take. A write holds its realm's lock meanwhile,
    and boto3's default limits add up to minutes. Raises ImproperlyConfigured if the library is
    missing."""
    try:
        from botocore.config import Config
    except ImportError:
        raise ImproperlyConfigured(
            "REALM_BLOB_STORAGE is on S3, and its library is not installed: "
            "pip install 'realm-server[s3]'"
        ) from None
    retries = {"mode": "standard", "total_max_attempts": TRIES}
    return Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)

"""Makes the storage of blobs, the contents of files that are too large for a database row. The
storage is a folder or S3."""

import os
import tempfile
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

#: The time limits for connecting to S3 and for reading a response, and the maximum number of
#: attempts for each request.
CONNECT_SECONDS, READ_SECONDS, TRIES = 3, 10, 2


class SyncedFileSystemStorage(FileSystemStorage):
    """A storage in a folder. A file gets its name only when it is complete and on disk.

    A blob is written before its row in the database. So every row has a complete blob, even after a
    crash or a power cut.
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
    """Returns the entry in Django's STORAGES for `url`, the value of REALM_BLOB_STORAGE. The value
    is a folder or `s3://bucket[/prefix]`. If the value is empty, `default` is the folder."""
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
                # By default boto3 repeats a broken download several times. `client_config` doesn't
                # limit these repetitions, only the attempts for a single request.
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
    """Returns boto3's configuration with limits on the duration of a request to S3. boto3's default
    limits add up to minutes, and a write to a realm holds the realm's lock during the request.
    Raises ImproperlyConfigured if boto3 is not installed."""
    try:
        from botocore.config import Config
    except ImportError:
        raise ImproperlyConfigured(
            "REALM_BLOB_STORAGE is on S3, but the library for S3 is not installed: "
            "pip install 'realm-server[s3]'"
        ) from None
    retries = {"mode": "standard", "total_max_attempts": TRIES}
    return Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)

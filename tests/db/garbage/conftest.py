"""Every test of the collector begins with an empty storage."""

import shutil

import pytest
from django.core.files.storage import storages


@pytest.fixture(autouse=True)
def empty_storage() -> None:
    """Other tests leave objects without rows: they empty tables and not the storage."""
    shutil.rmtree(storages["blobs"].path(""), ignore_errors=True)

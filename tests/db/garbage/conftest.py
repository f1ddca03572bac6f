"""Fixture: every test of the collector begins with an empty blob storage."""

import shutil

import pytest
from django.core.files.storage import storages


@pytest.fixture(autouse=True)
def empty_storage() -> None:
    """Other tests empty the tables and not the storage, so they leave objects without rows."""
    shutil.rmtree(storages["blobs"].path(""), ignore_errors=True)

"""Empties the blob storage before every test of the garbage collector."""

import shutil

import pytest
from django.core.files.storage import storages


@pytest.fixture(autouse=True)
def empty_storage() -> None:
    """Empties the blob storage. Other tests leave objects there that have no database rows, and the
    collector would count these objects."""
    shutil.rmtree(storages["blobs"].path(""), ignore_errors=True)

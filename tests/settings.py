"""Changes the project's settings for tests. Tests have their own blob storage, their own seed (the
key that signs tokens), and their own board (a file that says whether cached data is fresh)."""

import os
import tempfile

FOLDER = tempfile.TemporaryDirectory(prefix="realm-tests-")
os.environ["REALM_BOARD"] = f"{FOLDER.name}/board"
os.environ["REALM_BLOB_STORAGE"] = f"{FOLDER.name}/blobs"
os.environ["REALM_PUBLIC_ORIGIN"] = "http://localhost:4201"
os.environ["REALM_SECRET_SEED"] = "the tests' own seed, long enough for any algorithm"
os.environ.setdefault("REALM_INDEX_SOURCES", "0")

from settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["tests.support.hashers.QuickHasher"]

"""Marks tests that take minutes. CI skips these tests, because faster tests check the same
mechanisms separately."""

import os

import pytest

takes_minutes = pytest.mark.skipif(
    "REALM_TEST_HOSTS" not in os.environ, reason="takes minutes: script/test --hosts runs it"
)

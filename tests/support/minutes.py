"""Marks tests that take minutes. Only `script/test --hosts` runs these tests. In CI, faster tests
check the same mechanisms one by one."""

import os

import pytest

takes_minutes = pytest.mark.skipif(
    "REALM_TEST_HOSTS" not in os.environ, reason="takes minutes: script/test --hosts runs it"
)

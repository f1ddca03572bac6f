"""The mark of tests that take long and whose parts other tests have: CI leaves them out."""

import os

import pytest

takes_minutes = pytest.mark.skipif(
    "REALM_TEST_HOSTS" not in os.environ, reason="takes minutes: script/test --hosts runs it"
)

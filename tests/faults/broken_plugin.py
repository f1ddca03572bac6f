"""Switches off the mechanism that REALM_FAULTS_BREAK names, during a test run. The option `-p`
makes pytest load this module as a plugin."""

import os
from collections.abc import Generator
from typing import Any

import pytest

from tests.faults.broken import BREAKS, VARIABLE, switch_off


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Switches off the mechanism before pytest imports test modules, because these may import
    functions that `switch_off` replaces."""
    switch_off()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    """Runs the mechanism's SQL, if it isn't empty, when pytest has created the test database."""
    made = yield
    statement = BREAKS[os.environ[VARIABLE]][1]
    if fixturedef.argname == "django_db_setup" and statement:
        from django.db import connection
        from pytest_django.plugin import blocking_manager_key

        with request.config.stash[blocking_manager_key].unblock():
            connection.cursor().execute(statement)
    return made

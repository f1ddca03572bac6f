"""Fixtures. The database is a real Postgres: the embedded one, or what DATABASE_URL names."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_django.fixtures
from django.db import DEFAULT_DB_ALIAS, connection
from django.test import Client, TransactionTestCase
from hypothesis import HealthCheck, Phase, settings
from psycopg import sql

from realms.models import TranspiledModule
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import messages
from reindex.prerender.pool import renderers
from reindex.reading import modules
from tests.support import make
from tests.support.web import Web, served, vouch

#: What migrations put there, and no test changes; and JavaScript, which is kept by what it was made
#: from: making that of the card library takes longer than most tests.
KEPT_TABLES = {
    "django_migrations",
    "django_content_type",
    "auth_permission",
    "realms_transpiledmodule",
}

# The same examples each time, so that a run says something of the code and not of chance;
# HYPOTHESIS_PROFILE=long looks for new and more ones, and makes what it finds small.
settings.register_profile(
    "short",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    max_examples=3000,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever touches neither a database nor other processes is of the unit tier."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        marked = any(item.get_closest_marker(name) for name in ("django_db", "cluster", "services"))
        if not marked and not {"db", "transactional_db", "django_db_setup"} & fixtures:
            item.add_marker("unit")


def _empty_tables(self: TransactionTestCase) -> None:
    """Deletes every row that a test committed: ten times as quick as Django's TRUNCATE of all."""
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor)) - KEPT_TABLES
        cursor.execute(
            sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(
                    name, sql.Identifier(name)
                )
                for name in sorted(tables)
            )
        )
        filled = [name for (name,) in cursor.fetchall()]
        if filled:
            # Neither foreign keys nor our own triggers have a say here.
            cursor.execute(
                sql.SQL("BEGIN; SET LOCAL session_replication_role = replica; {}; COMMIT").format(
                    sql.SQL("; ").join(
                        sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for name in filled
                    )
                )
            )


# Whoever asks for the test database gets it: pytest-django would leave the installation's own in
# place where none of the tests that are run has its mark.
pytest_django.fixtures._get_databases_for_setup = lambda items: ({DEFAULT_DB_ALIAS}, set())
TransactionTestCase._fixture_teardown = _empty_tables  # type: ignore[attr-defined]


@pytest.fixture
def nothing_transpiled(transactional_db: None) -> Iterator[None]:
    """No JavaScript is known, not even the card library's; and none of the test's own is kept."""
    TranspiledModule.objects.all().delete()
    yield
    TranspiledModule.objects.all().delete()


@pytest.fixture
def owner(transactional_db: None) -> Any:
    """The user ada, who owns what `realm` makes."""
    return make.user("ada")


@pytest.fixture
def base(transactional_db: None) -> None:
    """The bootstrap realm, as `migrate` leaves it."""
    sync_base_realm()


@pytest.fixture
def source(owner: Any) -> Any:
    """The source realm http://localhost:4201/ada/site/ with a module, two cards and an image."""
    return make.source("http://localhost:4201/ada/site/", owner, make.SITE)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """What would have gone to the broker, as (task name, delay); nothing goes there."""

    kept: list[tuple[str, float]] = []

    def keep(task: str, *, delay: float = 0, expires: float | None = None) -> None:
        kept.append((task, delay))

    monkeypatch.setattr(messages, "send", keep)
    return kept


@pytest.fixture
def web(transactional_db: None, sent: Any) -> Iterator[Web]:
    """The application behind a socket, on the test's own database, with empty caches."""
    # A generation is reached once only in the life of a database; here every test begins one.
    modules.forget_modules()
    renderers.shutdown()
    with served() as running:
        yield running


@pytest.fixture
def live(web: Web) -> None:
    """Makes the caches of `web` answer, as they do beside a live sidecar."""
    vouch()


@pytest.fixture
def client() -> Client:
    """Django's test client, asking the public origin: the admin is nowhere else."""
    return Client(headers={"host": "localhost:4201"})

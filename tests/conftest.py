"""Contains the fixtures that all tests can use. The tests use the database server in DATABASE_URL,
or if that is empty, the embedded Postgres, a server that the project starts itself."""

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

#: Tables that keep their rows after a test. Migrations fill the first three tables, and no test
#: changes these tables. Transpiled JavaScript is kept because transpiling takes a long time. The
#: JavaScript of a module can't become outdated, because its key is the hash of the module's source.
KEPT_TABLES = {
    "django_migrations",
    "django_content_type",
    "auth_permission",
    "realms_transpiledmodule",
}

# By default Hypothesis tries the same examples in each run, so that the result changes only if the
# code changes. With HYPOTHESIS_PROFILE=long, Hypothesis tries more examples, chooses the examples
# at random, and shrinks failing examples.
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
    """Adds the mark `unit` to every test that uses neither a database nor other processes."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        marked = any(item.get_closest_marker(name) for name in ("django_db", "cluster", "services"))
        if not marked and not {"db", "transactional_db", "django_db_setup"} & fixtures:
            item.add_marker("unit")


def _empty_tables(self: TransactionTestCase) -> None:
    """Deletes all rows, except those of KEPT_TABLES. Deleting is ten times as fast as TRUNCATE,
    which Django uses by default."""
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
            # With this `session_replication_role`, Postgres ignores foreign keys and the project's
            # triggers. Otherwise a trigger would store a new row for each deleted realm.
            cursor.execute(
                sql.SQL("BEGIN; SET LOCAL session_replication_role = replica; {}; COMMIT").format(
                    sql.SQL("; ").join(
                        sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for name in filled
                    )
                )
            )


# Some tests use only the fixture `django_db_setup`. If all selected tests are such tests,
# pytest-django by default creates no test database, and the tests would use the installation's own
# database. So always create the test database.
pytest_django.fixtures._get_databases_for_setup = lambda items: ({DEFAULT_DB_ALIAS}, set())
TransactionTestCase._fixture_teardown = _empty_tables  # type: ignore[attr-defined]


@pytest.fixture
def nothing_transpiled(transactional_db: None) -> Iterator[None]:
    """Deletes all transpiled JavaScript, even the card library's, before and after the test."""
    TranspiledModule.objects.all().delete()
    yield
    TranspiledModule.objects.all().delete()


@pytest.fixture
def owner(transactional_db: None) -> Any:
    """Creates the user ada, who owns the realm of the fixture `source`."""
    return make.user("ada")


@pytest.fixture
def base(transactional_db: None) -> None:
    """Creates the bootstrap realm, which holds the card library `@realm/base`, as `migrate`
    does."""
    sync_base_realm()


@pytest.fixture
def source(owner: Any) -> Any:
    """Creates the source realm http://localhost:4201/ada/site/ with two modules, two cards and an
    image."""
    return make.source("http://localhost:4201/ada/site/", owner, make.SITE)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Returns a list that collects Celery messages as (task name, delay in seconds). No message
    is sent to the broker."""

    kept: list[tuple[str, float]] = []

    def keep(task: str, *, delay: float = 0, expires: float | None = None) -> None:
        kept.append((task, delay))

    monkeypatch.setattr(messages, "send", keep)
    return kept


@pytest.fixture
def web(transactional_db: None, sent: Any) -> Iterator[Web]:
    """Serves the application on a socket, with the test's database and empty caches."""
    # This process caches modules by generation. In production a generation of a realm occurs only
    # once. But each test starts again at the first generation, so the cache must be emptied.
    modules.forget_modules()
    renderers.shutdown()
    with served() as running:
        yield running


@pytest.fixture
def live(web: Web) -> None:
    """Makes the board, which says whether caches are current, live for the fixture `web`, as a
    sidecar does. So requests are answered from caches."""
    vouch()


@pytest.fixture
def client() -> Client:
    """Returns Django's test client with the host of the public origin, where the admin is."""
    return Client(headers={"host": "localhost:4201"})

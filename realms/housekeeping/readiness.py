"""Whether this process can serve: database, migrations, card library."""

import logging

from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from realms.models import Realm
from reindex.reading.references import BASE_REALM

logger = logging.getLogger(__name__)


def not_ready() -> list[str]:
    """What this process lacks to serve requests, each with what to do; empty if it is ready."""
    try:
        waiting = _migrations.waiting()
        if waiting:
            # Without them the tables may be missing, so nothing else can be asked.
            are = "migration is" if waiting == 1 else "migrations are"
            return [f"{waiting} {are} not applied: run manage.py migrate"]
        if not Realm.objects.filter(url=BASE_REALM).exists():
            return ["the card library is not installed: run manage.py migrate"]
    except DatabaseError as error:
        logger.warning("not ready: %s", error)
        return ["the database can't be reached"]
    return []


class _Migrations:
    """Knows whether the database has this release's migrations. Once it has, it keeps them."""

    def __init__(self) -> None:
        self._applied = False

    def waiting(self) -> int:
        """How many migrations of this release are not applied."""
        if self._applied:
            return 0
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        self._applied = not plan
        return len(plan)


_migrations = _Migrations()

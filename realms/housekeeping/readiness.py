"""Checks whether this process can serve requests. The database must be reachable, its migrations
must be applied, and the card library must be installed."""

import logging

from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from realms.models import Realm
from reindex.reading.references import BASE_REALM

logger = logging.getLogger(__name__)


def not_ready() -> list[str]:
    """Returns the reasons why this process can't serve requests. A reason can also say what the
    operator should do. The list is empty if the process is ready."""
    try:
        waiting = _migrations.waiting()
        if waiting:
            # Stop here, because the migrations may create the tables that the next query reads.
            are = "migration is" if waiting == 1 else "migrations are"
            return [f"{waiting} {are} not applied: run manage.py migrate"]
        if not Realm.objects.filter(url=BASE_REALM).exists():
            return ["the card library is not installed: run manage.py migrate"]
    except DatabaseError as error:
        logger.warning("not ready: %s", error)
        return ["the database can't be reached"]
    return []


class _Migrations:
    """Checks whether the migrations of this release are applied. Once they are applied, the check
    isn't repeated, because applied migrations stay applied."""

    def __init__(self) -> None:
        self._applied = False

    def waiting(self) -> int:
        """Returns how many migrations of this release are not applied."""
        if self._applied:
            return 0
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        self._applied = not plan
        return len(plan)


_migrations = _Migrations()

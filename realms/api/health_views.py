"""`/_liveness` and `/_readiness`: what a supervisor and a load balancer ask a replica.

A replica is alive if its process answers. It is ready if it can serve every realm: the database
answers, all migrations are applied, and the card library is there. Both answers are public and name
no realm of an author.
"""

import logging

from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from realms import errors
from realms.models import Realm
from reindex.reading.references import BASE_REALM

logger = logging.getLogger(__name__)


@csrf_exempt
def liveness(request: HttpRequest) -> HttpResponse:
    """200: the process answers requests. It asks nothing else, so a restart helps if it fails."""
    _check_method(request)
    return _uncached(HttpResponse(b"alive\n", content_type="text/plain; charset=utf-8"))


@csrf_exempt
def readiness(request: HttpRequest) -> HttpResponse:
    """200 if this replica can serve requests, else 503 with what is missing."""
    _check_method(request)
    missing = not_ready()
    response = JsonResponse(
        {"ready": not missing, "missing": missing}, status=503 if missing else 200
    )
    if missing:
        response["Retry-After"] = "1"
    return _uncached(response)


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


def _check_method(request: HttpRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise errors.MethodNotAllowed(("GET", "HEAD"), method=request.method)


def _uncached(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    return response

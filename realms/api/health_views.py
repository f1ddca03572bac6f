"""Contains the views `/_liveness`, for a supervisor, and `/_readiness`, for a load balancer.

A replica is alive if its process answers. A replica is ready to serve realms if the database
answers, all migrations are applied, and the card library is installed. Everyone may read the
answers of both views, so the answers contain no URLs of authors' realms.
"""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from realms import errors
from realms.housekeeping.readiness import not_ready


@csrf_exempt
def liveness(request: HttpRequest) -> HttpResponse:
    """Responds with 200 to every GET or HEAD request. The supervisor restarts a process that
    doesn't respond with 200. The view doesn't check the database, because a restart wouldn't repair
    the database."""
    _check_method(request)
    return _uncached(HttpResponse(b"alive\n", content_type="text/plain; charset=utf-8"))


@csrf_exempt
def readiness(request: HttpRequest) -> HttpResponse:
    """Responds with 200 if this replica can serve requests. Otherwise responds with 503 and lists
    the reasons why it can't."""
    _check_method(request)
    missing = not_ready()
    response = JsonResponse(
        {"ready": not missing, "missing": missing}, status=503 if missing else 200
    )
    if missing:
        response["Retry-After"] = "1"
    return _uncached(response)


def _check_method(request: HttpRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise errors.MethodNotAllowed(("GET", "HEAD"), method=request.method)


def _uncached(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    return response

"""Where errors become answers: the one place that decides what a client is told of them."""

import logging
import sys
from collections.abc import Callable

from django.core.exceptions import SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import DataError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.defaults import server_error

from realms.errors import (
    Busy,
    Conflict,
    Malformed,
    RealmError,
    error_response,
    server_error_response,
)
from realms.http.database_errors import is_away, is_conflict

logger = logging.getLogger(__name__)


class ErrorMiddleware:
    """Turns what a view raises into an answer. A client never sees a stack trace; of a mistake of
    ours the log always does, and so does who listens to `got_request_exception`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answers for what a view raised; None leaves it to Django's plain 500."""
        told = _told(request, error)
        if told is None:
            if request.path.startswith("/_admin"):
                return None
            told = _mistake(request)
        endpoint = request.resolver_match
        if endpoint is not None and endpoint.func.__module__ == "realms.api.server_views":
            return server_error_response(told)
        return error_response(told)


def uncaught(request: HttpRequest) -> HttpResponse:
    """Answers for what no view raised: a middleware, or the admin. Django has logged it."""
    error = sys.exc_info()[1]
    if is_away(error):
        return error_response(_away())
    return server_error(request)


def _told(request: HttpRequest, error: Exception) -> RealmError | None:
    """What a client is told of an error; None if that is a mistake of ours."""
    if isinstance(error, RealmError):
        return error
    if isinstance(error, SuspiciousOperation):
        return Malformed(what=str(error))
    if isinstance(error, DataError):
        return Malformed(what="the request has a value that no text or number can have")
    if is_away(error):
        logger.warning("%s %s got 503: %s", request.method, request.path, error)
        return _away()
    if is_conflict(error):
        logger.warning("%s %s got 409: %s", request.method, request.path, error)
        return Conflict(what="somebody else has just changed the same; look again")
    if isinstance(error, OperationalError):
        # A deadlock or a time limit: it can be tried again, and we want to hear of it.
        logger.exception("%s %s got 503", request.method, request.path)
        return Busy(what="the database could not do this")
    return None


def _away() -> RealmError:
    return Busy(what="the database can't be reached")


def _mistake(request: HttpRequest) -> RealmError:
    logger.exception("%s %s failed", request.method, request.path)
    got_request_exception.send(sender=None, request=request)
    error = RealmError()
    error.status, error.title = 500, "Internal Server Error"
    return error

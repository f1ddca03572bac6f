"""Turns the exceptions of Django's views and middleware into error responses, and decides what
clients see of an unexpected exception."""

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
)
from realms.http.database_errors import is_away, is_conflict
from realms.http.error_answers import error_response, server_error_response

logger = logging.getLogger(__name__)


class ErrorMiddleware:
    """Turns an exception of a view into a response without a stack trace. Logs every unexpected
    exception and sends Django's signal `got_request_exception`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Returns the response to an exception of a view. Returns None for an unexpected exception
        of the admin. Django then logs the exception and calls `uncaught`."""
        realm_error = _expected(request, error)
        if realm_error is None:
            if request.path.startswith("/_admin"):
                return None
            realm_error = _unexpected(request)
        endpoint = request.resolver_match
        if endpoint is not None and endpoint.func.__module__ == "realms.api.server_views":
            return server_error_response(realm_error)
        return error_response(realm_error)


def uncaught(request: HttpRequest) -> HttpResponse:
    """Returns the response to an exception that a middleware or the admin raised. Django itself
    logs the exception."""
    error = sys.exc_info()[1]
    if is_away(error):
        return error_response(_away())
    return server_error(request)


def _expected(request: HttpRequest, error: Exception) -> RealmError | None:
    """Converts an exception to the error that the client gets. Returns None if the exception is a
    bug."""
    if isinstance(error, RealmError):
        return error
    if isinstance(error, SuspiciousOperation):
        return Malformed(what=str(error))
    if isinstance(error, DataError):
        return Malformed(what="the request has a text or number that can't be stored")
    if is_away(error):
        logger.warning("%s %s got 503: %s", request.method, request.path, error)
        return _away()
    if is_conflict(error):
        logger.warning("%s %s got 409: %s", request.method, request.path, error)
        return Conflict(what="a concurrent request has changed the same data; read it again")
    if isinstance(error, OperationalError):
        # The error is a deadlock or a timeout. The client can send the request again. The log gets
        # the traceback, so that operators can find the cause.
        logger.exception("%s %s got 503", request.method, request.path)
        return Busy(what="the database did not complete the request")
    return None


def _away() -> RealmError:
    return Busy(what="the database can't be reached")


def _unexpected(request: HttpRequest) -> RealmError:
    logger.exception("%s %s failed", request.method, request.path)
    got_request_exception.send(sender=None, request=request)
    error = RealmError()
    error.status, error.title = 500, "Internal Server Error"
    return error

"""Keeps the admin at the public origin.

Published realms live on hosts of their own, and what authors put there is of the same origin as
anything else at that host. The admin's cookies must not be.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from realms.urls_and_paths import public_origin


class AdminHostMiddleware:
    """Answers 404 for the admin at every host but the public one and the replica's own address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        elsewhere = public_origin(request.META.get("HTTP_HOST", "")) != settings.REALM_PUBLIC_ORIGIN
        if elsewhere and request.path.startswith("/_admin"):
            raise Http404("the admin is at the public origin")
        return self._get_response(request)

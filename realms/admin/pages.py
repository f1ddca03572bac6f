"""Contains helpers for the admin's pages that Django doesn't make from a model. The helpers check
permissions and request methods, show errors as messages, and render the admin's frame around a
page."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny

from realms.access.auth import OPERATOR, Caller
from realms.errors import NotFound, RealmError
from realms.models import Realm

#: Django's names of the permissions that the pages check.
MAY_VIEW, MAY_CLEAR, MAY_PUBLISH = "realms.view_realm", "realms.clear_realm", "realms.publish_realm"

View = Callable[..., HttpResponse]


def page(permission: str, *methods: str) -> Callable[[View], View]:
    """Returns a decorator for the view of a page. Only users with `permission` get the page. If the
    view raises a RealmError, the user is redirected (`back`), and the next page shows the error as
    a message."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, **named: Any) -> HttpResponse:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            try:
                return view(request, **named)
            except RealmError as error:
                messages.error(request, f"Not done: {error}")
                return back(request)

        return guarded

    return decorate


def route(pattern: str, view: View, name: str) -> URLPattern:
    """Returns the URL pattern of a page for signed-in staff only. Browsers must not cache the page
    or show it in a frame."""
    guarded = never_cache(xframe_options_deny(admin.site.admin_view(view)))
    return path(pattern, guarded, name=name)


def render(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    """Renders a page in the admin's frame. If the request has the parameter `fragment`, renders
    only the part of the page that a script refreshes (`admin.js`)."""
    if "fragment" in request.GET:
        name, context = f"admin/realms/{template}_live.html", {**permissions(request), **context}
        return TemplateResponse(request, name, context)
    frame = admin.site.each_context(request)
    return TemplateResponse(
        request,
        f"admin/realms/{template}.html",
        {**frame, "title": title, **permissions(request), **context},
    )


def permissions(request: HttpRequest) -> dict[str, bool]:
    """Returns for each kind of button whether the user may see it."""
    return {
        "may_clear": request.user.has_perm(MAY_CLEAR),
        "may_publish": request.user.has_perm(MAY_PUBLISH),
    }


def realm_of(realm_id: Any) -> Realm:
    """Returns the realm with this key. Raises NotFound if there is none."""
    realm = Realm.objects.select_related("source", "owner").filter(pk=realm_id).first()
    if realm is None:
        raise NotFound(url=f"The realm {realm_id}")
    return realm


def acting_as(request: HttpRequest) -> Caller:
    """Returns the caller to pass to functions such as `publish_realm`, which check the caller's
    permissions. A superuser acts as the operator, and other staff act as themselves."""
    if request.user.is_superuser:
        return Caller(OPERATOR, operator=True)
    return Caller.of(request.user)


def report(request: HttpRequest, message: str, realm: Realm | None = None) -> None:
    """Shows a message to the user, and records the message in the admin's history."""
    messages.success(request, message)
    options = admin.site.get_model_admin(Realm)
    options.log_change(request, realm or Realm(pk=_NO_REALM, url="all realms"), message)


#: Each entry of the admin's history needs the key of an object. Entries that aren't about a single
#: realm have this key.
_NO_REALM = "00000000-0000-0000-0000-000000000000"


def back(request: HttpRequest) -> HttpResponse:
    """Returns a redirect to the page of the realm in the request's URL, or else to the start
    page."""
    match = request.resolver_match
    realm_id = match.kwargs.get("realm_id") if match is not None else None
    if realm_id is not None and Realm.objects.filter(pk=realm_id).exists():
        return HttpResponseRedirect(reverse("admin:realms_realm_change", args=[realm_id]))
    return HttpResponseRedirect(reverse("admin:index"))

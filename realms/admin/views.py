"""The page *Cache generations* and its actions: clear, publish, roll back.

The actions call the same functions as the API, with the same checks. The page shows their errors.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_deny

from definitions.lookup import DefinitionLookup
from notifications.texts import whole_number
from realms.access.auth import OPERATOR, Caller, owns, user_id
from realms.coherence.generations import matrix
from realms.content.history import changed_between
from realms.errors import Forbidden, Malformed, NotFound, NotPublished, RealmError
from realms.models import Publication, Realm
from realms.publishing.publish import publish_realm, rollback_realm, rollback_target

PATHS_SHOWN = 20
PAGE = "admin:realms_realm_generations"

Action = Callable[["GenerationsPage", HttpRequest, Realm], HttpResponse]


def acting_as(request: HttpRequest) -> Caller:
    """The caller for the realm functions: a superuser is the operator, other staff themselves."""
    if request.user.is_superuser:
        return Caller(OPERATOR, operator=True)
    return Caller.of(request.user)


def clear_caches(realm: Realm, caller: Caller) -> None:
    """Drops a realm's files, modules and definitions on every replica. Raises Forbidden."""
    if not owns(realm, caller):
        raise Forbidden(user=user_id(caller.username), action="clear the caches of", url=realm.url)
    with transaction.atomic():
        realm.clear_local_source_caches_and_broadcast()
        DefinitionLookup().clear_realm_definitions(realm.url)


def _action(*methods: str) -> Callable[[Action], Callable[..., HttpResponse]]:
    """A view of one realm for users who may change realms. Its errors become messages."""

    def decorate(act: Action) -> Callable[..., HttpResponse]:
        @wraps(act)
        def view(page: "GenerationsPage", request: HttpRequest, realm_id: UUID) -> HttpResponse:
            if not page.admin.has_change_permission(request):
                raise PermissionDenied
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            try:
                realm = Realm.objects.select_related("source").filter(pk=realm_id).first()
                if realm is None:
                    raise NotFound(url=f"The realm {realm_id}")
                return act(page, request, realm)
            except RealmError as error:
                messages.error(request, f"Not done: {error}")
            return page.back(request)

        return view

    return decorate


class GenerationsPage:
    """The page's views. `admin` is the realms' admin, whose permissions apply."""

    def __init__(self, admin: "ModelAdmin[Realm]") -> None:
        self.admin = admin

    def urls(self) -> list[URLPattern]:
        """The routes below the realms' list."""
        return [
            self._route("generations/", self.show, "generations"),
            self._route("generations/<uuid:realm_id>/clear/", self.clear, "clear"),
            self._route("generations/<uuid:realm_id>/publish/", self.publish, "publish"),
            self._route("generations/<uuid:realm_id>/rollback/", self.rollback, "rollback"),
        ]

    def _route(self, route: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
        guarded = never_cache(xframe_options_deny(self.admin.admin_site.admin_view(view)))
        return path(route, guarded, name=f"realms_realm_{name}")

    # --- view ---

    def show(self, request: HttpRequest) -> HttpResponse:
        """The matrix; with `?fragment` only the part of the page that reloads itself."""
        if not self.admin.has_view_permission(request):
            raise PermissionDenied
        text = request.GET.get("q", "").replace("\0", "").strip()
        context = {
            "matrix": matrix(text, request.GET.get("p")),
            "text": text,
            "may_act": self.admin.has_change_permission(request),
            "query": self._query(request),
        }
        if "fragment" in request.GET:
            return TemplateResponse(request, "admin/realms/realm/generations_matrix.html", context)
        return self._render(request, "generations", {"title": "Cache generations", **context})

    # --- actions ---

    @_action("POST")
    def clear(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Drops the realm's caches on every replica. The realm stays up."""
        clear_caches(realm, acting_as(request))
        message = f"Cleared the source caches and definitions of {realm.url} on every replica."
        self._report(request, realm, message)
        return self.back(request)

    @_action("POST")
    def publish(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Publishes a source realm to the given URL, or a published realm again."""
        if realm.kind == Realm.Kind.PUBLISHED and realm.source is not None:
            source_url, target = realm.source.url, realm.url
        else:
            source_url, target = realm.url, request.POST.get("target", "").strip()
        done = publish_realm(source_url, target, acting_as(request))
        self._report(
            request,
            realm,
            f"Published generation {done.source_generation} of {done.source_url} to {done.url}, "
            f"which is at generation {done.generation} now. Its pages follow.",
        )
        return self.back(request)

    @_action("GET", "POST")
    def rollback(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Asks for confirmation of a rollback (GET), and does it (POST)."""
        if realm.kind != Realm.Kind.PUBLISHED:
            raise NotPublished(url=realm.url)
        if request.method == "GET":
            return self._confirm_rollback(request, realm)
        # Roll back to the confirmed publication, even if the realm was published since.
        wanted = _generation(request.POST.get("publication", ""))
        done = rollback_realm(realm.url, acting_as(request), wanted)
        self._report(
            request,
            realm,
            f"Rolled {done.url} back to what it showed at generation {wanted}; "
            f"it is at generation {done.generation} now. Its pages follow.",
        )
        return self.back(request)

    def _confirm_rollback(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        target, now = rollback_target(realm), realm.publications.first()
        paths = _differing(target, now) if now else None
        context = {
            "title": "Roll back?",
            "realm": realm,
            "now": now,
            "target": target,
            "paths": paths,
            "shown": (paths or [])[:PATHS_SHOWN],
            "more": max(len(paths or []) - PATHS_SHOWN, 0),
            "query": self._query(request),
        }
        return self._render(request, "rollback_confirmation", context)

    # --- shared ---

    def back(self, request: HttpRequest) -> HttpResponseRedirect:
        """A redirect to the matrix with the same filter and page."""
        query = self._query(request)
        return HttpResponseRedirect(reverse(PAGE) + (f"?{query}" if query else ""))

    def _query(self, request: HttpRequest) -> str:
        kept = request.GET.copy()
        for name in set(kept) - {"q", "p"}:
            del kept[name]
        return kept.urlencode()

    def _report(self, request: HttpRequest, realm: Realm, message: str) -> None:
        """Shows a message and records the action and its user in the admin's history."""
        messages.success(request, message)
        self.admin.log_change(request, realm, message)

    def _render(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        site = self.admin.admin_site.each_context(request)
        return TemplateResponse(
            request,
            f"admin/realms/realm/{name}.html",
            {**site, "opts": self.admin.opts, "is_nav_sidebar_enabled": False, **context},
        )


def _differing(target: Publication, now: Publication) -> list[str] | None:
    """The paths that would change; None if the two publications are of different source realms."""
    if now.source_id != target.source_id:
        return None
    return changed_between(now.source, target.source_generation, now.source_generation)


def _generation(text: str) -> int:
    """Raises Malformed unless the text is a generation."""
    generation = whole_number(text)
    if generation is None:
        raise Malformed(what=f"publication is {text[:40]!r}; expected a generation")
    return generation

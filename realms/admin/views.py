"""The page *Cache generations* and its actions: clear, publish, roll back.

The actions go through the functions that the API goes through, with the same checks. What they
refuse is told on the page.
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
    """Whom the realm functions see: a superuser is the operator, other staff are themselves."""
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
    """An action on one realm: who may change realms may ask; refusals become messages."""

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
    """The page's views. `admin` is the realms' admin, whose permissions hold here."""

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

    # --- looking ---

    def show(self, request: HttpRequest) -> HttpResponse:
        """The matrix; with `?fragment` the part of the page that changes by itself."""
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

    # --- acting ---

    @_action("POST")
    def clear(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Drops the realm's caches everywhere; it stays up."""
        clear_caches(realm, acting_as(request))
        told = f"Cleared the source caches and definitions of {realm.url} on every replica."
        self._tell(request, realm, told)
        return self.back(request)

    @_action("POST")
    def publish(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Publishes a source realm to the URL that was given, or a published realm again."""
        if realm.kind == Realm.Kind.PUBLISHED and realm.source is not None:
            source_url, target = realm.source.url, realm.url
        else:
            source_url, target = realm.url, request.POST.get("target", "").strip()
        done = publish_realm(source_url, target, acting_as(request))
        told = f"Published generation {done.source_generation} of {done.source_url} to {done.url}, "
        told += f"which is at generation {done.generation} now. Its pages follow."
        self._tell(request, realm, told)
        return self.back(request)

    @_action("GET", "POST")
    def rollback(self, request: HttpRequest, realm: Realm) -> HttpResponse:
        """Says what a rollback would show (GET), and does it (POST) once that is confirmed."""
        if realm.kind != Realm.Kind.PUBLISHED:
            raise NotPublished(url=realm.url)
        if request.method == "GET":
            return self._confirm_rollback(request, realm)
        # What was confirmed is what is done, whatever has been published since.
        wanted = _generation(request.POST.get("publication", ""))
        done = rollback_realm(realm.url, acting_as(request), wanted)
        told = f"Rolled {done.url} back to what it showed at generation {wanted}; "
        told += f"it is at generation {done.generation} now. Its pages follow."
        self._tell(request, realm, told)
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

    # --- what they share ---

    def back(self, request: HttpRequest) -> HttpResponseRedirect:
        """To the matrix, filtered and paged as it was."""
        query = self._query(request)
        return HttpResponseRedirect(reverse(PAGE) + (f"?{query}" if query else ""))

    def _query(self, request: HttpRequest) -> str:
        kept = request.GET.copy()
        for name in set(kept) - {"q", "p"}:
            del kept[name]
        return kept.urlencode()

    def _tell(self, request: HttpRequest, realm: Realm, told: str) -> None:
        """Tells the user, and writes down in the admin's history who did it."""
        messages.success(request, told)
        self.admin.log_change(request, realm, told)

    def _render(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        site = self.admin.admin_site.each_context(request)
        return TemplateResponse(
            request,
            f"admin/realms/realm/{name}.html",
            {**site, "opts": self.admin.opts, "is_nav_sidebar_enabled": False, **context},
        )


def _differing(target: Publication, now: Publication) -> list[str] | None:
    """The paths that would change; None where the two show different source realms."""
    if now.source_id != target.source_id:
        return None
    return changed_between(now.source, target.source_generation, now.source_generation)


def _generation(text: str) -> int:
    """Raises Malformed for what is no generation."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed(what=f"publication is {text[:40]!r}; expected a generation")
    return int(text)

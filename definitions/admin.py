"""Shows the counters of definitions in Django's admin. Definitions describe the card types that
modules export. An invalidation of definitions raises counters (`models.py`). Staff can't edit
counters, but can drop the definitions of the realms and modules of chosen counters.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from definitions.lookup import DefinitionLookup
from definitions.models import CacheGeneration
from notifications.admin import ReadOnlyAdmin


class ClearableAdmin(ReadOnlyAdmin):
    """A read-only admin with the action `clear`. Users who may clear caches may run the action.
    Subclasses define the action as their method `clear`."""

    actions: tuple[str, ...] = ("clear",)

    def has_clear_permission(self, request: HttpRequest) -> bool:
        """Returns whether the user may clear caches."""
        return request.user.has_perm("realms.clear_realm")

    def cleared(self, request: HttpRequest, names: list[str]) -> None:
        """Shows a message with the names of the cleared realms and modules."""
        message = f"Cleared the definitions of {', '.join(names)} on every replica."
        messages.success(request, message)


@admin.register(CacheGeneration)
class CacheGenerationAdmin(ClearableAdmin):
    list_display = ("scope", "key", "generation", "bumped_at", "bumped_by")
    list_display_links = ("scope", "key")
    list_filter = ("scope",)
    search_fields = ("key", "bumped_by")
    ordering = ("scope", "key")

    def get_list_display(self, request: HttpRequest) -> Any:
        return _without_causes(request, super().get_list_display(request))

    def get_search_fields(self, request: HttpRequest) -> Any:
        return _without_causes(request, super().get_search_fields(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return _without_causes(request, super().get_fields(request, obj))

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuses a filter by causes if the user may not see them. The number of rows would say
        whether a guess is right."""
        shown = _without_causes(request, [lookup.partition("__")[0]])
        return bool(shown) and super().lookup_allowed(lookup, value, request)

    @admin.action(description="Clear these definitions on every replica", permissions=["clear"])
    def clear(self, request: HttpRequest, queryset: QuerySet[CacheGeneration]) -> None:
        """Drops the definitions of the realm or module of each chosen counter. If the global
        counter is chosen, drops all definitions. Also raises the chosen counters."""
        rows = list(queryset)
        scopes = CacheGeneration.Scope
        lookup, by = DefinitionLookup(), f"clear by {request.user.get_username()}"
        with transaction.atomic():
            realms = [row.key for row in rows if row.scope == scopes.REALM]
            modules = [row.key for row in rows if row.scope == scopes.MODULE]
            if realms or modules:
                lookup.drop(realms, modules, by)
            if any(row.scope == scopes.GLOBAL for row in rows):
                lookup.clear_all_definitions(by)
        for row in rows:
            self.log_change(request, row, "Cleared.")
        self.cleared(request, [row.key or "everything" for row in rows])


def _without_causes(request: HttpRequest, fields: Iterable[Any]) -> list[Any]:
    """Returns the fields, without `bumped_by` if the user may not view realms. `bumped_by` says
    what last raised the counter, and can contain the names of a realm's files."""
    if request.user.has_perm("realms.view_realm"):
        return list(fields)
    return [field for field in fields if field != "bumped_by"]

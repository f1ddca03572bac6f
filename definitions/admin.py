"""Definitions and their counters in the admin. They can be cleared, which raises their counters,
and is the same as what a publish does; otherwise they are read-only."""

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from definitions.lookup import DefinitionLookup
from definitions.models import CacheGeneration, Definition
from notifications.admin import ReadOnlyAdmin


class ClearableAdmin(ReadOnlyAdmin):
    """Rows whose definitions can be cleared by who may clear caches."""

    actions = ("clear",)

    def has_clear_permission(self, request: HttpRequest) -> bool:
        """Whether the user may clear caches."""
        return request.user.has_perm("realms.clear_realm")

    def cleared(self, request: HttpRequest, names: list[str]) -> None:
        """Says what was cleared."""
        message = f"Cleared the definitions of {', '.join(names)} on every replica."
        messages.success(request, message)


@admin.register(CacheGeneration)
class CacheGenerationAdmin(ClearableAdmin):
    list_display = ("scope", "key", "generation", "bumped_at", "bumped_by")
    list_display_links = ("scope", "key")
    list_filter = ("scope",)
    search_fields = ("key", "bumped_by")
    ordering = ("scope", "key")

    @admin.action(description="Clear these definitions on every replica", permissions=["clear"])
    def clear(self, request: HttpRequest, queryset: QuerySet[CacheGeneration]) -> None:
        """Drops what the chosen counters stand for, and raises the counters."""
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


@admin.register(Definition)
class DefinitionAdmin(ClearableAdmin):
    large = ("definitions", "error", "dependencies")
    list_display = (
        "module_url", "realm_url", "scope", "reader", "failed", "built_at", "build_ms",
    )  # fmt: skip
    list_filter = ("scope", ("expires_at", admin.EmptyFieldListFilter))
    search_fields = ("module_url", "realm_url", "reader")
    ordering = ("module_url", "scope", "reader")

    @admin.action(description="Build anew: clear on every replica", permissions=["clear"])
    def clear(self, request: HttpRequest, queryset: QuerySet[Definition]) -> None:
        """Drops modules and what was built from them; the next request builds them anew."""
        modules = sorted(set(queryset.values_list("module_url", flat=True)))
        for row in queryset:
            self.log_change(request, row, "Cleared.")
        DefinitionLookup().invalidate(*modules, by=f"clear by {request.user.get_username()}")
        self.cleared(request, modules)

    @admin.display(boolean=True)
    def failed(self, definition: Definition) -> bool:
        """Whether the row holds an error: only errors expire."""
        return definition.expires_at is not None

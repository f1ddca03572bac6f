"""Definitions and their counters in the admin, read-only. `DefinitionLookup` deletes them."""

from django.contrib import admin

from definitions.models import CacheGeneration, Definition
from notifications.admin import ReadOnlyAdmin


@admin.register(CacheGeneration)
class CacheGenerationAdmin(ReadOnlyAdmin):
    list_display = ("scope", "key", "generation", "bumped_at")
    list_display_links = ("scope", "key")
    list_filter = ("scope",)
    search_fields = ("key",)
    ordering = ("scope", "key")


@admin.register(Definition)
class DefinitionAdmin(ReadOnlyAdmin):
    large = ("definitions", "error", "dependencies")
    list_display = (
        "module_url", "realm_url", "scope", "reader", "failed", "built_at", "build_ms",
    )  # fmt: skip
    list_filter = ("scope", ("expires_at", admin.EmptyFieldListFilter))
    search_fields = ("module_url", "realm_url", "reader")
    ordering = ("module_url", "scope", "reader")

    @admin.display(boolean=True)
    def failed(self, definition: Definition) -> bool:
        """Whether the row holds an error: only errors expire."""
        return definition.expires_at is not None

"""Defines the admin's pages of realms, files, publications and permissions.

Files, publications and most fields of a realm are read-only, because an edit of a row alone would
give the realm no new generation and would render no pages. Staff publish, roll back and delete
realms on the pages of `realms.admin.publishing`. The fields of a realm that staff can edit are its
quotas, and whether it may be published. Staff can also edit permissions.
"""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver

from notifications.admin import AnyModelAdmin, ReadOnlyAdmin
from notifications.channels import realm_key
from notifications.emit import bump_at_commit
from realms.access.permissions import readers_change
from realms.admin import clearing, coherence, counters, definitions, publishing, timeline, work
from realms.admin.pages import permissions, route
from realms.coherence.rules import share_text
from realms.content.locks import realm_write_lock
from realms.models import (
    AccountName,
    Blob,
    CoherenceReport,
    FileVersion,
    Publication,
    Realm,
    RealmBorder,
    RealmPermission,
    RealmTombstone,
    TranspiledModule,
)

admin.site.index_template = "admin/realms/coherence.html"


def _pages() -> list[URLPattern]:
    """Returns the URL patterns of the pages that this project adds to the admin. The pages about a
    single realm are in `RealmAdmin.get_urls`."""
    return [
        route("coherence/", coherence.live, "realms_coherence"),
        route("clear/", clearing.clear, "realms_realm_clear"),
        route("cleared/", clearing.cleared, "realms_realm_cleared"),
        route("rebuilt/", definitions.rebuilt, "definitions_rebuilt"),
        route("generations/", counters.counters, "realms_generations"),
        route("timeline/", timeline.timeline, "realms_publication_timeline"),
        route("work/", work.work, "reindex_work"),
        route("work/<int:job_id>/retry/", work.retry, "reindex_retry"),
        route("work/<int:job_id>/cancel/", work.cancel, "reindex_cancel"),
    ]


# Unfold, the admin's theme, adds the URL patterns that `extra_urls` returns.
admin.site.extra_urls = _pages  # type: ignore[attr-defined]


@admin.register(Realm)
class RealmAdmin(ReadOnlyAdmin):
    list_display = (
        "url", "kind", "owner", "generation", "publishable", "source", "last_published_at",
    )  # fmt: skip
    editable = ("publishable", "max_files", "max_bytes")
    list_filter = ("kind", "publishable")
    list_select_related = ("owner", "source")
    search_fields = ("url", "owner__username")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Skip ReadOnlyAdmin's method, which returns False.
        return AnyModelAdmin.has_change_permission(self, request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [name for name in self.get_fields(request, obj) if name not in self.editable]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Saves only the editable fields. If all fields were saved, a concurrent change of another
        field, such as a new generation, could be overwritten."""
        obj.save(update_fields=self.editable)
        bump_at_commit([realm_key(obj.url)])

    #: This template shows the realm's buttons above its fields.
    change_form_before_template = "admin/realms/realm_actions.html"

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {**permissions(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def get_urls(self) -> list[URLResolver | URLPattern]:  # type: ignore[override]
        return [
            route("<uuid:realm_id>/why/<path:replica>/", coherence.why, "realms_why"),
            route("<uuid:realm_id>/publish/", publishing.publish, "realms_realm_publish"),
            route("<uuid:realm_id>/rollback/", publishing.roll_back, "realms_realm_rollback"),
            route("<uuid:realm_id>/remove/", publishing.remove, "realms_realm_remove"),
            route("<uuid:realm_id>/diff/", publishing.differences, "realms_realm_diff"),
            *super().get_urls(),
        ]


@admin.register(RealmPermission)
class RealmPermissionAdmin(AnyModelAdmin):
    """The admin's pages of permissions. When a change commits, `readers_change` makes the realm's
    cached answers on this replica stale at once. The other replicas wait for a notification."""

    list_display = ("whom", "realm", "read", "write", "realm_owner")
    list_display_links = ("whom", "realm")
    list_filter = ("audience", "read", "write", "realm_owner")
    list_select_related = ("realm", "account")
    search_fields = ("account__username", "realm__url")
    autocomplete_fields = ("realm", "account")
    ordering = ("realm__url", "audience", "account__username")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # A row can't move to another realm, because `save_model` locks only one realm, and
        # announces only that realm's change.
        return ("realm",) if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        with realm_write_lock(obj.realm.url, durable=False), readers_change(obj.realm):
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with realm_write_lock(obj.realm.url, durable=False), readers_change(obj.realm):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RealmPermission]) -> None:
        realms = {row.realm for row in queryset.select_related("realm")}
        urls = [realm.url for realm in realms]
        with realm_write_lock(*urls, durable=False), readers_change(*realms):
            super().delete_queryset(request, queryset)


@admin.register(AccountName)
class AccountNameAdmin(ReadOnlyAdmin):
    list_display = ("account", "since")
    list_select_related = ("account",)
    search_fields = ("account__username",)
    ordering = ("-since",)


@admin.register(RealmBorder)
class RealmBorderAdmin(ReadOnlyAdmin):
    list_display = ("realm", "path", "generation")
    list_select_related = ("realm",)
    search_fields = ("realm__url", "path")


@admin.register(RealmTombstone)
class RealmTombstoneAdmin(ReadOnlyAdmin):
    list_display = ("url", "generation", "at")
    search_fields = ("url",)
    ordering = ("url",)


@admin.register(Blob)
class BlobAdmin(ReadOnlyAdmin):
    large = ("data",)
    list_display = ("sha256", "size")
    search_fields = ("=sha256",)
    ordering = ("sha256",)


@admin.register(FileVersion)
class FileVersionAdmin(ReadOnlyAdmin):
    list_display = (
        "path", "realm", "from_generation", "until_generation", "size", "modified_at", "blob_id",
    )  # fmt: skip
    list_filter = (("until_generation", admin.EmptyFieldListFilter),)
    list_select_related = ("realm",)
    search_fields = ("path", "realm__url", "=blob__sha256")
    ordering = ("-pk",)


@admin.register(Publication)
class PublicationAdmin(ReadOnlyAdmin):
    list_display = ("realm", "generation", "source", "source_generation", "by", "at")
    list_display_links = ("realm", "generation")
    list_filter = ("at",)
    list_select_related = ("realm", "source")
    search_fields = ("realm__url", "source__url", "by")
    ordering = ("-at",)


@admin.register(TranspiledModule)
class TranspiledModuleAdmin(ReadOnlyAdmin):
    large = ("body", "error")
    list_display = ("sha256", "transpiler", "made_at")
    list_filter = (("error", admin.EmptyFieldListFilter), "made_at")
    search_fields = ("=sha256", "transpiler")
    ordering = ("-pk",)


@admin.register(CoherenceReport)
class CoherenceReportAdmin(ReadOnlyAdmin):
    large = ("details",)
    list_display = (
        "started_at", "samples", "violations", "unreachable", "changes", "within_1", "within_10",
        "within_60",
    )  # fmt: skip
    list_filter = ("started_at",)

    @admin.display(description="within 1 s")
    def within_1(self, report: CoherenceReport) -> str:
        """Returns the share of changes that every replica served within one second of their
        commit."""
        return share_text(report.within_1s, report.changes)

    @admin.display(description="within 10 s")
    def within_10(self, report: CoherenceReport) -> str:
        """Returns the share of changes that every replica served within ten seconds of their
        commit."""
        return share_text(report.within_10s, report.changes)

    @admin.display(description="within 60 s")
    def within_60(self, report: CoherenceReport) -> str:
        """Returns the share of changes that every replica served within one minute of their
        commit."""
        return share_text(report.within_60s, report.changes)

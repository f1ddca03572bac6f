"""Defines the admin's pages about replicas and elections, and the read-only base class that most
other admin pages use.

On the pages of this module, rows are read-only, because processes of the fleet write these rows and
rely on them. But if a replica was removed from the fleet, staff can delete its row, so that alerts
no longer mention this replica.
"""

import json
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from django.contrib import admin
from django.db.models import BinaryField, Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin as SkinnedAdmin

from notifications.models import Election, Replica, ReplicaGeneration

if TYPE_CHECKING:
    AnyModelAdmin: TypeAlias = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = SkinnedAdmin

#: The page of a row shows at most this many characters of a large field.
PREVIEW_LENGTH = 4000


@cache
def preview(field: str) -> Callable[[Model], str]:
    """Returns an admin field that shows the first PREVIEW_LENGTH characters of a row's `field`."""

    @admin.display(description=field.replace("_", " "))
    def beginning(row: Model) -> str:
        value = getattr(row, field)
        if value is None:
            return "-"
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        if len(text) > PREVIEW_LENGTH:
            text = f"{text[:PREVIEW_LENGTH]}\n… {len(text):,} characters in total"
        return format_html('<pre style="white-space:pre-wrap;margin:0">{}</pre>', text)

    return beginning


class ReadOnlyAdmin(AnyModelAdmin):
    """Shows rows with all fields except binary fields. Nobody can add, change or delete a row,
    unless a subclass allows it."""

    #: Fields that can be large. A list of rows doesn't load these fields. The page of a row shows
    #: only the first PREVIEW_LENGTH characters of each.
    large: ClassVar[tuple[str, ...]] = ()
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer(*self.large)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            preview(field.name) if field.name in self.large else field.name
            for field in self.opts.concrete_fields
            if not isinstance(field, BinaryField)
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)


@admin.register(Replica)
class ReplicaAdmin(ReadOnlyAdmin):
    list_display = (
        "name", "address", "state", "reporting", "web_answers", "watermark_at", "reported_at",
        "notifications", "malformed", "reconnects", "missed",
    )  # fmt: skip
    list_filter = ("state",)
    search_fields = ("name", "address")

    @admin.display(boolean=True)
    def reporting(self, replica: Replica) -> bool:
        """Returns whether the replica's last report is recent (REPORT_FRESH in `models.py`)."""
        return replica.fresh

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Returns whether the user has Django's permission to delete replicas. If `obj` is given,
        its last report must also be older than REPORT_MISSING (`models.py`), because the next
        report of a running replica would create the row again."""
        return AnyModelAdmin.has_delete_permission(self, request, obj) and (
            obj is None or obj.missing
        )

    def get_deleted_objects(self, objs: Collection[Replica], request: HttpRequest) -> Any:
        """Returns what the admin shows before the user confirms a deletion. The result lists the
        replicas. It omits their many `ReplicaGeneration` rows, although these are deleted too."""
        refused = not all(self.has_delete_permission(request, each) for each in objs)
        lacking = {self.opts.verbose_name} if refused else set()
        return [str(each) for each in objs], {self.opts.verbose_name_plural: len(objs)}, lacking, []


@admin.register(ReplicaGeneration)
class ReplicaGenerationAdmin(ReadOnlyAdmin):
    list_display = ("realm_url", "replica", "generation", "applied_at")
    list_filter = ("replica",)
    list_select_related = ("replica",)
    search_fields = ("realm_url",)
    ordering = ("realm_url", "replica")


@admin.register(Election)
class ElectionAdmin(ReadOnlyAdmin):
    list_display = ("key", "holder", "lease_until")
    ordering = ("lease_until",)

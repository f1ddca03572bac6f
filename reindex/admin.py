"""Registers the models of the reindex, such as jobs and indexed cards, in Django's admin. The admin
shows the rows of these models but can't change them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from notifications.admin import ReadOnlyAdmin
from reindex.jobs.report import outcome
from reindex.models import (
    Hang,
    IndexedCard,
    IndexHead,
    OwnerUsage,
    ReindexBatch,
    ReindexJob,
    WantedDefinitions,
    Worker,
)


@admin.register(ReindexJob)
class ReindexJobAdmin(ReadOnlyAdmin):
    large = ("pins", "addresses", "error", "summary")
    list_display = (
        "id", "realm_url", "generation", "status", "progress", "carried", "errors", "warnings",
        "took", "created_at",
    )  # fmt: skip
    list_display_links = ("id", "realm_url")
    list_filter = ("status", "created_at")
    search_fields = ("realm_url",)

    @admin.display(description="rendered")
    def progress(self, job: ReindexJob) -> str:
        """Returns how many cards a finished job has rendered. For an unfinished job, returns how
        many files it has processed so far, and how many it will process in total."""
        if job.finished_at is not None:
            return f"{job.rendered:,}"
        return f"{job.seen:,} of {job.total:,} files"

    @admin.display(description="took")
    def took(self, job: ReindexJob) -> str:
        """Returns the job's duration. For an unfinished job, returns the time since its start."""
        return "-" if job.seconds is None else f"{job.seconds:,.1f} s"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Operators mostly look for the outcome, so it comes first.
        return ["outcome", *super().get_fields(request, obj)]

    @admin.display(description="outcome")
    def outcome(self, job: ReindexJob) -> str:
        """Returns the job's report as preformatted HTML."""
        lines = "\n".join(outcome(job))
        return format_html('<pre style="white-space:pre-wrap;margin:0">{}</pre>', lines)


@admin.register(ReindexBatch)
class ReindexBatchAdmin(ReadOnlyAdmin):
    large = ("paths",)
    list_display = ("id", "job", "done", "attempts", "lease_until", "worker", "replica")
    list_filter = ("done",)
    list_select_related = ("job",)
    search_fields = ("job__realm_url", "replica")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReindexBatch]:
        return super().get_queryset(request).defer("job__pins", "job__error")


@admin.register(IndexedCard)
class IndexedCardAdmin(ReadOnlyAdmin):
    large = ("html", "search", "error", "warnings")
    list_display = ("path", "realm_url", "generation", "render_ms")
    list_filter = (("error", admin.EmptyFieldListFilter),)
    list_select_related = ("job",)
    search_fields = ("path", "job__realm_url")
    ordering = ("-job", "path")

    @admin.display(description="realm", ordering="job__realm_url")
    def realm_url(self, card: IndexedCard) -> str:
        """Returns the URL of the card's realm."""
        return card.job.realm_url

    @admin.display(ordering="job__generation")
    def generation(self, card: IndexedCard) -> int:
        """Returns the realm's generation at which the card was rendered."""
        return card.job.generation


@admin.register(IndexHead)
class IndexHeadAdmin(ReadOnlyAdmin):
    list_display = ("realm_url", "generation", "job", "swapped_at")
    list_select_related = ("job",)
    search_fields = ("realm_url",)
    ordering = ("realm_url",)


@admin.register(Hang)
class HangAdmin(ReadOnlyAdmin):
    large = ("error",)
    list_display = ("url", "realm_url", "signs", "seen_at")
    search_fields = ("url", "realm_url")
    ordering = ("-seen_at",)


@admin.register(WantedDefinitions)
class WantedDefinitionsAdmin(ReadOnlyAdmin):
    list_display = ("module_url", "owner", "due_at", "lease_until", "worker", "attempts")
    search_fields = ("module_url",)
    ordering = ("due_at",)


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("name", "host", "pid", "processes", "started_at", "heard_at")
    search_fields = ("name", "host")
    ordering = ("name",)


@admin.register(OwnerUsage)
class OwnerUsageAdmin(ReadOnlyAdmin):
    list_display = ("owner", "seconds", "counted_at")
    ordering = ("-counted_at",)

"""Serves the page *Work*. The page shows the Celery workers, the queue, the unfinished jobs, and
the errors of cards by kind. A job renders the pages of one realm."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from realms.admin.pages import MAY_PUBLISH, page, render, report
from reindex.jobs import queue, sweeper
from reindex.jobs.presence import HEARD_LATELY
from reindex.models import ReindexBatch, ReindexJob, WantedDefinitions, Worker

Status = ReindexJob.Status
JOBS_SHOWN = 50
KINDS_SHOWN = 30
#: The page lists the errors of jobs that ended at most this long ago.
RECENT = timedelta(days=1)


@dataclass
class Kind:
    """All rendering errors with the same text and the same place in an author's module. `count` is
    the number of cards with such an error. `realms` maps a realm's URL to the number of such cards
    in that realm. `job` is one of the jobs that had the error."""

    title: str
    message: str
    module: str
    line: int | None
    count: int = 0
    realms: Counter[str] = field(default_factory=Counter)
    job: int = 0

    @property
    def where(self) -> str:
        """The URLs of the realms with this error. Each URL is followed by the number of the realm's
        cards that have the error."""
        return ", ".join(f"{url} ({count})" for url, count in self.realms.most_common())


@page("reindex.view_reindexjob", "GET")
def work(request: HttpRequest) -> HttpResponse:
    """Shows the workers, the queue, the unfinished jobs and recent errors."""
    now = timezone.now()
    unfinished = ReindexJob.objects.unfinished()
    jobs = list(unfinished.defer("pins", "addresses").order_by("status", "pk")[:JOBS_SHOWN])
    batches = ReindexBatch.objects.free(now).filter(done=False, job__status=Status.RENDERING)
    return render(
        request,
        "work",
        "Work",
        jobs=jobs,
        queued=unfinished.filter(status=Status.QUEUED).count(),
        batches=batches.count(),
        definitions=WantedDefinitions.objects.filter(due_at__lte=now).count(),
        oldest=unfinished.order_by("created_at").first(),
        workers=(workers := _workers(now)),
        running=any(each.alive for each in workers),
        kinds=_kinds(),
        now=now,
    )


@dataclass
class WorkerRow:
    """A Celery worker, with its current work. `alive` says whether the worker has reported
    lately."""

    worker: Worker
    alive: bool
    does: list[str]


def _workers(now: datetime) -> list[WorkerRow]:
    """Returns all known workers with their current work."""
    does: dict[str, list[str]] = {}
    for job in ReindexJob.objects.filter(status=Status.QUEUED, lease_until__gt=now):
        does.setdefault(job.worker, []).append(f"plans job {job.pk}")
    leased = ReindexBatch.objects.filter(done=False, lease_until__gt=now).select_related("job")
    for batch in leased.defer("job__pins", "job__summary"):
        doing = f"renders {len(batch.paths)} cards of job {batch.job_id}"
        does.setdefault(batch.worker, []).append(doing)
    for module in WantedDefinitions.objects.filter(lease_until__gt=now):
        does.setdefault(module.worker, []).append(f"builds definitions of {module.module_url}")
    return [
        WorkerRow(each, now - each.heard_at < HEARD_LATELY, does.get(each.name, []))
        for each in Worker.objects.all()
    ]


def _kinds() -> list[Kind]:
    """Returns the kinds of recent rendering errors, the most frequent kind first. Of each realm,
    counts only the errors of the newest job that had errors."""
    newest = (
        ReindexJob.objects.filter(finished_at__gt=timezone.now() - RECENT, errors__gt=0)
        .order_by("realm_url", "-pk")
        .distinct("realm_url")
    )
    found: dict[tuple[Any, ...], Kind] = {}
    for job in newest.only("realm_url", "summary"):
        for each in job.summary.get("errors", ()):
            module, line = each.get("module") or "", each.get("line")
            key = (each["title"], each["message"], module, line)
            kind = found.setdefault(key, Kind(*key))
            kind.count += each["count"]
            kind.realms[job.realm_url] += each["count"]
            kind.job = job.pk
    return sorted(found.values(), key=lambda kind: -kind.count)[:KINDS_SHOWN]


@page(MAY_PUBLISH, "POST")
def retry(request: HttpRequest, job_id: int) -> HttpResponse:
    """Retries a failed job now. Without this request, the sweeper retries the job about a minute
    after its failure. The sweeper (`reindex.jobs.sweeper`) runs in the Celery workers."""
    if sweeper.retry(job_id):
        report(request, f"Job {job_id} is queued again.")
    else:
        messages.error(
            request, f"Not done: job {job_id} has not failed, or a newer job replaced it."
        )
    return HttpResponseRedirect(reverse("admin:reindex_work"))


@page(MAY_PUBLISH, "POST")
def cancel(request: HttpRequest, job_id: int) -> HttpResponse:
    """Cancels all unfinished jobs of the job's realm. The realm keeps its current pages."""
    job = ReindexJob.objects.filter(pk=job_id).first()
    if job is None or not queue.cancel(job.realm_url):
        messages.error(request, f"Not done: job {job_id} has ended.")
    else:
        report(request, f"Cancelled the rendering of {job.realm_url}; its pages stay as they are.")
    return HttpResponseRedirect(reverse("admin:reindex_work"))

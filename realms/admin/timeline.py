"""Serves the page *Publish timeline*. For each publication, the page shows how many replicas have
applied the publication, and how many of its pages are rendered. A replica has applied a publication
when it no longer serves older files from its caches."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from notifications.models import REPORT_FRESH, Replica, ReplicaGeneration
from realms.admin.pages import page, render
from realms.models import Publication
from reindex.models import ReindexJob

PUBLICATIONS_SHOWN = 40


@dataclass(frozen=True)
class Entry:
    """A publication with its progress. `replicas` is the number of replicas that have reported
    lately, and `seen` is the number of these replicas that have applied the publication. `job` is
    the job that renders the publication's pages."""

    publication: Publication
    seen: int
    replicas: int
    job: ReindexJob | None

    @property
    def locks(self) -> str:
        """How long the publish held its locks before its commit, and how long it had waited for the
        locks."""
        waited, held = self.publication.lock_waited, self.publication.lock_held
        if waited is None or held is None:
            return "not recorded"
        return f"{_span(held)}, after {_span(waited)}"

    @property
    def pages(self) -> str:
        """The progress or the result of rendering the publication's pages."""
        job = self.job
        if job is None:
            return "there is no job of this generation"
        if job.is_live:
            return f"rendered {job.seen:,} of {job.total:,}" if job.total else job.status
        if job.finished_at is None:
            return job.status
        took = (job.finished_at - self.publication.at).total_seconds()
        return f"{job.status} after {took:.1f} s: {job.rendered:,} rendered"


@page("realms.view_publication", "GET")
def timeline(request: HttpRequest) -> HttpResponse:
    """Shows the newest publications of all realms. With the query parameter `q`, shows only the
    publications of realms with this text in their URL."""
    text = request.GET.get("q", "").replace("\0", "").strip()
    publications = Publication.objects.select_related("realm", "source").order_by("-at")
    if text:
        publications = publications.filter(realm__url__icontains=text)
    entries = _entries(list(publications[:PUBLICATIONS_SHOWN]))
    return render(request, "timeline", "Publish timeline", entries=entries, text=text)


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _entries(publications: list[Publication]) -> Iterable[Entry]:
    urls = {each.realm.url for each in publications}
    since = timezone.now() - REPORT_FRESH
    replicas = set(Replica.objects.filter(reported_at__gt=since).values_list("name", flat=True))
    applied: dict[str, list[int]] = {}
    rows = ReplicaGeneration.objects.filter(realm_url__in=urls, replica__in=replicas)
    for url, generation in rows.values_list("realm_url", "generation"):
        applied.setdefault(url, []).append(generation)
    jobs = {
        (job.realm_url, job.generation): job
        for job in ReindexJob.objects.filter(realm_url__in=urls).defer("pins").order_by("pk")
    }
    return [
        Entry(
            each,
            sum(seen >= each.generation for seen in applied.get(each.realm.url, ())),
            len(replicas),
            jobs.get((each.realm.url, each.generation)),
        )
        for each in publications
    ]

"""The data of the page *Cache generations*: realms × replicas, in a constant number of queries.

The page shows what replicas have reported, for people to look at. No answer depends on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.utils import timezone

from notifications.listener import State
from notifications.models import Replica, ReplicaGeneration
from notifications.reporter import REPORT_SECONDS
from realms.models import Realm
from reindex.models import IndexHead, ReindexJob

REALMS_PER_PAGE = 50
#: A replica that has been silent for longer has no column. Other silent ones come last.
REMEMBERED = timedelta(days=1)


@dataclass(frozen=True)
class Column:
    """A replica's last report. Times in seconds."""

    replica: Replica
    fresh: bool
    watermark_age: float | None
    report_age: float

    @property
    def late(self) -> bool:
        """Whether the watermark exceeds the staleness bound plus the time that reports take."""
        allowed = settings.REALM_STALENESS_BOUND + 2 * REPORT_SECONDS
        return self.watermark_age is None or self.watermark_age > allowed

    @property
    def status(self) -> str:
        """The listener's state; `late` if its watermark is too old; `gone` if it is silent."""
        if not self.fresh:
            return "gone"
        return "late" if self.replica.state == State.LIVE and self.late else self.replica.state


@dataclass(frozen=True)
class Cell:
    """The generation of one realm that one replica has applied; None if it has not reported one."""

    column: Column
    applied: int | None
    committed: int

    @property
    def behind(self) -> int:
        """How many generations the replica has yet to apply; 0 if it has not reported one."""
        return 0 if self.applied is None else max(self.committed - self.applied, 0)


@dataclass(frozen=True)
class Row:
    """One realm: its index, its job, its published copies, and each replica's generation of it."""

    realm: Realm
    head: IndexHead | None
    job: ReindexJob | None
    copies: list[str]
    cells: list[Cell]

    @property
    def pages_behind(self) -> bool:
        """Whether a published realm's pages are missing or of an older generation."""
        shown = self.head.generation if self.head else 0
        return self.realm.kind == Realm.Kind.PUBLISHED and shown < self.realm.generation


@dataclass(frozen=True)
class Matrix:
    """One page of realms × replicas. `forgotten` counts the replicas without a column."""

    page: "Page[Realm]"
    columns: list[Column]
    rows: list[Row]
    forgotten: int
    at: datetime


def matrix(text: str, page_number: str | None) -> Matrix:
    """One page of the realms whose URL contains `text`, with the generations that replicas applied.

    Reads the registry before the reports, so that a report can only be newer than the registry.
    """
    realms = Realm.objects.select_related("owner", "source").order_by("url")
    if text:
        realms = realms.filter(url__icontains=text)
    page = Paginator(realms, REALMS_PER_PAGE).get_page(page_number)
    shown = list(page.object_list)
    now = timezone.now()
    replicas = list(Replica.objects.all())
    columns = [_column(each, now) for each in replicas if now - each.reported_at < REMEMBERED]
    columns.sort(key=lambda column: (not column.fresh, column.replica.name))
    return Matrix(page, columns, _rows(shown, columns), len(replicas) - len(columns), now)


def _column(replica: Replica, now: datetime) -> Column:
    watermark = replica.watermark_at
    return Column(
        replica=replica,
        fresh=replica.fresh,
        watermark_age=max((now - watermark).total_seconds(), 0) if watermark else None,
        report_age=max((now - replica.reported_at).total_seconds(), 0),
    )


def _rows(realms: list[Realm], columns: list[Column]) -> list[Row]:
    urls = [realm.url for realm in realms]
    applied = {
        (row.replica_id, row.realm_url): row.generation
        for row in ReplicaGeneration.objects.filter(realm_url__in=urls)
    }
    heads = {head.realm_url: head for head in IndexHead.objects.filter(realm_url__in=urls)}
    jobs = {job.realm_url: job for job in _last_jobs(urls)}
    copies = _copies(realms)
    return [
        Row(
            realm,
            heads.get(realm.url),
            jobs.get(realm.url),
            copies.get(realm.pk, []),
            [
                Cell(column, applied.get((column.replica.pk, realm.url)), realm.generation)
                for column in columns
            ],
        )
        for realm in realms
    ]


def _last_jobs(urls: Iterable[str]) -> "QuerySet[ReindexJob]":
    """The newest job of each realm, if it is live or failed."""
    newest = (
        ReindexJob.objects.filter(realm_url__in=urls)
        .order_by("realm_url", "-pk")
        .distinct("realm_url")
        .values("pk")
    )
    return ReindexJob.objects.unfinished().filter(pk__in=newest).defer("pins")


def _copies(realms: Iterable[Realm]) -> Mapping[object, list[str]]:
    """The URLs at which each of these source realms is published."""
    copies: dict[object, list[str]] = {}
    published = Realm.objects.filter(source__in=[realm.pk for realm in realms]).order_by("url")
    for source, url in published.values_list("source_id", "url"):
        copies.setdefault(source, []).append(url)
    return copies

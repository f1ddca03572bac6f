"""What the page *Cache generations* shows: realms × replicas, in a constant number of queries.

It tells what replicas have reported, which is for people to look at: no byte is served or held back
because of it.
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
#: A replica that has been silent for longer has no column any more; the silent ones stand last.
REMEMBERED = timedelta(days=1)


@dataclass(frozen=True)
class Column:
    """A replica as its sidecar last described it. Times in seconds."""

    replica: Replica
    fresh: bool
    watermark_age: float | None
    report_age: float

    @property
    def late(self) -> bool:
        """Whether the watermark is older than caches may be; reports may take a while longer."""
        allowed = settings.REALM_STALENESS_BOUND + 2 * REPORT_SECONDS
        return self.watermark_age is None or self.watermark_age > allowed

    @property
    def status(self) -> str:
        """One word: the listener's state, `late` where its watermark stands still, or `gone`."""
        if not self.fresh:
            return "gone"
        return "late" if self.replica.state == State.LIVE and self.late else self.replica.state


@dataclass(frozen=True)
class Cell:
    """What one replica has applied of one realm; None if it has not said."""

    column: Column
    applied: int | None
    committed: int

    @property
    def behind(self) -> int:
        """How many generations the replica has yet to apply, as far as it has said."""
        return 0 if self.applied is None else max(self.committed - self.applied, 0)


@dataclass(frozen=True)
class Row:
    """One realm: its pages, what is being done about them, and every replica's generation of it."""

    realm: Realm
    head: IndexHead | None
    job: ReindexJob | None
    copies: list[str]
    cells: list[Cell]

    @property
    def pages_behind(self) -> bool:
        """Whether visitors of a published realm see pages of an older generation, or none."""
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
    """The realms whose URL contains `text`, a page of them, with what each replica has applied.

    The registry is read before the replicas' reports, so that a report can only be too new.
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
    """The newest job of each realm that has something to tell: it is live, or it failed."""
    newest = (
        ReindexJob.objects.filter(realm_url__in=urls)
        .order_by("realm_url", "-pk")
        .distinct("realm_url")
        .values("pk")
    )
    return ReindexJob.objects.filter(
        pk__in=newest, status__in=[*ReindexJob.LIVE, ReindexJob.Status.FAILED]
    ).defer("pins")


def _copies(realms: Iterable[Realm]) -> Mapping[object, list[str]]:
    """The URLs at which each of these source realms is published."""
    copies: dict[object, list[str]] = {}
    published = Realm.objects.filter(source__in=[realm.pk for realm in realms]).order_by("url")
    for source, url in published.values_list("source_id", "url"):
        copies.setdefault(source, []).append(url)
    return copies

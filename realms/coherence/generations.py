"""Computes the table that the admin's page *Coherence* and `manage.py generations` show. The table
has a row for each realm and a column for each replica. The worst realms come first.

Each change of a realm commits a new generation of the realm. The sidecar of each replica, the
process `manage.py listen_file_changes`, reports the last generation that the replica has applied.
A cell of the table compares the committed generation with the reported generation.

Only people read this table; no answer to a visitor depends on it. The number of queries doesn't
depend on the number of realms or replicas.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import Min, QuerySet
from django.utils import timezone

from notifications.models import REPORT_FRESH, Replica, ReplicaGeneration
from realms import sql
from realms.coherence import conditions
from realms.coherence.conditions import Condition
from realms.models import FileVersion, Publication, Realm
from reindex.models import IndexHead, ReindexJob

REALMS_PER_PAGE = 25
#: A number that no page has. For a page that doesn't exist, the query returns the last page.
_LAST = 10**9
#: The table, the metrics, `manage.py doctor` and `manage.py verify_coherence` omit a replica that
#: hasn't reported for longer than this.
REMEMBERED = timedelta(days=1)


@dataclass(frozen=True)
class Column:
    """A column of the table, with a replica's last report and the replica's condition. A replica
    has applied every change from before its watermark, a time. `watermark_age` is the time since
    the watermark, and `report_age` is the time since the last report, both in seconds."""

    replica: Replica
    condition: Condition
    watermark_age: float | None
    report_age: float

    @property
    def fresh(self) -> bool:
        """Whether the replica has reported within REPORT_FRESH."""
        return self.report_age < REPORT_FRESH.total_seconds()

    @property
    def figures(self) -> dict[str, Any]:
        """The figures in the replica's last report: the summed counters of its web workers, the
        lags of its pings, its build and its host. The dictionary is empty if the replica runs a
        release that reports no figures."""
        return dict(self.replica.figures or {})

    @property
    def lag(self) -> str:
        """The median and the 99th percentile of the times that recent pings took, as text. A ping
        is a notification that the sidecar sends to itself through the database. A notification of a
        change takes about as long."""
        shares = (("p50", "lag_p50_seconds"), ("p99", "lag_p99_seconds"))
        known = [
            f"{self.figures[key] * 1000:.0f} ms ({name})"
            for name, key in shares
            if self.figures.get(key) is not None
        ]
        return ", ".join(known) or "not known yet"


@dataclass(frozen=True)
class Cell:
    """A cell of the table, for one realm on one replica. `applied` is the last generation that the
    replica has reported as applied, or None if it has reported none. `committed` is the realm's
    generation in the database."""

    column: Column
    applied: int | None
    committed: int
    condition: Condition

    @property
    def behind(self) -> int:
        """The number of committed generations that the replica has not reported as applied."""
        return max(self.committed - (self.applied or 0), 0)


@dataclass(frozen=True)
class Row:
    """One realm with its cell for each replica. `head` says which generation of the realm's pages
    visitors see, and `pages` is the condition of these pages. `job` is the realm's newest job if
    that job is queued, rendering or failed. `copies` has the URLs at which the realm is
    published."""

    realm: Realm
    head: IndexHead | None
    job: ReindexJob | None
    copies: list[str]
    cells: list[Cell]
    pages: Condition

    @property
    def problems(self) -> list[Condition]:
        """The problems of the realm's pages, and the problems of the realm on replicas. Leaves out
        replicas that have not reported lately, because each has a problem in its column already."""
        behind = [each.condition for each in self.cells if each.column.fresh]
        return [each for each in (self.pages, *behind) if not each.fine]


@dataclass(frozen=True)
class Matrix:
    """One page of the table of realms and replicas. `forgotten` is the number of replicas without a
    column, because they have not reported within REMEMBERED."""

    page: "Page[int]"
    columns: list[Column]
    rows: list[Row]
    forgotten: int
    at: datetime
    text: str = ""
    only_problems: bool = False

    @property
    def problems(self) -> list[Condition]:
        """The conditions of the columns and of this page's realms that are not fine, the worst
        first."""
        found = [each.condition for each in self.columns if not each.condition.fine]
        found += [each for row in self.rows for each in row.problems]
        return sorted(found, key=lambda each: -each.severity)

    @property
    def summary(self) -> str:
        """A sentence that says whether anything is wrong."""
        return conditions.summary(self.problems, len(self.columns), self.at)


def matrix(text: str, page_number: str | None, *, only_problems: bool = False) -> Matrix:
    """Returns one page of the table, with only the realms that have `text` in their URL. With
    `only_problems`, returns only realms that are behind on a replica with a recent report,
    published realms with outdated pages, and realms with a failed last job.

    Reads the realms' committed generations before the replicas' reports. In the opposite order, a
    change that is committed between the reads would make a current replica seem to be behind.
    """
    now = timezone.now()
    page, ids = _worst_first(text, page_number, only_problems, now)
    found = Realm.objects.select_related("owner", "source").in_bulk(ids)
    shown = [found[each] for each in ids if each in found]
    replicas = list(Replica.objects.all())
    columns = [_column(each, now) for each in replicas if now - each.reported_at < REMEMBERED]
    columns.sort(key=lambda column: (not column.fresh, column.replica.name))
    rows = _rows(shown, columns, now)
    return Matrix(page, columns, rows, len(replicas) - len(columns), now, text, only_problems)


def _worst_first(
    text: str, page_number: str | None, only_problems: bool, now: datetime
) -> "tuple[Page[int], list[UUID]]":
    """Returns a `Page` for the links to other pages, and the ids of the realms on this page. The
    worst realms come first. As in Django's `get_page`, a number out of range means the last page,
    and a text that is not a number means the first page."""
    try:
        number = int(page_number or 1)
    except ValueError:
        number = 1
    with connection.cursor() as cursor:
        cursor.execute(
            sql.WORST_FIRST,
            {
                "fresh": now - REPORT_FRESH,
                "text": text,
                "problems": only_problems,
                "page": number if 0 < number < _LAST else _LAST,
                "size": REALMS_PER_PAGE,
            },
        )
        rows: list[tuple[UUID, int]] = cursor.fetchall()
    total = rows[0][1] if rows else 0
    return Paginator(range(total), REALMS_PER_PAGE).get_page(number), [each for each, _ in rows]


def bound() -> timedelta:
    """Returns the staleness bound: how long after a change a replica may still serve the old
    bytes."""
    return timedelta(seconds=settings.REALM_STALENESS_BOUND)


def _column(replica: Replica, now: datetime) -> Column:
    watermark = replica.watermark_at
    return Column(
        replica=replica,
        condition=conditions.of_replica(replica, now, bound()),
        watermark_age=max((now - watermark).total_seconds(), 0) if watermark else None,
        report_age=max((now - replica.reported_at).total_seconds(), 0),
    )


def _rows(realms: list[Realm], columns: list[Column], now: datetime) -> list[Row]:
    urls = [realm.url for realm in realms]
    applied = {
        (row.replica_id, row.realm_url): row
        for row in ReplicaGeneration.objects.filter(realm_url__in=urls)
    }
    heads = {head.realm_url: head for head in IndexHead.objects.filter(realm_url__in=urls)}
    jobs = {job.realm_url: job for job in _last_jobs(urls)}
    copies = _copies(realms)
    since = _changed_at(realms, columns, applied)

    def cell(realm: Realm, column: Column) -> Cell:
        row = applied.get((column.replica.pk, realm.url))
        behind = max(realm.generation - (row.generation if row else 0), 0)
        # The garbage collector may have removed the rows of the change. In this case, use the time
        # when the replica last reported a new generation.
        reported = row.applied_at if row else realm.created_at
        first = since.get((realm.pk, row.generation if row else 0), reported)
        condition = conditions.of_cell(column.replica.name, behind, now - first, bound())
        return Cell(column, row.generation if row else None, realm.generation, condition)

    return [
        Row(
            realm,
            heads.get(realm.url),
            jobs.get(realm.url),
            copies.get(realm.pk, []),
            [cell(realm, column) for column in columns],
            conditions.of_pages(realm, heads.get(realm.url), jobs.get(realm.url), now),
        )
        for realm in realms
    ]


def _changed_at(
    realms: Collection[Realm],
    columns: Iterable[Column],
    applied: Mapping[tuple[str, str], ReplicaGeneration],
) -> dict[tuple[UUID, int], datetime]:
    """Returns since when replicas are behind with realms. Looks only at replicas that have reported
    lately. A key is a realm's id and the last generation that a replica has reported as applied.
    The value is the time of the change that made the next generation."""
    committed = {realm.pk: realm.generation for realm in realms}
    urls = {realm.pk: realm.url for realm in realms}
    missing: set[tuple[UUID, int]] = set()
    for name in (column.replica.pk for column in columns if column.fresh):
        for pk, url in urls.items():
            row = applied.get((name, url))
            if row is not None and row.generation < committed[pk]:
                missing.add((pk, row.generation))
    if not missing:
        return {}
    moments: dict[tuple[UUID, int], datetime] = {}
    ids, firsts = {pk for pk, _ in missing}, {generation + 1 for _, generation in missing}
    versions = FileVersion.objects.filter(realm__in=ids).order_by()
    written = versions.filter(from_generation__in=firsts)
    deleted = versions.filter(until_generation__in=firsts)
    publications = Publication.objects.filter(realm__in=ids, generation__in=firsts)
    changes = (
        *deleted.values_list("realm", "until_generation").annotate(Min("closed_at")),
        *written.values_list("realm", "from_generation").annotate(Min("modified_at")),
        *publications.values_list("realm", "generation", "at"),
    )
    for pk, generation, at in changes:
        moments[pk, generation - 1] = at
    return moments


def _last_jobs(urls: Iterable[str]) -> "QuerySet[ReindexJob]":
    """Returns the newest job of each realm, if that job is queued, rendering or failed."""
    newest = (
        ReindexJob.objects.filter(realm_url__in=urls)
        .order_by("realm_url", "-pk")
        .distinct("realm_url")
        .values("pk")
    )
    return ReindexJob.objects.unfinished().filter(pk__in=newest).defer("pins")


def _copies(realms: Iterable[Realm]) -> Mapping[object, list[str]]:
    """Maps the id of each source realm to the URLs at which the realm is published."""
    copies: dict[object, list[str]] = {}
    published = Realm.objects.filter(source__in=[realm.pk for realm in realms]).order_by("url")
    for source, url in published.values_list("source_id", "url"):
        copies.setdefault(source, []).append(url)
    return copies

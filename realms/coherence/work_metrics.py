"""Computes the metrics of reindex jobs, of the queue and of the workers.

A reindex job renders the pages of a realm. The queue holds pieces of work, which Celery workers
lease. A plan chooses the cards that a job renders. A batch renders some of these cards. A piece of
the kind `definitions` finds out what a module exports.
"""

from collections.abc import Iterator
from datetime import datetime

from django.db import connection
from django.db.models import Count, Min, Sum
from prometheus_client.core import GaugeMetricFamily, Metric

from realms import sql
from reindex.jobs import turns
from reindex.jobs.presence import HEARD_LATELY
from reindex.models import ReindexJob, Worker

#: The quantiles of the run times and of the waiting times of jobs.
_QUANTILES = ("0.5", "0.99")


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"realm_{name}", text, value=value)


def jobs(now: datetime) -> Iterator[Metric]:
    """Yields the number of reindex jobs by state, the age of the oldest unfinished job, and the
    metrics of the jobs that were done within the last hour."""
    family = GaugeMetricFamily("realm_reindex_jobs", "Reindex jobs by state", labels=["state"])
    counted = dict(ReindexJob.objects.order_by().values_list("status").annotate(Count("pk")))
    for state in ReindexJob.Status.values:
        family.add_metric([state], counted.get(state, 0))
    yield family
    # Failed jobs count as unfinished, because they are retried.
    unfinished = ReindexJob.objects.unfinished()
    oldest = unfinished.aggregate(oldest=Min("created_at"))["oldest"]
    text = "Age of the oldest unfinished reindex job; 0 if there is none"
    yield _gauge("reindex_oldest_owed_seconds", text, _age(oldest, now))
    yield from _last_hour(now)


def _last_hour(now: datetime) -> Iterator[Metric]:
    shares = [float(share) for share in _QUANTILES]
    with connection.cursor() as cursor:
        cursor.execute(sql.JOBS_OF_LAST_HOUR, {"now": now, "shares": shares})
        done, rendered, took, waited = cursor.fetchone() or (0, 0, None, None)
    yield _gauge("reindex_hour_jobs", "Reindex jobs done within the last hour", done)
    yield _gauge("reindex_hour_cards", "Cards that the last hour's jobs rendered", rendered)
    for name, text, values in (
        ("took", "Run time of the last hour's jobs, without the wait for a worker", took),
        ("waited", "Time that the last hour's jobs waited for a worker", waited),
    ):
        family = GaugeMetricFamily(f"realm_reindex_hour_{name}_seconds", text, labels=["quantile"])
        for share, value in zip(_QUANTILES, values or (), strict=False):
            family.add_metric([share], max(value, 0))
        yield family


def queue(now: datetime) -> Iterator[Metric]:
    """Yields how many pieces of work wait for a worker, and how long the oldest piece has been
    due."""
    waiting = turns.waiting(now)
    text = "Pieces of work that are due and that no worker has leased"
    family = GaugeMetricFamily("realm_queue_pieces", text, labels=["kind"])
    for kind in turns.KINDS:
        family.add_metric([kind], waiting[kind][0] if kind in waiting else 0)
    yield family
    oldest = min((since for _, since in waiting.values()), default=None)
    text = "How long the oldest piece in the queue has been due; 0 if there is none"
    yield _gauge("queue_oldest_seconds", text, _age(oldest, now))


def workers(now: datetime) -> Iterator[Metric]:
    """Yields the metrics of workers that have reported lately."""
    heard = Worker.objects.filter(heard_at__gt=now - HEARD_LATELY).order_by()
    told = heard.aggregate(workers=Count("pk"), processes=Sum("processes"))
    text = "Workers that have reported within half a minute"
    yield _gauge("workers", text, told["workers"])
    text = "Processes of the workers that have reported; each process works on one piece at a time"
    yield _gauge("worker_processes", text, told["processes"] or 0)


def _age(moment: datetime | None, now: datetime) -> float:
    return max((now - moment).total_seconds(), 0) if moment else 0

"""Computes the metrics of replicas from the database rows that the replicas' sidecars write.

A replica consists of one host's web workers, their sidecar and their board. The sidecar is the
process `manage.py listen_file_changes`. The board is a file that shows the web workers which cached
answers are stale. The board is live while the sidecar proves that the board is current. While the
board isn't live, web workers bypass their caches.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from notifications.listener import State
from notifications.models import Replica
from realms import sql
from realms.coherence.generations import REMEMBERED

#: The counters that are columns of a replica's row, with their help texts.
_COLUMNS = (
    ("notifications", "Notifications that the sidecar received since its start"),
    ("malformed", "Notifications that the sidecar could not parse"),
    ("reconnects", "Times that the sidecar lost its database connection"),
    ("missed", "Changes without a notification; should be 0"),
)
#: The counters in a row's JSON column `figures`, with their help texts.
_COUNTED = (
    ("hits", "Reads that web workers answered from their caches"),
    ("misses", "Reads that the caches of web workers could not answer while the board was live"),
    ("bypasses", "Reads that bypassed the caches of web workers, because the board was not live"),
    ("stale_discards", "Loads that no later read could use, because of a change during the load"),
    ("requests", "Requests that web workers received"),
    ("publishes", "Publishes and rollbacks by web workers"),
    ("publish_seconds", "Total time of publishes and rollbacks, from the request to the commit"),
    ("locks", "Transactions of web workers that held locks of realms"),
    ("lock_wait_seconds", "Total time that transactions of web workers waited for locks of realms"),
    ("lock_held_seconds", "Total time that web workers held locks of realms, including the commit"),
)
#: The gauges in `figures`. Each has the name of its metric, its key in `figures`, and a help text.
_MEASURED = (
    ("cached_entries", "entries", "Fresh and stale answers in the caches of the web workers"),
    ("cached_bytes", "bytes", "Size of the caches of the web workers"),
    ("web_workers", "web_workers", "Web workers that have written their figures within 5 s"),
)
_LAGS = (("0.5", "lag_p50_seconds"), ("0.99", "lag_p99_seconds"))


def replicas(now: datetime) -> Iterator[Metric]:
    """Yields the metrics of all replicas that have reported within a day."""
    rows = list(Replica.objects.filter(reported_at__gt=now - REMEMBERED))
    yield from _states(rows, now)
    for field, text in _COLUMNS:
        counter = CounterMetricFamily(_name(field), text, labels=["replica"])
        for row in rows:
            counter.add_metric([row.name], getattr(row, field))
        yield counter
    # A sidecar of an earlier release may not write all figures. If a figure is missing, the replica
    # gets no value in the figure's metric, because 0 would be wrong.
    for field, text in _COUNTED:
        counter = CounterMetricFamily(_name(field), text, labels=["replica"])
        for row in rows:
            if field in row.figures:
                counter.add_metric([row.name], row.figures[field])
        yield counter
    for name, field, text in _MEASURED:
        gauge = _gauge(name, text)
        for row in rows:
            if field in row.figures:
                gauge.add_metric([row.name], row.figures[field])
        yield gauge
    yield _request_times(rows)
    yield from _sidecars(rows)


def _name(name: str) -> str:
    return f"realm_replica_{name}"


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_name(name), text, labels=["replica", *labels])


def _states(rows: Sequence[Replica], now: datetime) -> Iterator[Metric]:
    with connection.cursor() as cursor:
        cursor.execute(sql.GENERATIONS_BEHIND, [now - REMEMBERED])
        behind = dict(cursor.fetchall())
    live = _gauge(
        "live", "1 if the board is live and the web service answers, as reported within 30 s"
    )
    web = _gauge("web_answers", "1 if the web service answered when the sidecar last reported")
    report = _gauge("report_age_seconds", "Time since the sidecar's last report")
    watermark = _gauge(
        "watermark_age_seconds",
        "Time since the replica's watermark; all changes before the watermark are applied",
    )
    generations = _gauge(
        "generations_behind",
        "Generations, of all realms, that the replica has not reported as applied",
    )
    for row in rows:
        label = [row.name]
        live.add_metric(label, row.fresh and row.web_answers and row.state == State.LIVE)
        web.add_metric(label, row.web_answers)
        report.add_metric(label, max((now - row.reported_at).total_seconds(), 0))
        if row.watermark_at is not None:
            watermark.add_metric(label, max((now - row.watermark_at).total_seconds(), 0))
        generations.add_metric(label, float(behind.get(row.name, 0)))
    yield from (live, web, report, watermark, generations)


def _request_times(rows: Sequence[Replica]) -> Metric:
    text = "Time from a request to its answer; omits the requests that the event loop answers"
    family = HistogramMetricFamily(_name("request_seconds"), text, labels=["replica"])
    for row in rows:
        counted: dict[str, Any] = row.figures.get("request_buckets", {})
        if not counted:
            continue
        buckets, below = [], 0.0
        for bound in sorted(counted, key=float):
            below += counted[bound]
            buckets.append((bound, below))
        if float(buckets[-1][0]) != float("inf"):
            buckets.append(("+Inf", below))
        family.add_metric([row.name], buckets, row.figures.get("request_seconds", 0))
    return family


def _sidecars(rows: Sequence[Replica]) -> Iterator[Metric]:
    """Yields each sidecar's lag, build and host. The lag is the time that a ping takes from the
    sidecar through Postgres back to the sidecar. A notification of a change takes about as long."""
    lag = _gauge("lag_seconds", "Time that the sidecar's pings of the last minute took", "quantile")
    info = _gauge("info", "Always 1; labels: the sidecar's build and host", "build", "host")
    for row in rows:
        for share, field in _LAGS:
            if row.figures.get(field) is not None:
                lag.add_metric([row.name, share], row.figures[field])
        if "build" in row.figures:
            info.add_metric([row.name, row.figures["build"], row.figures.get("host", "")], 1)
    yield from (lag, info)

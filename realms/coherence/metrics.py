"""Serves `GET /_metrics`: the metrics of all replicas, realms, jobs and Celery workers, read from
the database, in Prometheus' text format.

A replica consists of web workers and a sidecar, the process `manage.py listen_file_changes`. The
sidecar writes the figures of the web workers to the replica's row in the database. Every web worker
of every replica therefore returns the same metrics, with one exception. The metric
`realm_board_vouched_seconds` describes only the replica that answers. This metric is read from the
replica's board, a file that tells the web workers about changes. Metrics never contain a realm's
URL, because the URLs of private realms are private.
"""

from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from notifications.board import now_ns
from notifications.emit import local_board
from notifications.listener import SECOND
from realms import errors
from realms.access import auth
from realms.coherence.replica_metrics import replicas
from realms.coherence.work_metrics import jobs, queue, workers
from realms.http.headers import NO_STORE
from realms.models import CoherenceReport, Realm


@csrf_exempt
def metrics(request: HttpRequest) -> HttpResponse:
    """Returns the metrics. Requires REALM_METRICS_TOKEN or the operator's token. The Host header
    and the client's address can't replace the token, because a proxy changes both."""
    if request.method not in ("GET", "HEAD"):
        raise errors.MethodNotAllowed(("GET",), method=request.method)
    token = request.headers.get("Authorization", "")
    if not token:
        raise errors.Unauthorized(
            why="Missing Authorization header: send REALM_METRICS_TOKEN, or the operator's token"
        )
    if not _is_metrics_token(token):
        caller = auth.server_caller(request)
        if not caller.operator:
            raise errors.Forbidden(
                user=auth.user_id(caller.username), action="read", url="/_metrics"
            )
    registry = CollectorRegistry()
    registry.register(_Fleet())
    response = HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    response["Cache-Control"] = NO_STORE
    return response


def _is_metrics_token(header: str) -> bool:
    token, known = header.strip(), settings.REALM_METRICS_TOKEN
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    return bool(known) and constant_time_compare(token, known)


class _Fleet(Collector):
    """Collects all metrics for one request."""

    def describe(self) -> list[Metric]:
        """Returns an empty list. The registry uses this list only to refuse a second collector with
        the same metric, and there is no second collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        yield from _board()
        yield from replicas(now)
        yield from _realms()
        yield from jobs(now)
        yield from queue(now)
        yield from workers(now)
        yield from _report()


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"realm_{name}", text, value=value)


def _board() -> Iterator[Metric]:
    left = max((local_board().live_until - now_ns()) / SECOND, 0)
    text = "How long the answering replica's board stays live; at 0, the replica bypasses caches"
    yield _gauge("board_vouched_seconds", text, left)


def _realms() -> Iterator[Metric]:
    family = GaugeMetricFamily("realm_realms", "Realms in the registry", labels=["kind"])
    counted = dict(Realm.objects.order_by().values_list("kind").annotate(Count("pk")))
    for kind in Realm.Kind.values:
        family.add_metric([kind], counted.get(kind, 0))
    yield family


def _report() -> Iterator[Metric]:
    """Yields the results of the last run of `manage.py verify_coherence`, which compares the
    replicas' answers with the database. Yields nothing before the first run."""
    last = CoherenceReport.objects.defer("details").first()
    if last is None:
        return
    at = last.started_at.timestamp()
    run = "the last run of verify_coherence"
    yield _gauge("coherence_report_timestamp_seconds", f"Start of {run}", at)
    yield _gauge("coherence_samples", f"Answers that {run} compared", last.samples)
    yield _gauge("coherence_violations", f"Wrong answers that {run} found", last.violations)
    yield _gauge("coherence_unreachable", f"Replicas that {run} didn't reach", last.unreachable)
    yield _gauge("coherence_changes", f"Changes that {run} followed", last.changes)
    if last.changes:
        text = f"Share of changes in {run} that all replicas served within `within` seconds"
        shares = GaugeMetricFamily("realm_coherence_share", text, labels=["within"])
        for limit, seen in (
            ("1", last.within_1s),
            ("10", last.within_10s),
            ("60", last.within_60s),
        ):
            shares.add_metric([limit], seen / last.changes)
        yield shares

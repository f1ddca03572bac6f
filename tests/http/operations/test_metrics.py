"""Tests the figures of `GET /_metrics`, who may read them, and which data they never reveal."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from notifications.models import Replica, ReplicaGeneration
from realms.access.auth import OPERATOR, server_token
from realms.figures.counting import Counts
from realms.models import CoherenceReport, Realm
from reindex.models import ReindexBatch, ReindexJob, WantedDefinitions, Worker
from tests.support import make
from tests.support.web import ORIGIN, Web, vouch

pytestmark = pytest.mark.django_db(transaction=True)

Labels = frozenset[tuple[str, str]]


TOKEN = "the token of the tests' metrics"
MINE = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def token() -> Iterator[None]:
    """Sets REALM_METRICS_TOKEN."""
    with override_settings(REALM_METRICS_TOKEN=TOKEN):
        yield


def own(web: Web) -> str:
    """Returns the URL of the metrics at the replica's own address."""
    return f"http://127.0.0.1:{web.port}/_metrics"


def read(web: Web) -> dict[tuple[str, Labels], float]:
    """Requests `/_metrics` and returns the value of each sample by the sample's name and labels."""
    answer = web.get(own(web), **MINE)
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def report(name: str, **fields: Any) -> Replica:
    """Makes the database row in which a replica's sidecar process reports about the replica."""
    now = timezone.now()
    return Replica.objects.create(
        **{
            "name": name, "address": f"http://{name}", "state": "live", "sidecar_pid": 1,
            "watermark_at": now - timedelta(seconds=3), "reported_at": now, **fields,
        }
    )  # fmt: skip


def test_replica_metrics_come_from_the_replicas_reports(web: Web, source: Realm) -> None:
    a = report("a", notifications=5, missed=1)
    report("b", state="listening", watermark_at=None)
    report("c", reported_at=timezone.now() - timedelta(minutes=2))
    report("forgotten", reported_at=timezone.now() - timedelta(days=2))
    ReplicaGeneration.objects.create(
        replica=a, realm_url=source.url, generation=source.generation - 1, applied_at=timezone.now()
    )
    seen = read(web)

    def of(name: str, replica: str) -> float | None:
        return seen.get((f"realm_replica_{name}", labelled(replica=replica)))

    assert [of("live", name) for name in ("a", "b", "c", "forgotten")] == [1, 0, 0, None]
    assert 3 <= (of("watermark_age_seconds", "a") or 0) < 60
    assert of("watermark_age_seconds", "b") is None, "b has never had a watermark"
    assert (of("report_age_seconds", "c") or 0) >= 120
    others = sum(realm.generation for realm in Realm.objects.exclude(pk=source.pk))
    assert of("generations_behind", "a") == 1 + others
    assert of("generations_behind", "b") == source.generation + others, "b has applied nothing"
    assert (of("notifications_total", "a"), of("missed_total", "a")) == (5, 1)


def test_the_figures_of_web_workers_are_shown_per_replica(web: Web) -> None:
    counts = Counts()
    for seconds in (0.0005, 0.003, 0.003, 99):
        counts.slow_request(seconds)
    report("a", figures={
        **counts.figures(), "hits": 7, "bytes": 5, "web_workers": 2, "build": "1+2", "host": "h",
        "lag_p50_seconds": 0.25, "lag_p99_seconds": None,
    })  # fmt: skip
    report("of the previous release")
    seen = read(web)

    def of(name: str, **labels: str) -> float | None:
        return seen.get((f"realm_replica_{name}", labelled(replica="a", **labels)))

    assert (of("hits_total"), of("misses_total"), of("cached_bytes")) == (7, 0, 5)
    assert (of("web_workers"), of("info", build="1+2", host="h")) == (2, 1)
    assert (of("lag_seconds", quantile="0.5"), of("lag_seconds", quantile="0.99")) == (0.25, None)
    below = [of("request_seconds_bucket", le=bound) for bound in ("0.001", "0.005", "10.0", "+Inf")]
    assert below == [1, 3, 3, 4]
    assert (of("request_seconds_count"), of("request_seconds_sum")) == (4, 99.0065)
    other = {name for name, labels in seen if ("replica", "of the previous release") in labels}
    assert "realm_replica_live" in other
    assert other.isdisjoint({"realm_replica_hits_total", "realm_replica_request_seconds_count"})


def test_buckets_with_other_bounds_still_make_a_histogram(web: Web) -> None:
    report("a", figures={"request_buckets": {"0.5": 2, "0.01": 1}, "request_seconds": 3})
    seen = read(web)
    name = "realm_replica_request_seconds_bucket"
    below = [seen[name, labelled(replica="a", le=le)] for le in ("0.01", "0.5", "+Inf")]
    assert below == [1, 3, 3]


def test_only_workers_that_reported_lately_are_counted(web: Web) -> None:
    now = timezone.now()
    for name, seconds in (("a", 5), ("b", 20), ("gone", 40)):
        Worker.objects.create(
            name=name, host="h", pid=1, processes=3, started_at=now,
            heard_at=now - timedelta(seconds=seconds),
        )  # fmt: skip
    seen = read(web)
    assert seen["realm_workers", labelled()] == 2
    assert seen["realm_worker_processes", labelled()] == 6


def test_waiting_work_is_counted_by_kind(web: Web) -> None:
    now = timezone.now()
    ReindexJob.objects.create(realm_url="queued", generation=1)
    ReindexJob.objects.create(
        realm_url="leased", generation=1, lease_until=now + timedelta(minutes=1)
    )
    ReindexJob.objects.create(realm_url="later", generation=1, due_at=now + timedelta(minutes=1))
    rendering = ReindexJob.objects.create(realm_url="rendering", generation=1, status="rendering")
    for done in (True, False, False):
        ReindexBatch.objects.create(job=rendering, paths=[], done=done)
    WantedDefinitions.objects.create(module_url="m", due_at=now - timedelta(seconds=100))
    seen = read(web)
    kinds = ("plan", "batch", "definitions")
    assert [seen["realm_queue_pieces", labelled(kind=kind)] for kind in kinds] == [1, 2, 1]
    assert 100 <= seen["realm_queue_oldest_seconds", labelled()] < 160


def test_the_durations_of_the_last_hours_jobs_are_shown(web: Web) -> None:
    now = timezone.now()
    for number, minutes in ((1, 5), (2, 5), (90, 5), (1000, 70)):
        finished = now - timedelta(minutes=minutes)
        started = finished - timedelta(seconds=number)
        job = ReindexJob.objects.create(
            realm_url=str(number), generation=1, status="done", rendered=10,
            started_at=started, finished_at=finished,
        )  # fmt: skip
        ReindexJob.objects.filter(pk=job.pk).update(created_at=started - timedelta(seconds=3))
    seen = read(web)
    assert seen["realm_reindex_hour_jobs", labelled()] == 3
    assert seen["realm_reindex_hour_cards", labelled()] == 30
    took = [seen["realm_reindex_hour_took_seconds", labelled(quantile=q)] for q in ("0.5", "0.99")]
    assert took == [2, 90]
    assert seen["realm_reindex_hour_waited_seconds", labelled(quantile="0.99")] == 3


def test_jobs_realms_and_the_last_coherence_report_are_shown(web: Web, source: Realm) -> None:
    make.publish(source, "http://ada.localhost:4201/")
    ReindexJob.objects.create(realm_url="x", generation=1, status="done")
    ReindexJob.objects.update(created_at=timezone.now() - timedelta(hours=1))
    figures: dict[str, Any] = {
        "seconds": 60, "samples": 90, "changes": 200, "within_1s": 190, "within_10s": 199,
        "within_60s": 200, "details": {},
    }  # fmt: skip
    now = timezone.now()
    CoherenceReport.objects.create(
        started_at=now - timedelta(days=1), violations=9, unreachable=9, **figures
    )
    before = read(web)
    assert before["realm_coherence_violations", labelled()] == 9
    CoherenceReport.objects.create(started_at=now, violations=2, unreachable=1, **figures)
    seen = read(web)
    assert seen["realm_coherence_violations", labelled()] == 2
    assert seen["realm_coherence_unreachable", labelled()] == 1
    assert seen["realm_coherence_report_timestamp_seconds", labelled()] == now.timestamp()
    shares = [seen["realm_coherence_share", labelled(within=w)] for w in ("1", "10", "60")]
    assert shares == [0.95, 0.995, 1]
    assert seen["realm_reindex_jobs", labelled(state="queued")] == 1
    assert seen["realm_reindex_jobs", labelled(state="done")] == 1
    assert seen["realm_reindex_jobs", labelled(state="failed")] == 0
    assert 3600 <= seen["realm_reindex_oldest_owed_seconds", labelled()] < 3700
    assert seen["realm_realms", labelled(kind="published")] == 1
    assert seen["realm_queue_pieces", labelled(kind="plan")] == 1


def test_an_empty_installation_has_metrics_too(web: Web) -> None:
    seen = read(web)
    assert seen["realm_reindex_oldest_owed_seconds", labelled()] == 0
    assert seen["realm_queue_oldest_seconds", labelled()] == 0
    assert seen["realm_workers", labelled()] == 0
    assert not any(name.startswith("realm_coherence") for name, _ in seen)
    assert seen["realm_board_vouched_seconds", labelled()] == 0
    vouch()
    assert 50 < read(web)["realm_board_vouched_seconds", labelled()] <= 60


def test_metrics_name_no_realm_or_user(web: Web, owner: Any) -> None:
    make.source(f"{ORIGIN}/ada/secret/", owner, make.SITE, public=False)
    ReindexJob.objects.create(realm_url=f"{ORIGIN}/ada/secret/", generation=1)
    WantedDefinitions.objects.create(
        module_url=f"{ORIGIN}/ada/secret/m", owner="ada", due_at=timezone.now()
    )
    report("a")
    text = web.get(own(web), **MINE).text
    assert "secret" not in text
    assert "ada" not in text


def test_metrics_need_a_token_at_every_host(web: Web, owner: Any) -> None:
    """Even a request with the replica's own address as its Host needs a token, because a proxy on
    this machine may have forwarded it for a stranger."""
    for url in (own(web), f"{ORIGIN}/_metrics", "http://ada.localhost:4201/_metrics"):
        answer = web.get(url)
        assert answer.status == 401
        assert "REALM_METRICS_TOKEN" in answer.text
        assert web.get(url, **make.login("ada")).status == 403
        for wrong in ("nonsense", "Bearer ", f"{TOKEN}x", TOKEN[:-1], f"Basic {TOKEN}", "Bearer ä"):
            assert web.get(url, Authorization=wrong).status == 401, wrong
        for right in (TOKEN, f"bearer {TOKEN}", f"Bearer  {TOKEN} ", server_token(OPERATOR)):
            assert web.get(url, Authorization=right).status == 200, right


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_no_proxy_header_opens_the_metrics(web: Web, header: str) -> None:
    for value in ("127.0.0.1", "for=127.0.0.1", "::1"):
        assert web.get(own(web), **{header: value}).status == 401


def test_without_a_metrics_token_only_the_operator_reads_metrics(web: Web) -> None:
    with override_settings(REALM_METRICS_TOKEN=""):
        for token in ("", "Bearer", "Bearer ", "None"):
            assert web.get(own(web), Authorization=token).status == 401, token
        assert web.get(own(web), Authorization=server_token(OPERATOR)).status == 200


def test_the_metrics_token_opens_nothing_else(web: Web, owner: Any) -> None:
    diary = make.source(f"{ORIGIN}/ada/diary/", owner, make.SITE, public=False)
    assert web.get(f"{diary.url}ada.json", **MINE).status == 401
    assert web.post(f"{ORIGIN}/_realm-auth", {}, MINE).status == 401


def test_metrics_accept_only_reads(web: Web) -> None:
    assert web.request("POST", own(web), body=b"", headers=MINE).status == 405
    assert web.request("HEAD", own(web), headers=MINE).status == 200

"""Tests with real processes that a publish makes one OpenTelemetry trace, which lasts from the
request until visitors see the new pages. A trace consists of spans, one for each step."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import IndexHead, ReindexJob
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import cluster, free_ports, wait_until
from tests.support.servers.collector import Collector, Span, collector

PUBLISHED = "http://ada.localhost:4201/"
#: The name of each span of a publish, with the name of its parent span.
PARENTS = {
    "publish": None,
    "lock": "publish",
    "show": "publish",
    "notify": "publish",
    "drop definitions": "publish",
    "enqueue": "publish",
    "heard": "notify",
    "queued": "enqueue",
    "plan": "enqueue",
    "batch": "enqueue",
    "read": "batch",
    "render": "batch",
    "swap index": "batch",
    "landed": "enqueue",
}

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def traces() -> Iterator[Collector]:
    with collector() as running:
        yield running


def test_a_publish_is_one_trace_until_its_pages_are_shown(
    source: Realm, tmp_path: Path, traces: Collector
) -> None:
    sync_base_realm()
    with cluster(tmp_path, 2, REALM_TRACES_ENDPOINT=traces.url) as running:
        running.start_worker()
        running.wait_reported()
        make.write(source, post__tsx=make.POST_MODULE.replace("one", "two").encode())
        running.publish(source.url, PUBLISHED)
        wait_until(
            lambda: traces.named("landed") and len(traces.named("heard")) == 2,
            "there are the span `landed` and two spans `heard`",
            60,
        )
        wait_until(lambda: PARENTS.keys() <= {each.name for each in traces.spans}, "all spans", 60)
    of_publish = [each for each in traces.spans if each.trace == traces.named("publish")[0].trace]
    assert {each.name for each in traces.spans} == PARENTS.keys()
    assert of_publish == traces.spans, "there is another trace"
    by_key = {each.key: each for each in of_publish}
    parents = {each.name: by_key[each.parent].name if each.parent else None for each in of_publish}
    assert parents == PARENTS
    assert {each.attributes["replica"] for each in traces.named("heard")} == {"a", "b"}
    assert len({each.process for each in of_publish}) >= 4
    in_order("lock", "show", "notify", "drop definitions", "enqueue", traces=traces)
    in_order("queued", "plan", "read", "render", "swap index", traces=traces)
    (landed,) = traces.named("landed")
    assert landed.attributes["realm"] == PUBLISHED
    assert landed.began <= traces.named("plan")[0].began <= landed.ended


def in_order(*names: str, traces: Collector) -> None:
    """Asserts that the spans with these names began in the order of the names."""
    spans: list[Span] = [traces.named(name)[0] for name in names]
    began = [each.began for each in spans]
    assert began == sorted(began)


def test_pages_are_shown_even_if_the_trace_collector_is_away(source: Realm, tmp_path: Path) -> None:
    sync_base_realm()
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}/v1/traces"
    with cluster(tmp_path, 1, REALM_TRACES_ENDPOINT=endpoint) as running:
        running.start_worker()
        running.wait_reported()
        running.publish(source.url, PUBLISHED)
        landed = IndexHead.objects.filter(realm_url=PUBLISHED)
        wait_until(landed.exists, "the pages are shown", 60)
    assert ReindexJob.objects.get(realm_url=PUBLISHED).trace


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    code = (
        "import sys, settings.asgi, reindex.tasks, realms.publishing.publish;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, check=True, timeout=60)

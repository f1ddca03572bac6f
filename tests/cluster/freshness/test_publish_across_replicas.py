"""Tests with real processes that after a publish through one replica, the other replica serves the
published files, even without its sidecar.

The sidecar is a process of each replica. It receives notifications of changes from Postgres.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from realms.models import Realm
from tests.support import make
from tests.support.cluster import Cluster, Replica, cluster, wait_until

PUBLISHED = "http://ada.localhost:4201/"
SOURCE = "application/vnd.card+source"

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def two(source: Realm, tmp_path: Path) -> Iterator[Cluster]:
    """Yields a cluster of two replicas and a Celery worker."""
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    with cluster(tmp_path, 2) as running:
        running.start_worker()
        yield running


def test_a_publish_reaches_a_peer_and_survives_the_loss_of_its_sidecar(
    two: Cluster, source: Realm
) -> None:
    _, b = two.replicas
    first = two.publish(source.url, PUBLISHED)
    _wait_ready(two, first)
    for replica in two.replicas:
        _wait_for_hits(replica)
        answers = replica.each_worker(f"{PUBLISHED}post.tsx")
        assert all("edition one" in answer.text for answer in answers.values())

    make.write(source, post__tsx=make.POST_MODULE.replace("edition one", "edition two").encode())
    second = two.publish(source.url, PUBLISHED)
    wait_until(lambda: "edition two" in b.get(f"{PUBLISHED}post.tsx").text, "edition two on b", 2)
    _wait_ready(two, second)
    assert "edition two" in b.get(PUBLISHED, "text/html").text

    make.write(source, post__tsx=make.POST_MODULE.replace("edition one", "edition three").encode())
    b.each_worker(f"{PUBLISHED}post.tsx")
    b.kill("sidecar")
    third = two.publish(source.url, PUBLISHED)
    pinned = b.get(f"{PUBLISHED}post.tsx", **{"X-Realm-Min-Generation": str(third)})
    assert "edition three" in pinned.text
    b.wait_not_live()
    for _ in range(8):
        assert "edition three" in b.get(f"{PUBLISHED}post.tsx").text
    _wait_ready(two, third)
    for replica in two.replicas:
        assert "edition three" in replica.get(PUBLISHED, "text/html").text

    b.start("sidecar")
    b.wait_live()
    _wait_for_hits(b)


def _wait_ready(two: Cluster, generation: int) -> None:
    url = f"{PUBLISHED}_readiness-check?awaitPrerenderHtml=true"

    def ready() -> bool:
        answer = two.replicas[1].get(url, "application/vnd.api+json")
        return answer.status == 200 and int(answer.headers["x-realm-generation"]) >= generation

    wait_until(ready, f"pages of generation {generation}")


def _wait_for_hits(replica: Replica) -> None:
    """Waits until every web worker answers from its cache. Web workers bypass their caches until
    the replica's sidecar has confirmed that no notification is missing."""

    def hits() -> bool:
        answers = replica.each_worker(f"{PUBLISHED}post.tsx")
        return {answer.cache for answer in answers.values()} == {"hit"}

    wait_until(hits, f"every web worker of {replica.name} answers from its cache", 10)

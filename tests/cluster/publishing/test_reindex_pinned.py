"""Tests that workers render the published generation of a realm, even if they read from a replica
that hasn't been notified of the publish.

Replica b's sidecar, the process that receives notifications, is suspended. But b's board stays live
for a minute, so b answers requests without a pin from its caches, with old content. All workers
read from b. Their requests for files have pins, each of which names a realm and a generation. Only
the pins keep the old content out of the index, the rendered pages of the realm.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from definitions.models import Definition
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import ReindexBatch, ReindexJob
from tests.support import make
from tests.support.cluster import Answer, Cluster, Replica, cluster, wait_until
from tests.support.rendering import index_of

SITE = "http://ada.localhost:4201/"
LIBRARY = "http://lib.localhost:4201/"
SOURCE = "application/vnd.card+source"
BASE = "http://localhost:4201/base/mod.ts"

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def post_module(edition: str) -> bytes:
    return f"""\
import {{ Card, linksTo, string }} from "@realm/base";
import {{ label }} from "{LIBRARY}label.ts";
export class Post extends Card {{
  static displayName = "Post {edition}";
  static fields = {{ title: string(), author: linksTo(() => Card), {edition}: string() }};
  static isolated = ({{ card }}) => (
    <p>{edition} {{label}} {{card.title}} {{card.author?.name}}</p>
  );
}}
""".encode()


def site(edition: str) -> dict[str, bytes]:
    """Returns the files of one edition. Each file contains the edition's name."""
    return {
        "post.tsx": post_module(edition),
        "person.tsx": f"""\
import {{ Card, string }} from "@realm/base";
export class Person extends Card {{
  static displayName = "Person {edition}";
  static fields = {{ name: string() }};
}}
""".encode(),
        "index.json": make.card(
            "./post", "Post", title=f"home {edition}", links={"author": "./bo"}
        ),
        "bo.json": make.card("./person", "Person", name=f"Bo {edition}"),
        "realm.json": make.card("@realm/base", "RealmConfig", name=f"Site {edition}"),
    }


@pytest.fixture
def fleet(owner: Any, tmp_path: Path) -> Iterator[Cluster]:
    """Yields a cluster of two replicas. A replica's board stays live for a minute after its sidecar
    has been suspended."""
    sync_base_realm()
    with cluster(tmp_path, 2, REALM_STALENESS_BOUND="60") as running:
        yield running


def test_a_render_that_reads_from_a_stale_replica_indexes_no_old_byte(
    fleet: Cluster, owner: Any
) -> None:
    a, b = fleet.replicas
    library = make.source(
        "http://localhost:4201/ada/lib/", owner, {"label.ts": b'export const label = "label-old";'}
    )
    gone = {"gone.json": make.card("./person", "Person", name="Gone old")}
    source = make.source("http://localhost:4201/ada/site/", owner, site("old") | gone)
    worker = fleet.start_worker("one", REALM_RENDER_REPLICAS=b.address)
    publish(a, library, LIBRARY)
    first = publish(a, source, SITE)
    wait_indexed(SITE, first)
    wait_until(lambda: definitions_of(SITE).keys() == {"post.tsx", "person.tsx"}, "definitions")
    assert "old" in said(SITE)
    kill(worker)

    warm = [(f"{SITE}{path}", accept) for path, accept in (
        ("post.tsx", "*/*"), ("post", "*/*"), ("person.tsx", "*/*"), ("index.json", SOURCE),
        ("bo.json", SOURCE), ("gone.json", SOURCE), ("realm.json", SOURCE), ("", "text/html"),
    )] + [(f"{LIBRARY}label.ts", "*/*")]  # fmt: skip
    for url, accept in warm:
        b.each_worker(url, accept)
    b.kill("sidecar", signal.SIGSTOP)

    make.write_paths(library, {"label.ts": b'export const label = "label-new";'})
    make.write_paths(source, site("new"))
    make.remove(source, "gone.json")
    publish(a, library, LIBRARY)
    second = publish(a, source, SITE)
    assert b.board.live()
    for url, accept in warm:
        for answer in b.each_worker(url, accept).values():
            assert (answer.cache, "old" in answer.text) == ("hit", True), (url, answer.text)
            assert "new" not in answer.text

    fleet.start_worker("two", REALM_RENDER_REPLICAS=b.address)
    wait_indexed(SITE, second)
    wait_until(lambda: definitions_of(SITE).keys() == {"post.tsx", "person.tsx"}, "definitions")
    assert b.board.live()
    for url in (f"{SITE}index.json", f"{SITE}bo.json"):
        for answer in b.each_worker(url, SOURCE).values():
            assert (answer.cache, "old" in answer.text) == ("hit", True)

    cards = index_of(SITE)
    assert cards.keys() == {"index", "bo"}
    assert "<p>new label-new home new Bo new</p>" in cards["index"].html["isolated"]
    assert "Site new" in cards["index"].html["head"]
    assert cards["bo"].search["name"] == "Bo new"
    assert "old" not in said(SITE)
    assert "new" in said(SITE)
    assert definitions_of(SITE)["post.tsx"]["Post"]["displayName"] == "Post new"

    job = ReindexJob.objects.get(realm_url=SITE, generation=second)
    library.refresh_from_db()
    published = Realm.objects.get(url=LIBRARY)
    assert job.pins[LIBRARY] == published.generation
    assert (job.status, job.attempts, job.errors) == ("done", 1, 0)
    assert {batch.replica for batch in ReindexBatch.objects.filter(job=job)} == {b.address}


def publish(replica: Replica, source: Realm, url: str) -> int:
    """Publishes over HTTP through a replica. Returns the published realm's generation."""
    answer: Answer = replica.request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept="application/vnd.api+json",
        body=json.dumps({"sourceRealmURL": source.url, "publishedRealmURL": url}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    return int(answer.headers["x-realm-generation"])


def wait_indexed(url: str, generation: int) -> None:
    done = ReindexJob.objects.filter(realm_url=url, generation=generation, status="done")
    wait_until(done.exists, f"the index of {url} at {generation}")


def kill(worker: Any) -> None:
    """Kills a Celery worker and all its child processes."""
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for each in family:
        os.kill(each.pid, signal.SIGKILL)
    worker.wait()


def said(url: str) -> str:
    """Returns the whole index and all definitions of a realm as one text."""
    cards = {path: vars(card) for path, card in index_of(url).items()}
    return json.dumps([cards, definitions_of(url)])


def definitions_of(url: str) -> dict[str, Any]:
    """Returns the definitions of a realm by the paths of its modules."""
    rows = Definition.objects.filter(realm_url=url)
    return {row.module_url.removeprefix(url): row.definitions for row in rows}

"""Publishing again and again while readers read, rendered by a worker that has HTTP and no more.

The worker stands for another machine: its data folder is another one, without blobs and boards, and
what the two share is the database, the broker's folder, and the replicas' addresses.
"""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from realms.bootstrap import sync_base_realm
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob
from tests import make
from tests.cluster import Cluster, Replica, cluster, wait_until
from tests.gates import in_thread

SITE = "http://ada.localhost:4201/"
NAMES = ("index", "one", "two", "three")

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def edition(number: int, *, hangs: bool = False) -> dict[str, bytes]:
    """The site in one edition: every page says it twice, by its module and by its card."""
    loop = 'if (card.title.startsWith("two")) for (;;);' if hangs else ""
    module = f"""\
import {{ Card, string }} from "@realm/base";
import {{ edition }} from "./edition.ts";
export class Page extends Card {{
  static fields = {{ title: string(), text: string() }};
  static isolated = ({{ card }}) => {{
    {loop}
    return <p>edition-{{edition}} {{card.title}}</p>;
  }};
}}
"""
    cards = {
        f"{name}.json": make.card("./page", "Page", title=f"{name} edition-{number}")
        for name in NAMES
    }
    return {
        **cards,
        "edition.ts": f"export const edition = {number};".encode(),
        "page.tsx": module.encode(),
    }


#: Never changes. It is too large for a row, so its content is in the blob storage.
STILL = {
    "plain.tsx": b"""\
import { Card, string } from "@realm/base";
export class Plain extends Card {
  static fields = { text: string() };
  static isolated = ({ card }) => <p>{card.text.length} letters</p>;
}
""",
    "still.json": make.card("./plain", "Plain", text="x" * 70_000),
}


@pytest.fixture
def fleet(owner: Any, tmp_path: Path) -> Iterator[Cluster]:
    """Two replicas, and a worker elsewhere."""
    sync_base_realm()
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    with cluster(here, 2) as running:
        (elsewhere / "broker").symlink_to(here / "broker")
        running.start_worker(
            REALM_DATA_DIR=str(elsewhere),
            REALM_BOARD=str(elsewhere / "board"),
            REALM_BLOB_STORAGE=str(elsewhere / "no-blobs"),
            REALM_REPLICA_ADDRESS="http://127.0.0.1:1",
        )
        yield running


class Reader:
    """Reads every page from every replica, and the index as the database has it, all the time."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.pages = 0
        self.wrong: list[str] = []
        self._replicas = replicas
        self._stop = threading.Event()
        self._editions: dict[str, set[str]] = {}
        self._thread = in_thread(self._read)

    def stop(self) -> None:
        self._stop.set()
        self._thread.result(30)

    def _read(self) -> None:
        while not self._stop.is_set():
            for replica in self._replicas:
                for name in NAMES:
                    self._look_at(replica.get(f"{SITE}{name}", "text/html"))
            self._look_at_rows()

    def _look_at(self, answer: Any) -> None:
        said = set(re.findall(r"edition-(\d+)", answer.text))
        of_generation = self._editions.setdefault(answer.headers["x-realm-generation"], set())
        of_generation |= said
        self.pages += 1
        if answer.status != 200 or len(said) != 1 or len(of_generation) != 1:
            self.wrong.append(f"{answer.status} {said} {of_generation} {answer.text}")

    def _look_at_rows(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT substring(html ->> 'isolated' FROM 'edition-[0-9]+')"
                " FROM reindex_indexedcard WHERE current AND path = ANY(%s)",
                [list(NAMES)],
            )
            shown = cursor.fetchall()
        if len(shown) != 1:
            self.wrong.append(f"rows of {shown}")


def test_five_publishes_in_a_row_end_at_the_newest_and_nobody_sees_a_mixture(
    fleet: Cluster, owner: Any
) -> None:
    a, b = fleet.replicas
    source = make.source("http://localhost:4201/ada/site/", owner, {**edition(1), **STILL})
    wait_shown(publish(a, source))
    still = IndexedCard.objects.get(path="still", current=True).pk
    reader = Reader(fleet.replicas)

    # Two quickly, the first of which hangs in a batch.
    make.write_paths(source, edition(2, hangs=True))
    hanging = publish(a, source)
    batches = ReindexBatch.objects.filter(job__generation=hanging, lease_until__isnull=False)
    wait_until(batches.exists, "the hanging batch taken")
    make.write_paths(source, edition(3))
    wait_shown(publish(b, source))
    # Five with no pause.
    for number in range(4, 9):
        make.write_paths(source, edition(number))
        last = publish((a, b)[number % 2], source)
    wait_shown(last)
    reader.stop()

    assert reader.wrong == []
    assert reader.pages > 8
    assert IndexHead.objects.get(realm_url=SITE).generation == last
    rows: dict[str, Any] = {card.path: card for card in IndexedCard.objects.filter(realm_url=SITE)}
    assert rows.keys() == {*NAMES, "still"}
    assert all(rows[name].html["isolated"].count("edition-8") == 2 for name in NAMES)
    assert all(card.current and not card.error for card in rows.values())
    # Nothing has changed for it since the first publish.
    assert rows["still"].pk == still
    assert "70000 letters" in rows["still"].html["isolated"]
    states = dict(ReindexJob.objects.filter(realm_url=SITE).values_list("generation", "status"))
    assert states[hanging] == "superseded"
    assert states[last] == "done"
    assert set(states.values()) == {"superseded", "done"}
    read_from = set(ReindexBatch.objects.exclude(replica="").values_list("replica", flat=True))
    assert read_from <= {a.address, b.address}


def publish(replica: Replica, source: Any) -> int:
    """Publishes through a replica, as a client does, and answers the generation."""
    answer = replica.request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept="application/vnd.api+json",
        body=json.dumps({"sourceRealmURL": source.url, "publishedRealmURL": SITE}),
        headers=make.login("ada"),
    )
    assert answer.status == 202, answer.text
    return int(answer.headers["x-realm-generation"])


def wait_shown(generation: int) -> None:
    head = IndexHead.objects.filter(realm_url=SITE, generation__gte=generation)
    wait_until(head.exists, f"the index of generation {generation}", 90)

"""Publishes several times in quick succession, while a client reads the pages and the index.

The worker that renders the pages runs as if on another machine. The worker and the replicas share
only the database and the broker's folder. The worker's data folder has no file contents (blobs) and
no boards of replicas, so the worker must request files from the replicas. It finds the replicas'
addresses in the database.

The index of a realm is the set of its rendered pages. The site is the published realm at SITE, and
an edition is one state of its files.
"""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob
from tests.support import make
from tests.support.cluster import Answer, Cluster, Replica, cluster, wait_until
from tests.support.gates import in_thread

SITE = "http://ada.localhost:4201/"
NAMES = ("index", "one", "two", "three")
EDITION = re.compile(r"edition-(\d+)")

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]


def edition(number: int, *, hangs: bool = False) -> dict[str, bytes]:
    """Returns the files of the site's edition `number`. Every page shows the number twice, once
    from its module and once from its card. If `hangs` is true, rendering the page `two` never
    ends."""
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


#: Files that are the same in all editions. The card `still` is too large for a database row, so its
#: content is in the blob storage.
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
def shown(owner: Any, tmp_path: Path) -> Iterator["Shown"]:
    """Runs two replicas, which share a data folder, and a worker with a data folder of its own.
    Publishes the site's first edition, and yields the fleet when the edition's pages are shown."""
    sync_base_realm()
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    with cluster(here, 2) as running:
        (elsewhere / "broker").symlink_to(here / "broker")
        worker = running.start_worker(
            REALM_DATA_DIR=str(elsewhere),
            REALM_BOARD=str(elsewhere / "board"),
            REALM_BLOB_STORAGE=str(elsewhere / "no-blobs"),
            REALM_REPLICA_ADDRESS="http://127.0.0.1:1",
        )
        source = make.source("http://localhost:4201/ada/site/", owner, {**edition(1), **STILL})
        wait_shown(publish(running.replicas[0], source))
        still = IndexedCard.objects.get(path="still", current=True).pk
        yield Shown(running, source, still, worker)


class Reader:
    """Repeatedly requests every page and a search from every replica, and reads the index from the
    database. Collects in `wrong` what a visitor must never see. This is an error, or a mixture of
    editions. An answer, the index and a generation each have files of only one edition."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.wrong: list[str] = []
        #: The editions, in the order of their appearance in the index.
        self.seen: list[str] = []
        self._replicas = replicas
        self._stop = threading.Event()
        self._editions: dict[str, set[str]] = {}
        self._rounds = 0
        self._thread = in_thread(self._read)

    def __enter__(self) -> "Reader":
        self.wait_for_rounds(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.result(30)

    def wait_for_rounds(self, count: int) -> None:
        """Waits until the thread has requested every page and search `count` times from now on."""
        target = self._rounds + count

        def read() -> bool:
            if self._thread.done():
                self._thread.result()  # Raises the error that ended the thread.
            return self._rounds >= target

        wait_until(read, f"the reader has read everything {count} times")

    def _read(self) -> None:
        while not self._stop.is_set():
            for replica in self._replicas:
                for name in NAMES:
                    self._look_at(replica.get(f"{SITE}{name}", "text/html"))
                    self._look_at_rows()
                self._look_at(replica.get(f"{SITE}_search", "application/vnd.card+json"))
            self._rounds += 1

    def _look_at(self, answer: Answer) -> None:
        said = set(EDITION.findall(answer.text))
        of_generation = self._editions.setdefault(answer.headers["x-realm-generation"], set())
        of_generation |= said
        if answer.status != 200 or len(said) != 1 or len(of_generation) != 1:
            self.wrong.append(f"{answer.status} {said} {of_generation} {answer.text[:2000]}")

    def _look_at_rows(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT h.generation, array_agg(DISTINCT edition)"
                " FROM reindex_indexhead h JOIN reindex_indexedcard c USING (realm_url),"
                " regexp_matches(html ->> 'isolated', 'edition-([0-9]+)', 'g') edition"
                " WHERE current AND path = ANY(%s) GROUP BY 1",
                [list(NAMES)],
            )
            shown = cursor.fetchall()
        if len(shown) != 1 or len(shown[0][1]) != 1:
            self.wrong.append(f"not exactly one edition in the index: {shown}")
            return
        ((generation, ((edition,),)),) = shown
        self._editions.setdefault(str(generation), set()).add(edition)
        if edition not in self.seen[-1:]:
            self.seen.append(edition)


@dataclass
class Shown:
    """A fleet that shows the site's first edition, with methods that publish further editions.
    `still` is the key of the row that the first publish has made for the card `still`."""

    fleet: Cluster
    source: Realm
    still: int
    worker: "subprocess.Popen[bytes]"
    turn: int = 0

    def end_worker(self) -> None:
        """Terminates the worker with SIGTERM, and waits until the worker has ended."""
        self.worker.terminate()
        self.worker.wait(60)

    def publish(self, number: int, *, hangs: bool = False) -> int:
        """Writes an edition and publishes it, through a different replica than the last time.
        Returns the published realm's generation."""
        make.write_paths(self.source, edition(number, hangs=hangs))
        self.turn += 1
        return publish(self.fleet.replicas[self.turn % 2], self.source)

    def assert_ends_at(self, number: int, generation: int, reader: Reader) -> None:
        """Asserts that the index has exactly the cards of edition `number`, and that the reader saw
        no wrong state."""
        reader.wait_for_rounds(2)
        assert reader.wrong == []
        for replica in self.fleet.replicas:
            for name in NAMES:
                page = replica.get(f"{SITE}{name}", "text/html")
                assert page.headers["x-realm-generation"] == str(generation)
                assert EDITION.findall(page.text)[-1] == str(number)
        assert reader.seen[-1] == str(number)
        assert reader.seen == sorted(reader.seen), "the index went back to an older edition"
        assert IndexHead.objects.get(realm_url=SITE).generation == generation
        rows = {card.path: card for card in IndexedCard.objects.filter(realm_url=SITE)}
        assert rows.keys() == {*NAMES, "still"}, "the index has other cards"
        assert all(card.current and not card.error for card in rows.values())
        for name in NAMES:
            html: Any = rows[name].html
            assert EDITION.findall(html["isolated"]) == [str(number)] * 2
        # The card `still` is the same in all editions, so no publish renders it again and its row
        # stays.
        assert rows["still"].pk == self.still
        assert "70000 letters" in str(rows["still"].html)
        jobs = ReindexJob.objects.filter(realm_url=SITE)
        assert jobs.get(generation=generation).status == "done"
        assert {job.status for job in jobs} <= {"superseded", "done"}
        read_from = set(ReindexBatch.objects.exclude(replica="").values_list("replica", flat=True))
        assert read_from <= {replica.address for replica in self.fleet.replicas}


def test_after_two_quick_publishes_the_second_is_shown(shown: Shown) -> None:
    with Reader(shown.fleet.replicas) as reader:
        shown.publish(2)
        last = shown.publish(3)
        wait_shown(last)
        shown.assert_ends_at(3, last, reader)


def test_after_five_publishes_without_a_pause_the_newest_is_shown(shown: Shown) -> None:
    with Reader(shown.fleet.replicas) as reader:
        for number in range(2, 7):
            last = shown.publish(number)
        wait_shown(last)
        shown.assert_ends_at(6, last, reader)


def test_a_publish_is_shown_although_a_batch_of_the_previous_one_hangs(shown: Shown) -> None:
    with Reader(shown.fleet.replicas) as reader:
        hanging = shown.publish(2, hangs=True)
        batches = ReindexBatch.objects.filter(job__generation=hanging, lease_until__isnull=False)
        wait_until(batches.exists, "a worker leases the batch that hangs")
        last = shown.publish(3)
        wait_shown(last)
        # The worker ends only when it has finished the hanging batch, some seconds later. The
        # results of this batch are refused, because its job is superseded.
        shown.end_worker()
        shown.assert_ends_at(3, last, reader)
        assert reader.seen == ["1", "3"]
        assert ReindexJob.objects.get(generation=hanging).status == "superseded"


def publish(replica: Replica, source: Any) -> int:
    """Publishes over HTTP through a replica. Returns the published realm's generation."""
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

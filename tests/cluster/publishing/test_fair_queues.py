"""Tests that one owner's queued work doesn't delay the rendering of another owner's publish (the
promise P10 in README.md).

A piece of work is a job to plan, a batch of a job's cards to render, or the definitions of a module
to build. A worker leases a piece before it does the work.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import batches, lifecycle, queue, turns, wanted
from reindex.models import OwnerUsage, ReindexBatch, ReindexJob, WantedDefinitions
from settings.processes import celery_worker
from tests.support import make
from tests.support.cluster import Cluster, cluster, wait_until
from tests.support.gates import in_thread
from tests.support.minutes import takes_minutes

API = "application/vnd.api+json"
ADA = "http://ada.localhost:4201/"
PLAIN = b"""\
import { Card, string } from "@realm/base";
export class Plain extends Card {
  static fields = { title: string() };
  static isolated = ({ card }) => <p>{card.title}</p>;
}
"""
#: A card of this module never finishes rendering if its title is `loop`.
LOOPING = b"""\
import { Card, string } from "@realm/base";
export class Looping extends Card {
  static fields = { title: string() };
  static isolated = ({ card }) => { while (card.title === "loop"); return <p>{card.title}</p>; };
}
"""


def looping(count: int) -> dict[str, bytes]:
    """Returns the files of a realm with `count` looping cards."""
    card = make.card("./looping", "Looping", title="loop")
    return {"looping.tsx": LOOPING, **{f"c{i:03}.json": card for i in range(count)}}


def publish(fleet: Cluster, source: Realm, url: str) -> None:
    """Publishes a source realm over HTTP, as the realm's owner."""
    assert source.owner is not None
    answer = fleet.replicas[0].request(
        "POST",
        "http://localhost:4201/_publish-realm",
        accept=API,
        body=json.dumps({"sourceRealmURL": source.url, "publishedRealmURL": url}),
        headers=make.login(source.owner.get_username()),
    )
    assert answer.status == 202, answer.text


def seconds_until_ready(fleet: Cluster, source: Realm, url: str, patience: float) -> float:
    """Publishes a realm. Returns how many seconds pass from the request until the new pages are
    shown."""
    began = time.monotonic()
    publish(fleet, source, url)
    done = ReindexJob.objects.filter(realm_url=url, status="done")
    wait_until(done.exists, f"{url} ready", patience)
    return time.monotonic() - began


def busy() -> int:
    """Counts the worker processes that are rendering a batch of cards."""
    return ReindexBatch.objects.filter(done=False, lease_until__isnull=False).count()


def innocent(owner: Any) -> Realm:
    """Makes a source realm of the user ada, with five harmless cards."""
    files = {f"c{i}.json": make.card("./plain", "Plain", title=f"card {i}") for i in range(5)}
    return make.source("http://localhost:4201/ada/site/", owner, {"plain.tsx": PLAIN, **files})


def bad_realms(*files: dict[str, bytes]) -> list[tuple[Realm, str]]:
    """Makes source realms that the user mallory owns. Returns each realm with the URL for its
    published realm."""
    mallory = make.user("mallory")
    return [
        (
            make.source(f"http://localhost:4201/mallory/bad-{i}/", mallory, each),
            f"http://localhost:4201/mallory/shown-{i}/",
        )
        for i, each in enumerate(files)
    ]


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("processes", "realms"),
    [pytest.param(1, [200], marks=takes_minutes), (2, [50, 50, 50, 50])],
)
def test_looping_cards_of_one_user_do_not_delay_another_users_publish(
    owner: Any, tmp_path: Path, processes: int, realms: Sequence[int]
) -> None:
    sync_base_realm()
    bad = bad_realms(*(looping(count) for count in realms))
    source = innocent(owner)
    with cluster(tmp_path, 1, REALM_RENDER_SECONDS="5") as running:
        running.wait_reported()
        running.spawn(celery_worker("w", processes=processes))
        for realm, url in bad:
            publish(running, realm, url)
        wait_until(lambda: busy() == processes, "each worker process renders looping cards")
        seconds = seconds_until_ready(running, source, ADA, 100)
        print(f"{processes} worker processes: ada's pages are shown after {seconds:.1f} s")
        unfinished = ReindexJob.objects.live().exclude(realm_url=ADA)
        assert unfinished.exists()
    assert seconds < 10


#: A card of the module FILLING exhausts the memory of the process that renders it. A card
#: of the module CHAIN follows links from card to card, and its page shows the last card's title.
FILLING = LOOPING.replace(
    b'while (card.title === "loop")', b"const all = []; for (;;) all.push(Array(1e6).fill(1))"
)
CHAIN = b"""\
import { Card, linksTo, string } from "@realm/base";
export class Looping extends Card {
  static fields = { title: string(), next: linksTo(() => Looping) };
  static isolated = ({ card }) => {
    let each = card;
    while (each.next) each = each.next;
    return <p>{each.title}</p>;
  };
}
"""


def filling() -> list[dict[str, bytes]]:
    """Returns the files of one realm, with 200 cards that exhaust the memory of the process that
    renders them."""
    return [{**looping(200), "looping.tsx": FILLING}]


def modules() -> list[dict[str, bytes]]:
    """Returns the files of one realm, with 200 cards. Each card has a module of its own, which
    never finishes loading."""
    files = {f"m{i}.tsx": b"for (;;);//%d\n" % i + LOOPING for i in range(200)}
    return [files | {f"c{i}.json": make.card(f"./m{i}", "Looping") for i in range(200)}]


def tiny_realms() -> list[dict[str, bytes]]:
    """Returns the files of 60 realms. Each realm has one card, which never finishes rendering."""
    return [looping(1) for _ in range(60)]


def chain() -> list[dict[str, bytes]]:
    """Returns the files of one realm, with 400 cards. Each card links to the next card, and each
    card's page shows the title of the last card."""
    cards = {
        f"c{i:03}.json": make.card("./looping", "Looping", {"next": f"./c{i + 1:03}"}, title="x")
        for i in range(400)
    }
    return [{"looping.tsx": CHAIN, **cards}]


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(filling, marks=takes_minutes),
        pytest.param(modules, marks=takes_minutes),
        pytest.param(tiny_realms, marks=takes_minutes),
        chain,
    ],
)
def test_no_other_attack_delays_another_users_publish(
    owner: Any, tmp_path: Path, attack: Callable[[], list[dict[str, bytes]]]
) -> None:
    sync_base_realm()
    bad = bad_realms(*attack())
    source = innocent(owner)
    with cluster(tmp_path, 1, REALM_RENDER_SECONDS="5") as running:
        running.wait_reported()
        running.spawn(celery_worker("w", processes=1))
        for realm, url in bad:
            publish(running, realm, url)
        wait_until(busy, "the worker renders bad cards", 60)
        seconds = seconds_until_ready(running, source, ADA, 100)
        print(f"{attack.__name__}: ada's pages are shown after {seconds:.1f} s")
    assert seconds < 10


# --- How owners take turns ---------------------------------------------------------------------


def owe(owner: str, *, draft: bool = False, ago: float = 0, batches: int = 0) -> ReindexJob:
    """Makes an owner's job that has waited for `ago` seconds. If `batches` is not 0, the job is
    already planned and has this many batches. Otherwise a worker has to plan it first."""
    url = f"http://{owner}-{ReindexJob.objects.count()}.localhost:4201/"
    with transaction.atomic():
        job = queue.enqueue_job(url, 1, draft=draft, owner=owner)
    ReindexJob.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=ago))
    if batches:
        with override_settings(REALM_BATCH_CARDS=1):
            lifecycle.create_batches(
                job, lifecycle.Plan([f"{i}.json" for i in range(batches)], {url: 1})
            )
    return job


def owner_of(piece: turns.Piece | None) -> str:
    """Returns the owner of a leased job, batch or module with wanted definitions."""
    assert piece is not None
    return piece.job.owner if isinstance(piece, ReindexBatch) else piece.owner


def taken(count: int) -> str:
    """Leases the next `count` pieces of work, each as if for another worker, and finishes none.
    Returns the pieces' owners in order, one letter each."""
    return "".join(owner_of(turns.take()) for _ in range(count))


def done(count: int) -> str:
    """Leases and finishes the next `count` pieces of work one after another, as one worker would.
    Counts two seconds of worker time for each piece. Returns the pieces' owners in order, each
    as one letter."""
    owners = ""
    for _ in range(count):
        piece = turns.take()
        owners += owner_of(piece)
        if isinstance(piece, ReindexBatch):
            assert batches.finish(piece, [])
        else:
            assert isinstance(piece, ReindexJob)
            lifecycle.create_batches(piece, lifecycle.Plan([], {}))
        turns.add_usage(owners[-1], 2)
    return owners


@pytest.mark.usefixtures("sent", "transactional_db")
class TestTurns:
    """Checks in what order workers lease the work of several owners."""

    def test_workers_are_shared_between_owners_not_between_batches(self) -> None:
        owe("a", batches=9, ago=9)
        owe("b", batches=2, ago=5)
        owe("c")
        assert taken(5) == "abcab"
        assert taken(3) == "aaa"

    def test_one_worker_serves_owners_in_turn(self) -> None:
        owe("a", batches=9, ago=9)
        owe("b", batches=3, ago=1)
        assert done(8) == "abababaa"

    def test_one_realm_of_an_owner_is_leased_before_many_of_another(self) -> None:
        for _ in range(40):
            owe("a", ago=60)
        assert done(3) == "aaa"
        owe("b")
        assert done(3) == "baa"

    def test_an_owner_with_much_recent_worker_time_waits_for_the_others(self) -> None:
        turns.add_usage("a", 60)
        owe("a", batches=2, ago=9)
        for owner in "bcd":
            owe(owner, batches=2)
        assert done(8) == "bcdbcdaa"

    def test_counted_worker_time_halves_each_minute(self) -> None:
        turns.add_usage("a", 60)
        OwnerUsage.objects.update(counted_at=timezone.now() - timedelta(minutes=5))
        turns.add_usage("b", 10)
        owe("b", ago=9)
        owe("a")
        assert done(2) == "ab"
        turns.add_usage("a", 0)
        assert OwnerUsage.objects.get(owner="a").seconds < 5

    def test_publishes_are_leased_before_drafts_that_have_not_waited_long(self) -> None:
        owe("a", draft=True, ago=5)
        owe("b")
        assert done(2) == "ba"
        for _ in range(3):
            owe("b")
        turns.add_usage("b", 60)
        owe("a", draft=True, ago=11)
        assert done(2) == "ab"

    def test_a_thousand_drafts_of_one_owner_delay_no_publish(self) -> None:
        ReindexJob.objects.bulk_create(
            ReindexJob(realm_url=f"http://{i}.localhost:4201/", generation=1, draft=True, owner="a")
            for i in range(1000)
        )
        ReindexJob.objects.update(created_at=timezone.now() - timedelta(hours=1))
        assert done(1) == "a"
        owe("a")
        piece = turns.take()
        assert isinstance(piece, ReindexJob) and not piece.draft
        owe("b")
        assert done(1) == "b"

    def test_definitions_count_in_their_owners_turn(self) -> None:
        wanted.want_definitions([f"http://a.localhost:4201/{i}.ts" for i in range(50)], "a")
        assert turns.take() is None  # The definitions aren't due yet.
        WantedDefinitions.objects.update(due_at=timezone.now() - timedelta(minutes=1))
        turns.add_usage("a", 5)
        owe("b")
        assert taken(3) == "baa"

    def test_a_worker_of_a_superseded_job_counts_until_it_gives_up_its_lease(self) -> None:
        """If this worker didn't count, an owner who publishes repeatedly could occupy all
        workers."""
        job = owe("a", batches=1)
        batch = turns.take()
        assert isinstance(batch, ReindexBatch)
        with transaction.atomic():
            queue.enqueue_job(job.realm_url, 2, owner="a")
        owe("b")
        turns.add_usage("b", 60)
        assert taken(1) == "b"
        assert not batches.finish(batch, [])
        batches.end_lease_of_ended_job(batch)
        owe("b")
        assert taken(1) == "a"

    def test_two_workers_never_lease_the_same_piece_of_work(self) -> None:
        for owner in "abcd":
            owe(owner, batches=3)
            owe(owner)
        barrier = threading.Barrier(8)

        def take() -> list[str]:
            barrier.wait(10)
            pieces = iter(turns.take, None)
            return [f"{type(piece).__name__} {piece.pk}" for piece in pieces]

        found = [piece for each in [in_thread(take) for _ in range(8)] for piece in each.result(30)]
        assert len(found) == len(set(found)) == 16

    def test_others_wait_only_if_an_owner_with_fewer_workers_waits(self) -> None:
        owe("a", batches=3, ago=9)
        assert taken(1) == "a"
        assert not turns.others_wait("a", later=False)
        owe("b", draft=True, ago=5)
        assert not turns.others_wait("a", later=False)
        assert turns.others_wait("a", later=True)
        owe("c", batches=2, ago=1)
        assert turns.others_wait("a", later=False)
        assert taken(1) == "c"
        # One piece of c's work still waits, but c has as many workers as a.
        assert not turns.others_wait("a", later=False)

    def test_each_unfinished_part_of_a_batch_becomes_its_own_batch(self) -> None:
        job = owe("a", batches=1)
        ReindexBatch.objects.update(paths=["a.json", "b.json", "c.json"])
        batch = turns.take()
        assert isinstance(batch, ReindexBatch)
        result = {"url": f"{job.realm_url}a", "html": {"isolated": "a"}, "search": {}}
        assert batches.finish(batch, [result], [["b.json"], ["c.json"]])
        job.refresh_from_db()
        assert (job.status, job.seen) == ("rendering", 1)
        paths = list(job.batches.order_by("pk").values_list("paths", "done"))
        assert paths == [(["a.json"], True), (["b.json"], False), (["c.json"], False)]
        for _ in range(2):
            rest = turns.take()
            assert isinstance(rest, ReindexBatch)
            assert batches.finish(rest, [])
        job.refresh_from_db()
        assert (job.status, job.seen) == ("done", 3)

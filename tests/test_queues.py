"""Which queue a job's messages go to, and that a publish doesn't stand behind a thousand drafts."""

from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from pytest_django import Settings

from realms.bootstrap import sync_base_realm
from realms.models import Realm
from realms.reindex_views import reindex
from reindex import jobs, tasks
from reindex.models import ReindexJob
from settings.processes import celery_worker
from tests import make
from tests.cluster import cluster, wait_until

URL = "http://ada.localhost:4201/"
DRAFTS = 30
PLAIN = b"""\
import { Card, string } from "@realm/base";
export class Plain extends Card { static fields = { title: string() }; }
"""

Queued = list[tuple[str, str]]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Queued:
    """What would have gone to the broker, as (queue, the realm that it is about)."""
    messages: Queued = []

    def keep(task: str, key: int | str, queue: str = "celery", delay: float = 0) -> None:
        named = {"batches": key} if task.endswith("render_batch") else {"pk": key}
        messages.append((queue, ReindexJob.objects.get(**named).realm_url))

    monkeypatch.setattr(jobs, "send", keep)
    return messages


def taken(queued: Queued) -> Queued:
    """What was sent since the last look."""
    now = list(queued)
    queued.clear()
    return now


def test_whatever_is_sent_for_a_source_realm_goes_to_the_queue_of_drafts(
    source: Realm, queued: Queued, settings: Settings
) -> None:
    settings.REALM_INDEX_SOURCES = True
    make.write(source, index__json=b"{}")
    assert taken(queued) == [("drafts", source.url)]
    make.publish(source, URL)
    assert taken(queued) == [("celery", URL)]
    reindex(source.url)
    reindex(URL)
    assert taken(queued) == [("drafts", source.url), ("celery", URL)]

    ReindexJob.objects.update(sent_at=None, due_at=None)
    assert jobs.sweep() == 2
    assert sorted(taken(queued)) == [("celery", URL), ("drafts", source.url)]

    for url in (source.url, URL):
        job = ReindexJob.objects.get(realm_url=url, status="queued")
        jobs.begin(job.pk)
        settings.REALM_BATCH_CARDS = 1
        jobs.send_batches(jobs.planned(job.pk, jobs.Plan(["a.json", "b.json"], {url: 1})))
    assert taken(queued) == [*[("drafts", source.url)] * 2, *[("celery", URL)] * 2]


def test_what_follows_a_job_goes_the_way_of_the_job(source: Realm, queued: Queued) -> None:
    make.publish(source, URL)
    reindex(source.url)
    taken(queued)
    for url in (source.url, URL):
        job = jobs.begin(ReindexJob.objects.get(realm_url=url, status="queued").pk)
        assert job is not None
        jobs.again(job.pk)
        jobs.planned(job.pk, jobs.Plan([], {url: job.generation, "http://x.localhost:4201/": 1}))
    assert taken(queued) == [("drafts", source.url), ("celery", URL)]
    # Those that read a realm which changes.
    for job in ReindexJob.objects.filter(status="queued"):
        jobs.begin(job.pk)
        jobs.planned(job.pk, jobs.Plan([], {**job.pins, "http://x.localhost:4201/": 1}))
    with transaction.atomic():
        jobs.tell_dependents("http://x.localhost:4201/")
    assert sorted(taken(queued)) == [("celery", URL), ("drafts", source.url)]


def test_what_is_to_be_done_later_stands_in_line_like_what_is_sent_then(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """What a worker is given to do later it does before all that has come since."""
    told: list[tuple[str, tuple[Any, ...], Any, Any]] = []

    def keep(name: str, arguments: Any, *, queue: str, countdown: Any, **_: Any) -> None:
        told.append((name, arguments, queue, countdown))

    monkeypatch.setattr(current_app, "send_task", keep)
    jobs.send("reindex.tasks.build_definitions", "x", queue="definitions", delay=5)
    ((name, arguments, queue, countdown),) = told
    line = f"{settings.REALM_QUEUE_PREFIX}definitions"
    assert (name, queue, countdown) == (tasks.send_now.name, line, 5)
    tasks.send_now(*arguments)
    assert told[1:] == [("reindex.tasks.build_definitions", ("x",), line, None)]


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_publish_waits_for_no_more_than_a_few_of_many_drafts(owner: Any, tmp_path: Path) -> None:
    sync_base_realm()
    files = {"plain.tsx": PLAIN, "index.json": make.card("./plain", "Plain", title="x")}
    urls = [f"http://localhost:4201/ada/site-{i}/" for i in range(DRAFTS)]
    sources = [make.source(url, owner, files) for url in urls]
    # The sweeper would send again what a broker has.
    with cluster(tmp_path, 1, REALM_SWEEP_SECONDS="3600") as running:
        owing = "from realms.reindex_views import reindex; [reindex(url) for url in {!r}]"
        assert running.manage("shell", "-c", owing.format(urls)).wait(60) == 0
        publishing = ("publish_realm", sources[0].url, URL, "--no-wait")
        assert running.manage(*publishing).wait(60) == 0
        assert ReindexJob.objects.filter(status="queued").count() == DRAFTS + 1
        running.spawn(celery_worker("w", processes=1))
        done = ReindexJob.objects.filter(status="done")
        wait_until(done.filter(realm_url=URL).exists, "the publish done", 60)
        published = done.get(realm_url=URL)
        ahead = done.filter(draft=True, finished_at__lt=published.finished_at).count()
    # In a single queue it would be all of them.
    assert ahead <= 3

"""Tests the queue of jobs, which render the pages of realms. Celery messages only wake workers, and
database rows say which jobs are due. A user's published realms are rendered before the user's
drafts, which are jobs for source realms."""

from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from pytest_django import Settings

from realms.api.reindex_views import reindex
from realms.models import Realm
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import lifecycle, queue, sweeper
from reindex.models import ReindexJob
from settings.processes import celery_worker
from tests.support import make
from tests.support.cluster import cluster, wait_until
from tests.support.rendering import WORK

URL = "http://ada.localhost:4201/"
DRAFTS = 30
PLAIN = b"""\
import { Card, string } from "@realm/base";
export class Plain extends Card { static fields = { title: string() }; }
"""


def test_every_job_of_a_realm_names_the_realms_owner(
    source: Realm, sent: Any, settings: Settings
) -> None:
    assert source.owner is not None
    settings.REALM_INDEX_SOURCES = True
    make.write(source, index__json=b"{}")
    make.publish(source, URL)
    reindex(source.url)
    reindex(URL)
    for job in ReindexJob.objects.filter(status="queued"):
        # These calls finish the job and queue another job for the same realm.
        leased = lifecycle.lease_job(job.pk)
        assert leased is not None
        lifecycle.request_rerun(job.pk)
        lifecycle.create_batches(
            leased, lifecycle.Plan([], {job.realm_url: 1, "http://x.localhost:4201/": 1})
        )
    for job in ReindexJob.objects.filter(status="queued"):
        leased = lifecycle.lease_job(job.pk)
        assert leased is not None
        lifecycle.create_batches(
            leased, lifecycle.Plan([], {job.realm_url: 1, "http://x.localhost:4201/": 1})
        )
    before = ReindexJob.objects.count()
    with transaction.atomic():
        # The last jobs of the source realm and of the published realm have both read files of the
        # changed realm, so each of the two realms gets a job.
        queue.enqueue(changed=["http://x.localhost:4201/"])
    assert ReindexJob.objects.count() == before + 2
    made = ReindexJob.objects.values_list("realm_url", "owner", "draft")
    assert set(made) == {
        (source.url, str(source.owner.pk), True),
        (URL, str(source.owner.pk), False),
    }


def test_the_sweepers_messages_are_limited_and_expire(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    told: list[Any] = []
    monkeypatch.undo()
    monkeypatch.setattr(current_app, "send_task", lambda name, **named: told.append(named))
    for i in range(3 * sweeper.MAX_SWEPT):
        with transaction.atomic():
            queue.enqueue_job(f"http://{i}.localhost:4201/", 1)
    told.clear()
    ReindexJob.objects.update(sent_at=None)
    assert sweeper.sweep() == sweeper.MAX_SWEPT == len(told)
    assert {message["expires"] for message in told} == {5.0}


def test_a_write_while_a_draft_waits_sends_no_second_message(
    source: Realm, sent: list[Any], settings: Settings
) -> None:
    settings.REALM_INDEX_SOURCES = True
    for i in range(5):
        make.write(source, index__json=make.card("./post", "Post", title=str(i)))
    assert sent == [(WORK[0], queue.QUIET.total_seconds())]


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_publish_waits_for_at_most_three_of_many_drafts(owner: Any, tmp_path: Path) -> None:
    sync_base_realm()
    files = {"plain.tsx": PLAIN, "index.json": make.card("./plain", "Plain", title="x")}
    urls = [f"http://localhost:4201/ada/site-{i}/" for i in range(DRAFTS)]
    sources = [make.source(url, owner, files) for url in urls]
    # The sweeper is a periodic task that sends messages again. It doesn't run during the test,
    # because its interval is an hour. Otherwise it would send a second message for some jobs.
    with cluster(tmp_path, 1, REALM_SWEEP_SECONDS="3600") as running:
        owing = "from realms.api.reindex_views import reindex; [reindex(url) for url in {!r}]"
        assert running.manage("shell", "-c", owing.format(urls)).wait(60) == 0
        publishing = ("publish_realm", sources[0].url, URL, "--no-wait")
        assert running.manage(*publishing).wait(60) == 0
        assert ReindexJob.objects.filter(status="queued").count() == DRAFTS + 1
        running.spawn(celery_worker("w", processes=1))
        done = ReindexJob.objects.filter(status="done")
        wait_until(done.filter(realm_url=URL).exists, "the publish done", 60)
        published = done.get(realm_url=URL)
        ahead = done.filter(draft=True, finished_at__lt=published.finished_at).count()
    # If workers took jobs in the order in which they were queued, all drafts would be done first.
    assert ahead <= 3

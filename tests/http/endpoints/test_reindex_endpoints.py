"""Tests the endpoints that report a realm's progress and readiness, and that start or cancel a
reindex, which is a job that renders the realm's pages."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from realms.models import Realm
from reindex import tasks
from reindex.jobs import batches, lifecycle, queue
from reindex.models import IndexedCard, ReindexJob
from tests.support import make
from tests.support.gates import in_thread
from tests.support.rendering import index_of, work_off
from tests.support.web import Web

URL = "http://ada.localhost:4201/"
API = "application/vnd.api+json"
Sent = list[tuple[str, Any]]
AWAIT = f"{URL}_readiness-check?awaitPrerenderHtml=true"
PROGRESS = f"http://localhost:4201/_publish-progress?published_realm_url={URL}"


@pytest.fixture
def published(web: Web, source: Realm, sent: Sent) -> Realm:
    """Publishes the source realm and returns the published realm, which has a queued job."""
    make.publish(source, URL)
    return Realm.objects.get(url=URL)


def progress(web: Web, **headers: str) -> Any:
    answer = web.get(PROGRESS, API, **(headers or make.login("ada")))
    assert answer.status == 200, answer.text
    return json.loads(answer.body)["data"]["attributes"]


def readiness(web: Web, url: str) -> tuple[int, str | None]:
    answer = web.get(url, API)
    return answer.status, answer.headers.get("x-boxel-not-ready")


def newest() -> ReindexJob:
    job = ReindexJob.objects.filter(realm_url=URL).first()
    assert job is not None
    return job


def test_progress_and_readiness_report_each_phase_of_a_job(
    web: Web, published: Realm, settings: Settings
) -> None:
    check = f"{URL}_readiness-check"
    assert progress(web)["phase"] == "queued"
    assert readiness(web, check) == readiness(web, AWAIT) == (503, "index")

    job = lifecycle.lease_job(newest().pk)
    assert job is not None
    assert progress(web)["phase"] == "index"
    assert readiness(web, AWAIT) == (503, "index")

    settings.REALM_BATCH_CARDS = 1
    first, second = lifecycle.create_batches(
        job, lifecycle.Plan(["index.json", "ada.json"], {URL: 1})
    )
    assert readiness(web, AWAIT) == (503, "prerender-html")
    assert readiness(web, check) == (503, "index")
    batch = batches.lease_batch(first.pk)
    assert batch is not None
    batches.finish(batch, [{"url": f"{URL}index", "html": {"isolated": "x"}, "search": {}}])
    told = progress(web)
    assert (told["phase"], told["filesCompleted"], told["totalFiles"]) == ("render", 1, 2)
    assert told["seconds"] > 0 and told["finishedAt"] is None

    batch = batches.lease_batch(second.pk)
    assert batch is not None
    batches.finish(batch, [])
    told = progress(web)
    assert (told["phase"], told["renders"], told["carriedOver"], told["errors"]) == (
        "done",
        1,
        0,
        0,
    )
    assert readiness(web, check) == readiness(web, AWAIT) == (200, None)

    ReindexJob.objects.filter(pk=job.pk).update(status="failed", error="no replica")
    Realm.objects.filter(url=URL).update(generation=2)
    assert readiness(web, AWAIT) == (503, "prerender-html")
    assert "no replica" in web.get(AWAIT, API).text
    assert readiness(web, check) == (200, None)


def test_progress_is_only_for_the_owner(web: Web, published: Realm) -> None:
    make.user("bob")
    elsewhere = PROGRESS.replace("ada.localhost", "nowhere.localhost")
    assert web.get(PROGRESS, API).status == 401
    assert web.get(PROGRESS, API, **make.login("bob")).status == 403
    assert web.get(elsewhere, API, **make.login("ada")).status == 403
    missing = web.get("http://localhost:4201/_publish-progress", API, **make.login("ada"))
    assert missing.status == 400
    assert "published_realm_url" in missing.text


def post(web: Web, url: str, **headers: str) -> int:
    return int(
        web.request("POST", url, accept="application/json", body=b"{}", headers=headers).status
    )


def test_an_owner_can_reindex_fully_reindex_and_cancel(
    web: Web, published: Realm, source: Realm, sent: Sent
) -> None:
    make.user("bob")
    owner = make.realm_login(published, "ada")
    ReindexJob.objects.update(status="done")
    assert post(web, f"{URL}_reindex") == 401
    assert post(web, f"{URL}_reindex", **make.realm_login(published, "bob")) == 403
    assert post(web, "http://localhost:4201/ada/nowhere/_reindex", **owner) == 404
    assert newest().status == "done"
    assert post(web, f"{URL}_reindex", **owner) == 204
    assert (newest().status, newest().full) == ("queued", False)
    assert post(web, f"{URL}_full-reindex", **owner) == 204
    assert (newest().status, newest().full) == ("queued", True)
    assert post(web, f"{URL}_cancel-indexing-job", **owner) == 204
    assert newest().status == "cancelled"
    assert post(web, f"{source.url}_reindex", **make.realm_login(source, "ada")) == 204
    assert ReindexJob.objects.filter(realm_url=source.url).count() == 1


def test_the_commands_reindex_follow_and_cancel(
    web: Web, published: Realm, source: Realm, sent: Sent
) -> None:
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    work_off(sent)
    make.write(source, post__tsx=b"export class Post {")
    make.publish(source, URL)
    work_off(sent)
    out = StringIO()
    waiting = in_thread(
        lambda: call_command("reindex_realm", URL, "--full", "--allow-errors", stdout=out)
    )
    while not sent:
        assert not waiting.done(), out.getvalue()
    work_off(sent)
    waiting.result(20)
    assert "2 cards rendered" in out.getvalue() and "1 with errors" in out.getvalue()
    assert "1 × The module can't be transpiled" in out.getvalue()
    call_command("reindex_realm", URL, "--no-wait", stdout=out)
    call_command("cancel_reindex", URL, stdout=out)
    assert newest().status == "cancelled"
    call_command("cancel_reindex", URL, stdout=out)
    assert "has no rendering to cancel" in out.getvalue()
    for command in ("reindex_realm", "cancel_reindex"):
        with pytest.raises(CommandError, match="nowhere"):
            call_command(command, "http://nowhere.localhost:4201/")


# --- Source realms -----------------------------------------------------------------------------


def test_writes_to_a_source_realm_share_one_job(
    source: Realm, sent: Sent, settings: Settings
) -> None:
    settings.REALM_INDEX_SOURCES = True
    first = make.write(source, a__json=make.card("./post", "Post", title="a"))
    make.write(source, b__json=make.card("./post", "Post", title="b"))
    last = make.remove(source, "a.json")
    (job,) = ReindexJob.objects.filter(realm_url=source.url)
    assert (job.generation, last - first) == (last, 2)
    assert sent == [(tasks.work.name, queue.QUIET.total_seconds())]
    assert job.due_at is not None and job.due_at > timezone.now()
    ReindexJob.objects.update(sent_at=timezone.now())  # The message arrives before the job is due.
    assert not tasks.work() and not tasks.work()
    assert len(sent) == 2  # A worker has sent another message, for the time when the job is due.
    ReindexJob.objects.update(due_at=timezone.now())
    assert lifecycle.lease_job(job.pk) is not None

    # The job has started, so the next job has to render the files of later writes.
    newer = make.write(source, c__json=make.card("./post", "Post", title="c"))
    job.refresh_from_db()
    assert (job.generation, job.next_generation) == (last, newer)
    lifecycle.create_batches(job, lifecycle.Plan([], {source.url: last}))
    after = ReindexJob.objects.filter(realm_url=source.url).first()
    assert after is not None and (after.generation, after.status) == (newer, "queued")


def test_a_private_source_has_an_index_and_no_page_for_strangers(
    web: Web, owner: Any, sent: Sent, settings: Settings
) -> None:
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    settings.REALM_INDEX_SOURCES = True
    private = "http://localhost:4201/ada/diary/"
    realm = make.source(private, owner, make.SITE, public=False)
    ReindexJob.objects.update(due_at=timezone.now())
    work_off(sent)
    assert index_of(private).keys() == {"index", "ada"}
    assert web.get(private, "text/html").status == 401
    make.write(realm, index__json=make.card("./post", "Post", title="Today"))
    ReindexJob.objects.update(due_at=timezone.now())
    work_off(sent)
    job = ReindexJob.objects.filter(realm_url=private).first()
    assert job is not None and (job.rendered, job.carried) == (1, 1)


def test_a_cancelled_job_stores_no_cards(sent: Sent, owner: Any) -> None:
    with transaction.atomic():
        job = queue.enqueue_job(URL, 1)
    (made,) = lifecycle.create_batches(job, lifecycle.Plan(["a.json"], {URL: 1}))
    batch = batches.lease_batch(made.pk)
    assert batch is not None
    assert queue.cancel(URL) == 1
    assert not batches.finish(batch, [{"url": f"{URL}a", "html": {}, "search": {}}])
    assert not IndexedCard.objects.exists()

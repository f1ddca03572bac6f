"""Tests that a job or batch is tried again if an error occurs, if a worker is killed, or if a
transaction is writing to a realm. A worker plans a job, which divides the job into batches of
cards, and then renders the batches. The sweeper, a periodic task, retries failed jobs and sends
lost messages again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from notifications.locks import lock_key
from reindex import tasks
from reindex.index.shown import readiness
from reindex.jobs import batches, leases, lifecycle, planning, queue, sweeper
from reindex.models import IndexedCard, ReindexJob
from tests.support.data.jobs import (
    fail,
    long_ago,
    owe,
    plan,
    plan_two,
    results,
    run_out,
    status,
    taken,
)
from tests.support.listening.hearing import connect
from tests.support.rendering import WORK, work_off

URL = "http://ada.localhost:4201/"
Status = ReindexJob.Status
Sent = list[tuple[str, Any]]


@pytest.mark.django_db(transaction=True)
def test_a_released_batch_is_retried_until_its_job_fails_and_later_again(
    sent: Sent,
) -> None:
    job = owe(1)
    done, pk = plan_two(job)
    batches.finish(taken(done), results("a"))
    sent.clear()
    for attempt in range(1, leases.MAX_ATTEMPTS + 1):
        assert status(job) == Status.RENDERING
        batch = taken(pk)
        assert batch.attempts == attempt
        batches.release(batch, "replica b answered 503")
        # Workers may lease a released batch again only after a second (RETRIED_AFTER).
        assert batches.lease_batch(pk) is None
        run_out(pk)
    assert status(job) == Status.FAILED
    assert batches.lease_batch(pk) is None
    state = readiness(URL, 1)
    assert (state.ready, state.missing) == (False, "prerender-html")
    assert state.error == "replica b answered 503"

    assert sweeper.sweep() == 0
    long_ago(job)
    assert sweeper.sweep() == 1
    assert sent == [WORK]
    assert status(job) == Status.RENDERING
    assert batches.finish(taken(pk), results("b"))
    assert status(job) == Status.DONE
    assert job.error == ""
    assert {card.path for card in IndexedCard.objects.all()} == {"a", "b"}


OTHER = "http://bo.localhost:4201/"


def shown(generation: int, reads: str) -> ReindexJob:
    """Makes a finished job. The job's index depends on the job's own realm and on the realm at the
    URL `reads`."""
    job = owe(generation)
    batches.finish(taken(plan(job, "a")[0]), results("a"))
    ReindexJob.objects.filter(pk=job.pk).update(pins={URL: generation, reads: 1})
    return job


@pytest.mark.django_db(transaction=True)
def test_a_change_of_another_realm_retries_the_latest_failed_job(
    sent: Sent,
) -> None:
    """The failed job was never planned, so its row doesn't say which realms the job reads. But the
    index of the first job was made from the other realm, and visitors still see this index."""
    shown(1, OTHER)
    failed = owe(2)
    fail(failed)
    with transaction.atomic():
        queue.enqueue(changed=[OTHER])
    assert status(failed) == Status.SUPERSEDED
    live = ReindexJob.objects.live().get(realm_url=URL)
    assert live.generation == 2


@pytest.mark.django_db(transaction=True)
def test_a_failed_job_waits_for_a_later_job_and_then_starts_again(
    sent: Sent,
) -> None:
    """When the later job swaps in its index, it removes the cards that the failed job has
    rendered."""
    failed, lost = owe(2), owe(1, OTHER)
    done, other = plan_two(failed)
    batches.finish(taken(done), results("a"))
    for _ in range(leases.MAX_ATTEMPTS):
        batches.release(taken(other), "nobody there")
        run_out(other)
    assert status(failed) == Status.FAILED
    later = ReindexJob.objects.create(realm_url=URL, generation=1, sent_at=timezone.now())
    for job in (failed, lost):
        long_ago(job)
    sent.clear()
    assert sweeper.sweep() == 1
    assert sent == [WORK]
    assert status(failed) == Status.FAILED

    batches.finish(taken(plan(later, "a", "b")[0]), results("a", "b"))
    assert sweeper.sweep() == 1
    assert status(failed) == Status.QUEUED
    batches.finish(taken(plan(failed, "a", "b")[0]), results("a", "b"))
    assert status(failed) == Status.DONE
    cards = IndexedCard.objects.filter(realm_url=URL, current=True)
    assert {card.path for card in cards} == {"a", "b"}


@pytest.mark.django_db(transaction=True)
def test_a_job_that_cannot_be_planned_fails_and_is_retried_later(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", ["http://127.0.0.1:1"])
    job = owe(1)
    for _ in range(leases.MAX_ATTEMPTS):
        assert status(job) == Status.QUEUED
        assert work_off(sent) == 1
        ReindexJob.objects.update(sent_at=None, lease_until=None)
        sweeper.sweep()
    assert status(job) == Status.FAILED
    assert "127.0.0.1:1" in job.error
    assert sent == []
    long_ago(job)
    assert sweeper.sweep() == 1
    assert status(job) == Status.QUEUED
    assert sent == [WORK]


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_kills_its_workers_fails_the_job(
    sent: Sent,
) -> None:
    job = owe(1)
    (pk,) = plan(job, "a")
    for _ in range(leases.MAX_ATTEMPTS):
        long_ago(job)
        sweeper.sweep()
        assert sent.pop() == WORK
        taken(pk)
        run_out(pk)
    sweeper.sweep()
    assert status(job) == Status.FAILED
    assert job.error == "5 workers ended while they rendered the same batch"


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_planners_are_all_killed_fails(sent: Sent) -> None:
    job = owe(1)
    for _ in range(leases.MAX_ATTEMPTS):
        sweeper.sweep()
        assert lifecycle.lease_job(job.pk) is not None
        plan_run_out(job)
    sweeper.sweep()
    assert status(job) == Status.FAILED
    assert job.error == "5 workers ended while they planned the job"


def plan_run_out(job: ReindexJob) -> None:
    past = timezone.now() - timedelta(seconds=1)
    ReindexJob.objects.filter(pk=job.pk).update(lease_until=past)


@pytest.mark.django_db(transaction=True)
def test_a_planner_renews_its_lease_and_stops_if_it_is_lost(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0)
    job = owe(1)

    def slow(leased: ReindexJob, go_on: Any) -> lifecycle.Plan:
        plan_run_out(job)
        go_on()
        assert lifecycle.lease_job(job.pk) is None, "the lease was renewed"
        plan_run_out(job)
        assert lifecycle.lease_job(job.pk) is not None, "another worker leases the job"
        go_on()
        raise AssertionError("unreachable")

    monkeypatch.setattr(planning, "plan", slow)
    assert tasks.work()
    assert (status(job), job.error) == (Status.QUEUED, "")


@pytest.mark.django_db(transaction=True)
def test_work_that_waits_for_a_writer_is_postponed_without_an_attempt(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "WRITERS_SECONDS", 0.05)
    job = owe(1)

    def waits(leased: ReindexJob, go_on: Any) -> lifecycle.Plan:
        lifecycle.wait_for_writers(OTHER)
        return lifecycle.Plan([], {URL: 1})

    monkeypatch.setattr(planning, "plan", waits)
    with connect() as writer, writer.transaction():
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(OTHER)])
        for _ in range(leases.MAX_ATTEMPTS + 1):
            assert tasks.work()
            assert not tasks.work(), "no worker may lease a postponed job at once"
            plan_run_out(job)
        assert (status(job), job.attempts) == (Status.QUEUED, 0)
        assert job.error == f"{OTHER} has been written to for more than 0.05 s"
    assert tasks.work()
    assert (status(job), job.error) == (Status.DONE, "")


NOTES: dict[str, Callable[[ReindexJob], object]] = {
    "a generation": lambda job: tasks._pin(job.pk, OTHER, 1),
    "an address": lambda job: tasks._address(job, OTHER),
    "a realm that is not there": lambda job: tasks._note_missing_realm(job.pk, f"{OTHER}a"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", NOTES)
def test_a_job_gets_a_successor_if_a_writer_blocks_the_check_of_a_read(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(lifecycle, "WRITERS_SECONDS", 0.05)
    monkeypatch.setattr(tasks, "ask_address", lambda url: url)
    job = owe(1)
    with connect() as writer, writer.transaction():
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(OTHER)])
        with pytest.raises(lifecycle.WritersBusy):
            NOTES[what](job)
    job.refresh_from_db()
    assert job.next_generation == 1


@pytest.mark.django_db(transaction=True)
def test_the_sweeper_sends_only_unfinished_work_without_a_worker(sent: Sent) -> None:
    queued = owe(1, "http://a.localhost:4201/")
    rendering = owe(1)
    a, b = plan_two(rendering)
    taken(a)
    ended = owe(1, "http://b.localhost:4201/")
    lifecycle.create_batches(ended, lifecycle.Plan([], {}))
    sent.clear()
    # The messages for these jobs have just been sent, so the sweeper sends none.
    assert sweeper.sweep() == 0
    for job in (queued, rendering, ended):
        long_ago(job)
    assert sweeper.sweep() == 2
    assert sent == [WORK] * 2
    assert sweeper.sweep() == 0
    long_ago(rendering)
    run_out(a)
    batches.finish(taken(b), results("b"))
    sent.clear()
    assert sweeper.sweep() == 1
    assert sent == [WORK]

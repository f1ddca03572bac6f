"""Tests the batches of a reindex job. A job renders the cards of one realm at one generation, and a
batch is a part of these cards. A worker leases a batch, renders the cards and stores the results.
The last batch swaps the index, so that visitors see the new pages."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from pytest_django import Settings

from reindex.index.shown import find_page, readiness
from reindex.jobs import batches, leases, lifecycle
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob
from tests.support.cluster import wait_until
from tests.support.data.jobs import owe, plan, plan_two, results, run_out, status, taken
from tests.support.gates import Gate, in_thread

URL = "http://ada.localhost:4201/"
Status = ReindexJob.Status
Sent = list[tuple[str, Any]]


@pytest.mark.django_db(transaction=True)
def test_only_the_last_batch_swaps_the_index(sent: Sent, settings: Settings) -> None:
    settings.REALM_BATCH_CARDS = 2
    job = owe(1)
    first, second, third = plan(job, "a", "b", "c", "d", "e")
    assert plan(job, "a") == []  # A job is planned only once.
    assert ReindexBatch.objects.get(pk=third).paths == ["e.json"]
    assert batches.finish(taken(second), results("c", "d"))
    bad = {"url": f"{URL}b", "error": {"status": 500, "message": "no"}}
    assert batches.finish(taken(first), [*results("a"), bad])
    assert not IndexHead.objects.exists()
    assert find_page(URL, "a").generation is None
    assert batches.finish(taken(third), results("e"))
    assert status(job) == Status.DONE
    assert (job.total, job.rendered, job.errors) == (5, 5, 1)
    assert find_page(URL, "a").html == {"isolated": "new a"}
    assert find_page(URL, "b").error == {"status": 500, "message": "no"}
    assert find_page(URL, "nowhere") == type(find_page(URL, "a"))(1)


@pytest.mark.django_db(transaction=True)
def test_a_swap_removes_older_pages_and_an_older_index_never_returns(sent: Sent) -> None:
    old = owe(1)
    batches.finish(taken(plan(old, "a", "gone")[0]), results("a", "gone", edition="old"))
    new = owe(2)
    batches.finish(taken(plan(new, "a")[0]), results("a"))
    assert set(IndexedCard.objects.values_list("path", "job")) == {("a", new.pk)}

    # Make the job of the older generation unfinished again. In production, the locks prevent this.
    ReindexJob.objects.filter(pk=old.pk).update(status=Status.RENDERING)
    late = ReindexBatch.objects.create(job=old, paths=["a.json"])
    assert batches.finish(taken(late.pk), results("a", edition="old"))
    assert status(old) == Status.SUPERSEDED
    assert IndexHead.objects.get().job_id == new.pk
    assert find_page(URL, "a").html == {"isolated": "new a"}


@pytest.mark.django_db(transaction=True)
def test_a_realm_without_cards_has_an_index_at_once(sent: Sent) -> None:
    job = owe(3)
    assert plan(job) == []
    assert status(job) == Status.DONE
    assert readiness(URL, 3).ready


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_two_workers_finish_is_stored_once(sent: Sent) -> None:
    job = owe(1)
    slow, other = (taken(pk) for pk in plan_two(job))
    run_out(slow.pk)
    again = taken(slow.pk)
    assert batches.finish(again, results("a", edition="second"))
    assert not batches.finish(slow, results("a", edition="first"))
    assert batches.finish(other, results("b"))
    job.refresh_from_db()
    assert job.rendered == 2
    assert find_page(URL, "a").html == {"isolated": "second a"}


@pytest.mark.django_db
def test_the_planner_of_a_job_gets_the_lease_of_its_first_batch(sent: Sent) -> None:
    job = owe(1)
    with override_settings(REALM_BATCH_CARDS=1):
        first, second = lifecycle.create_batches(
            job, lifecycle.Plan(["a.json", "b.json"], {URL: 1}), lease_first=True
        )
    assert batches.lease_batch(first.pk) is None
    assert batches.finish(first, results("a"))
    assert batches.lease_batch(second.pk) is not None


@pytest.mark.django_db(transaction=True)
def test_one_of_many_workers_that_claim_a_batch_gets_it(sent: Sent) -> None:
    (batch,) = plan(owe(1), "a")
    crowd = 8
    barrier = threading.Barrier(crowd)

    def claim() -> ReindexBatch | None:
        barrier.wait(10)
        return batches.lease_batch(batch)

    claims = [in_thread(claim) for _ in range(crowd)]
    assert sum(claimed.result(10) is not None for claimed in claims) == 1


@pytest.mark.django_db(transaction=True)
def test_the_last_two_batches_that_finish_together_swap_the_index_once(sent: Sent) -> None:
    job = owe(1)
    a, b = (taken(pk) for pk in plan_two(job))
    gate = Gate()

    def held() -> Iterator[dict[str, Any]]:
        gate.hold()
        yield from results("a")

    first = in_thread(batches.finish, a, held())
    gate.wait_for_arrival()
    second = in_thread(batches.finish, b, results("b"))
    # Without the lock of the job's row, neither transaction would see the other's result. Then the
    # count of rendered cards would be wrong, or no transaction would swap the index.
    wait_until(lambda: second.done() or somebody_waits(), "the second at the lock of the first")
    gate.open()
    assert (first.result(10), second.result(10)) == (True, True)
    assert status(job) == Status.DONE
    assert job.rendered == 2
    assert IndexHead.objects.get().job_id == job.pk


def somebody_waits() -> bool:
    """Returns whether a client of the test's database waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE NOT l.granted AND a.datname = current_database()"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_held_only_as_long_as_it_is_renewed(sent: Sent) -> None:
    (pk,) = plan(owe(1), "a")
    batch = taken(pk)
    assert batches.lease_batch(pk) is None
    run_out(pk)
    assert leases.renew(batch)
    assert batches.lease_batch(pk) is None
    run_out(pk)
    heir = taken(pk)
    assert heir.attempts == 2
    assert not leases.renew(batch)
    assert leases.renew(heir)
    batches.release(batch, "the worker has lost the lease")
    assert batches.lease_batch(pk) is None
    assert batches.finish(heir, results("a"))
    run_out(pk)
    assert batches.lease_batch(pk) is None
